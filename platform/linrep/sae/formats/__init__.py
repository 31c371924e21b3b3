"""SAEs on disk: SAELens' format, which is ours, and those of dictionary_learning, sparsify and the paper."""

from pathlib import Path

from linrep.errors import FormatError
from linrep.places import Place, place
from linrep.repository.address import Address, is_address, parse
from linrep.repository.files import fetched
from linrep.sae.formats import dictionary_learning, paper, saelens, sparsify
from linrep.sae.sae import Sae

FETCHED = (".json", ".safetensors")
"""Endings of the files that are fetched of an SAE on the hub: a pickle may do more than hold weights."""


def read(where: "str | Path | Place") -> Sae:
    """The SAE in a folder or file of any known format.

    Args:
        where: A path, a URI, or an address of the hub (hf://OWNER/NAME/FOLDER).

    Raises:
        FormatError: There is none.
        HubError: The hub does not have it, or cannot be reached.
    """
    here = located(where)
    if here.name.endswith(".pkl"):
        return paper.read(here)
    readers = {reader.WEIGHTS: reader for reader in (saelens, dictionary_learning, sparsify)}
    there = [name for name in readers if (here / name).is_file()]
    if not there:
        raise FormatError(f"no SAE at {here}: it holds none of {', '.join(readers)}, and is no .pkl of the paper's")
    if len(there) > 1:
        raise FormatError(f"{here} holds {' and '.join(there)}, SAEs of several formats: leave one in a folder")
    return readers[there[0]].read(here)


def located(where: "str | Path | Place") -> Place:
    """Where an SAE's files lie: in the hub's cache for an address of the hub, whose files are fetched and verified first.

    Raises:
        FormatError: Its weights are a pickle.
        HubError: The hub does not have it, or cannot be reached.
    """
    if not isinstance(where, str) or not is_address(where):
        return place(where)
    address = parse(where)
    found = fetched(address, lambda path: _is_of(address, path))
    pickles = [path for path in found.left if path.startswith(address.folder) and not path.endswith((".md", *FETCHED))]
    here = place(found.folder / address.folder)
    if pickles and not any((here / reader.WEIGHTS).is_file() for reader in (saelens, sparsify)):
        raise FormatError(
            f"{where} holds no safetensors but {pickles[0]}, and no pickle is fetched of the hub: "
            "download it if you trust who made it, and name the folder"
        )
    return here


def name_of(where: str) -> str:
    """What an SAE is called: the last part of where it lies, whatever the revision on the hub.

    >>> name_of("runs/an-sae/"), name_of("hf://me/saes@v1/layer-004/topk"), name_of("hf://me/topk@v1")
    ('an-sae', 'topk', 'topk')
    """
    if is_address(where):
        address = parse(where)
        return (address.folder or address.name).rpartition("/")[2]
    return place(where).name


def _is_of(address: Address, path: str) -> bool:
    """Whether a file is one of an SAE's folder, or says of what run of sparsify it is."""
    folder, _, name = path.rpartition("/")
    of_run = name == "config.json" and folder == address.folder.rpartition("/")[0]
    return path.endswith(FETCHED) and (folder == address.folder or of_run)
