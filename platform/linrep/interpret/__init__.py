"""Words for latents, and how well the words tell when a latent fires. Knows no Ray, and no features beyond their tables."""
