"""Names in a store: which file holds what. Imports nothing that a recipe does without.

manifest.json                                          what the store is, see `linrep.store.manifest`
samples/part-000012.parquet                            one row a sample of chunk 12
<view>/layer=16/modality=image/part-000012.parquet     one row a vector
statistics/part-000012.parquet                         sums of chunk 12, one row a layer and group
statistics.parquet                                     the same over all chunks, written at the end
commits/000012.json                                    written last: what chunk 12 wrote
"""

import re
from typing import Literal, get_args

View = Literal["pooled", "tokens", "last"]
Modality = Literal["image", "text"]
Group = Literal["image", "text", "special"]

MODALITIES: tuple[Modality, ...] = ("image", "text")
GROUPS: tuple[Group, ...] = ("image", "text", "special")
LAST_GROUPS = ("last_image", "last_text")
"""Groups of the statistics beside those of all tokens: last positions of what holds an image, and of texts."""

_FOLDER = re.compile(rf"({'|'.join(get_args(View))})/layer=(\d+)/modality=({'|'.join(MODALITIES)})/")

HIGH_NORM = 10.0
"""A token is high-norm above this multiple of its group's median, unless the recipe says otherwise (sinks: 10 to 100 times)."""

MANIFEST = "manifest.json"
STATISTICS = "statistics.parquet"
LOCK = "driver.lock"
"""Says which driver writes here, while it does and after."""


def vectors_file(view: View, layer: int, modality: Modality, chunk: int) -> str:
    """Path of a chunk's vectors, relative to the store."""
    return f"{view}/layer={layer}/modality={modality}/part-{chunk:06d}.parquet"


def parse_folder(path: str) -> tuple[View, int, Modality] | None:
    """View, layer and modality of the vectors in a file; None for other files."""
    found = _FOLDER.match(path)
    return None if found is None else (found[1], int(found[2]), found[3])  # pyright: ignore[reportReturnType]


def samples_file(chunk: int) -> str:
    """Path of a chunk's samples, relative to the store."""
    return f"samples/part-{chunk:06d}.parquet"


def statistics_file(chunk: int) -> str:
    """Path of a chunk's sums, relative to the store."""
    return f"statistics/part-{chunk:06d}.parquet"


def commit_file(chunk: int) -> str:
    """Path of a chunk's commit record, relative to the store."""
    return f"commits/{chunk:06d}.json"
