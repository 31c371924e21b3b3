"""Corpora: photographs, texts and image-caption pairs, indexed once and read in chunks of samples."""

from linrep.corpora.config import Corpora, ImageFolder, ImageParquet, ImageTar, PairFiles, PairTar, Splits, TextFiles
from linrep.corpora.index import Chunk, CorpusSummary, Index, build_index
from linrep.corpora.read import read
from linrep.corpora.runs import Class

__all__ = [
    "Chunk",
    "Class",
    "Corpora",
    "CorpusSummary",
    "ImageFolder",
    "ImageParquet",
    "ImageTar",
    "Index",
    "PairFiles",
    "PairTar",
    "Splits",
    "TextFiles",
    "build_index",
    "read",
]
