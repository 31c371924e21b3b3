"""Names in a store: which file holds what. Imports nothing that a recipe does without.

manifest.json                                          what the store is, see `linrep.store.manifest`
samples/part-000012.parquet                            one row a sample of chunk 12
<view>/layer=16/modality=image/part-000012.parquet     one row a vector of the residual stream
<view>/site=mlp/layer=16/modality=image/part-...       one row a vector of another site
<view>/site=tower/modality=image/part-000012.parquet   one row a patch of the vision tower, which has no layer
statistics/part-000012.parquet                         sums of chunk 12, one row a layer and group
statistics.parquet                                     the same over all chunks, written at the end
commits/000012.json                                    written last: what chunk 12 wrote
packs/part-000000.parquet                              commits and samples of chunks 0 to 1,023 once more, see `packs`
"""

import re
from typing import Literal, get_args

View = Literal["pooled", "tokens", "last"]
Modality = Literal["image", "text"]
Group = Literal["image", "text", "special"]
StoredSite = Literal["residual", "attention", "mlp", "tower"]
"""Sites whose vectors a store can hold, see `linrep.vlm.sites`."""
Folder = str
"""A view of a site, by the folder of its layers: "tokens" is the residual stream's, "tokens/site=mlp" another."""

MODALITIES: tuple[Modality, ...] = ("image", "text")
GROUPS: tuple[Group, ...] = ("image", "text", "special")
SITES: tuple[StoredSite, ...] = get_args(StoredSite)
TOWER: StoredSite = "tower"
"""The site whose rows are patches, not tokens: it has a width of its own, and neither layers, texts nor last positions."""
NO_LAYER = -1
"""Stands for the layer of what has none, in statistics, limits and keys."""
LAST_GROUPS = ("last_image", "last_text")
"""Groups of the statistics beside those of all tokens: last positions of what holds an image, and of texts."""

_FOLDER = re.compile(
    rf"((?:{'|'.join(get_args(View))})(?:/site=(?:{'|'.join(SITES[1:])}))?)(?:/layer=(\d+))?/modality=({'|'.join(MODALITIES)})/"
)

HIGH_NORM = 10.0
"""A token is high-norm above this multiple of its group's median, unless the recipe says otherwise (sinks: 10 to 100 times)."""

MANIFEST = "manifest.json"
STATISTICS = "statistics.parquet"
PACKS = "packs"
LOCK = "driver.lock"
"""Says which driver writes here, while it does and after."""


def folder_of(view: View, site: StoredSite = "residual") -> Folder:
    """The folder of a view of a site.

    >>> folder_of("tokens"), folder_of("tokens", "mlp")
    ('tokens', 'tokens/site=mlp')
    """
    return view if site == "residual" else f"{view}/site={site}"


def view_and_site(folder: Folder) -> tuple[View, StoredSite]:
    """The view and the site of a folder."""
    view, _, site = folder.partition("/site=")
    return view, site or "residual"  # pyright: ignore[reportReturnType]


def site_group(group: str, site: StoredSite) -> str:
    """What statistics and limits call a group of a site.

    >>> site_group("image", "residual"), site_group("image", "mlp")
    ('image', 'mlp_image')
    """
    return group if site == "residual" else f"{site}_{group}"


def vectors_file(folder: Folder, layer: int, modality: Modality, chunk: int) -> str:
    """Path of a chunk's vectors, relative to the store."""
    return f"{files_under(folder, layer, modality)}part-{chunk:06d}.parquet"


def files_under(folder: Folder, layer: int, modality: Modality) -> str:
    """What the paths of all chunks' vectors begin with.

    >>> files_under("tokens", 16, "image"), files_under("tokens/site=tower", NO_LAYER, "image")
    ('tokens/layer=16/modality=image/', 'tokens/site=tower/modality=image/')
    """
    return f"{folder}/modality={modality}/" if layer == NO_LAYER else f"{folder}/layer={layer}/modality={modality}/"


def parse_folder(path: str) -> tuple[Folder, int, Modality] | None:
    """View and site, layer (or `NO_LAYER`) and modality of the vectors in a file; None for other files."""
    found = _FOLDER.match(path)
    if found is None or (found[2] is None) != (view_and_site(found[1])[1] == TOWER):
        return None
    return found[1], NO_LAYER if found[2] is None else int(found[2]), found[3]  # pyright: ignore[reportReturnType]


def samples_file(chunk: int) -> str:
    """Path of a chunk's samples, relative to the store."""
    return f"samples/part-{chunk:06d}.parquet"


def statistics_file(chunk: int) -> str:
    """Path of a chunk's sums, relative to the store."""
    return f"statistics/part-{chunk:06d}.parquet"


def commit_file(chunk: int) -> str:
    """Path of a chunk's commit record, relative to the store."""
    return f"commits/{chunk:06d}.json"


def pack_file(number: int) -> str:
    """Path of a pack, relative to the store."""
    return f"{PACKS}/part-{number:06d}.parquet"
