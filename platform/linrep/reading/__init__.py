"""One sequence read through everything that is known of the model: latents that fire, nearest words, and what the probes say."""
