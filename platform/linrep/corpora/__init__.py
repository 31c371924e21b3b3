"""Corpora: images, texts, image-caption pairs and documents, indexed once and read in chunks of samples.

Light to import, as a recipe needs it: what indexes and reads is imported from `linrep.corpora.index` and `linrep.corpora.read`.
"""

from linrep.corpora.config import Corpora, Documents, Images, Pairs, Splits, Text
from linrep.corpora.kinds import DocumentFiles, ImageFolder, ImageParquet, ImageTar, PairFiles, PairTar, TextFiles

__all__ = [
    "Corpora", "DocumentFiles", "Documents", "ImageFolder", "ImageParquet", "ImageTar", "Images", "PairFiles", "PairTar", "Pairs",
    "Splits", "Text", "TextFiles",
]  # fmt: skip
