"""What each latent of an SAE does: statistics, examples, attributes, words, neighbours. Knows no Ray."""
