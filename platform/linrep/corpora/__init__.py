"""Corpora: photographs, texts and image-caption pairs, indexed once and read in chunks of samples."""
