"""How much image and text share: geometry, concepts and latents of image-caption pairs, with nulls and intervals."""
