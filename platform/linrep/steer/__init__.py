"""Steering: edits of the residual stream, and what they do to the model's answers. Knows no Ray."""
