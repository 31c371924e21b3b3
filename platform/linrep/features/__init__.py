"""What each latent of a dictionary does: statistics, examples, attributes, words, neighbours. Knows no Ray."""
