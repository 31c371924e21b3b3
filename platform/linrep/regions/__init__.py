"""Regions of images: boxes and masks that people drew, and the patches of the model that they cover."""
