"""Dictionaries on disk: SAELens' format, which is ours, and those of dictionary_learning, sparsify and the paper."""

from pathlib import Path

from linrep.errors import FormatError
from linrep.places import Place, place
from linrep.sae.coder import Sae
from linrep.sae.formats import dictionary_learning, paper, saelens, sparsify


def read(where: "str | Path | Place") -> Sae:
    """The dictionary in a folder or file of any known format.

    Raises:
        FormatError: There is none.
    """
    here = place(where)
    if here.name.endswith(".pkl"):
        return paper.read(here)
    for reader in (saelens, dictionary_learning, sparsify):
        if (here / reader.WEIGHTS).is_file():
            return reader.read(here)
    known = ", ".join(reader.WEIGHTS for reader in (saelens, dictionary_learning, sparsify))
    raise FormatError(f"no dictionary at {here}: it holds none of {known}, and is no .pkl of the paper's")
