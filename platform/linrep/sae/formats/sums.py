"""Sums of the files of an SAE that was trained here: its layer's commit holds them, and whoever reads the SAE checks them.

An SAE from elsewhere, or one that was copied out of its artefact, has no commit and no sums.
"""

from collections.abc import Sequence

import xxhash

from linrep.errors import StoreError
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.records import read_record, repair_of_unit

PIECE_BYTES = 32 * 2**20


def sums_of(folder: Place, names: Sequence[str]) -> dict[str, str]:
    """XXH3-64 sums of files of an SAE, by the SAE's folder and the file's name."""
    return {f"{folder.name}/{name}": _sum_of(folder / name) for name in names}


def _sum_of(file: Place) -> str:
    """Read a piece at a time: the weights of a large SAE take gigabytes."""
    found = xxhash.xxh3_64()
    with file.open() as stream:
        while piece := stream.read(PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()


def check_sums(folder: Place, names: Sequence[str]) -> None:
    """Hold the files of an SAE against the commit of its layer, where there is one.

    Args:
        folder: The SAE's, in its layer's.
        names: Its files.

    Raises:
        StoreError: A file differs from what was written.
    """
    layer = folder.parent.name
    artefact = folder.parent.parent
    commit = artefact / "commits" / f"{layer}.json"
    if not commit.is_file():
        return
    repair = repair_of_unit(artefact, layer)
    known = read_record(commit, UnitCommit, repair).cost.get("sums")
    if not isinstance(known, dict):
        raise StoreError(f"{commit} is damaged (it lacks the sums of the SAEs' files): {repair}")
    for name, found in sums_of(folder, names).items():
        if name in known and known[name] != found:
            raise StoreError(f"{folder.parent / name} is damaged (it is not as it was written): {repair}")
