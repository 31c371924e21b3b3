"""SAEs on disk: SAELens' format, which is ours, and those of dictionary_learning, sparsify and the paper."""

from pathlib import Path

from linrep.errors import FormatError
from linrep.places import Place, place
from linrep.sae.coder import Sae
from linrep.sae.formats import dictionary_learning, paper, saelens, sparsify


def read(where: "str | Path | Place") -> Sae:
    """The SAE in a folder or file of any known format.

    Raises:
        FormatError: There is none.
    """
    here = place(where)
    if here.name.endswith(".pkl"):
        return paper.read(here)
    readers = {reader.WEIGHTS: reader for reader in (saelens, dictionary_learning, sparsify)}
    there = [name for name in readers if (here / name).is_file()]
    if not there:
        raise FormatError(f"no SAE at {here}: it holds none of {', '.join(readers)}, and is no .pkl of the paper's")
    if len(there) > 1:
        raise FormatError(f"{here} holds {' and '.join(there)}, SAEs of several formats: leave one in a folder")
    return readers[there[0]].read(here)
