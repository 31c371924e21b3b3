"""Brings a repository of SAEs, results or a store's sample into a folder: verified, and with what can be done with it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from linrep.cluster.commands import literal, python, read_parquet
from linrep.errors import HubError, LinrepError
from linrep.hub.bundle import CARD
from linrep.places import Place
from linrep.records import find_record, write_record
from linrep.repository.address import Address
from linrep.repository.files import MOST_BYTES, Fetched, fetched, listing
from linrep.sae.formats import read as read_sae
from linrep.sae.formats import saelens, sparsify
from linrep.sae.origin import layer_said

TAKEN = (".json", ".safetensors", ".parquet", ".csv", ".md", ".txt", ".yaml", ".html", ".png", ".svg")
"""Endings of files that are pulled: none that is run when it is read."""
PULLED = "pulled.json"
_AGAIN = "delete it and pull into another folder"


@dataclass(frozen=True)
class PulledFrom:
    """Where what lies in a folder came from.

    Attributes:
        repository: Address, without a revision.
        commit: The commit.
        files: Its files.
    """

    repository: str
    commit: str
    files: list[str]


def of_either_kind(name: str) -> Address:
    """The address of a repository by its name alone, of whichever kind there is one.

    Raises:
        HubError: There is none, or one of each kind.
    """
    both = (Address("model", name), Address("dataset", name))
    there = [address for address in both if listing(address) is not None]
    if len(there) > 1:
        raise HubError(f"there are a model and a dataset repository {name}: say {both[0]} or {both[1]}")
    return there[0] if there else both[0]  # fetching it says that it is not there, and why that may be


def pull(address: Address, target: Place, most_bytes: int = MOST_BYTES) -> Fetched:
    """Bring the files of a repository into a folder, as they lie there; a pull that was stopped goes on.

    Args:
        address: The repository, or a folder of it.
        target: An empty folder, or one that the same repository was pulled into.
        most_bytes: Bytes that are taken, at most.

    Raises:
        HubError: The hub or the repository says no, or the folder holds something else.
    """
    whole = str(Address(address.kind, address.name))
    before = find_record(target / PULLED, PulledFrom, _AGAIN)
    if before is None and target.names():
        raise HubError(f"{target} holds other things: name an empty folder, or one that is not there yet")
    if before is not None and before.repository != whole:
        raise HubError(f"{target} holds what was pulled of {before.repository}: name another folder")
    inside = f"{address.folder}/" if address.folder else ""
    found = fetched(address, lambda path: path.startswith(inside) and path.endswith(TAKEN) and path != PULLED, most_bytes)
    known = sorted({*(before.files if before else ()), *found.files})
    write_record(target / PULLED, PulledFrom(whole, found.commit, known))
    for path in found.files:
        _copy(found.folder / path, target / path)
    return found


def pulled_lines(address: Address, target: Place, found: Fetched) -> list[str]:
    """What came, and what can be done with it."""
    size = sum((found.folder / path).stat().st_size for path in found.files)
    lines = [f"{len(found.files)} files, {size / 1e6:,.1f} MB, of {address} at commit {found.commit}, each verified: {target}"]
    lines += [f"left out, as files of this kind are not pulled: {', '.join(found.left[:5])}"] if found.left else []
    saes = [path for path in found.files if path.endswith((saelens.WEIGHTS, sparsify.WEIGHTS))]
    lines += [line for path in saes for line in _sae_lines(path, target)]
    if "report.html" in found.files:
        lines.append(f"report  {target / 'report.html'}   (a web page: open it if you trust who made it)")
    tables = [path for path in found.files if path.endswith(".parquet")]
    if tables and any(path.endswith("/manifest.json") for path in found.files):
        lines.append(f"results {python(f'import linrep; print(linrep.open({literal(target)}))')}")
    elif tables:
        first = next((path for path in tables if path.endswith("/samples.parquet")), tables[0])
        lines.append(f"table   {read_parquet(target / first)}")
    return lines + ([f"card    {target / CARD}"] if CARD in found.files else [])


def _sae_lines(path: str, target: Place) -> Iterator[str]:
    """How an SAE is named in a recipe."""
    folder = target / path.rpartition("/")[0] if "/" in path else target
    try:
        sae = read_sae(folder)
    except LinrepError as error:
        yield f"SAE     {folder} is not read here: {error}"
        return
    layer = layer_said(sae.about)
    named = json.dumps([{"path": str(folder), "layer": "LAYER" if layer is None else layer}])
    yield f"SAE     {sae.n_latents:,} latents, {sae.rule.kind}: --features.saes '{named}'"


def _copy(source: Path, target: Place) -> None:
    if target.is_file() and target.size() == source.stat().st_size and target.read_bytes() == source.read_bytes():
        return
    with source.open("rb") as file, target.writing() as stream:
        while piece := file.read(1 << 20):
            stream.write(piece)
