"""Sparse autoencoders: architectures, a training step at the floor, evaluation, and everybody's formats."""
