"""The harvest: prepared samples in, rows of the activation store out. It knows nothing of Ray."""
