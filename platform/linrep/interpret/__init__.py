"""Words for latents, and how well the words predict when a latent fires. Knows no Ray, and no features beyond their tables."""
