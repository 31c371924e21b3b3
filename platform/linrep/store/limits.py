"""Attention sinks: tokens of very large norm, kept apart from every mean, variance, direction, correlation and ranking.

What is high is decided once for each source of a store and stands in its manifest. A pooled row is a mean, formed while the model
runs, so the norms must be known before the first chunk:

1. A few samples of each source, the same on every machine, run through the model first. The median norm of their tokens, by layer
   and group, times the recipe's factor (`harvest.high_norm`) is the source's limit. It is written to the manifest of the running
   store. Each source is measured by itself: what is high in it stays so, whatever other sources the store gets.
2. The harvest leaves tokens above the limit out of pooled means, of the sums of the statistics and of their norms. It counts them
   by sample (`n_high_norm` of a pooled row), by norm and by position (`high_norm_counts`, `high_norm_positions`).
3. Rows of single tokens are all written. Their norm against the manifest's limit says which are high; readers leave those out
   unless they are asked for, as with special tokens.

Start, prompt and template tokens stand under text and are measured by the limit of the source's texts. A source without texts
measures them by their own median, or by that of its image tokens where that is lower: a start token that stands alone is no
yardstick for itself. A last position is one of its own: its limit is from the median of last positions. A token of no source,
such as one of a user's own image, is high where it would be high in every source that has such tokens. Of the vision tower a
patch is what a token is elsewhere; patches of padding are special and measured by the limit of the others. A store without limits
in its manifest is measured by its own statistics, or by the rows that it holds.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from linrep.store.layout import (
    GROUPS,
    HIGH_NORM,
    LAST_GROUPS,
    MODALITIES,
    SITES,
    TOWER,
    Folder,
    Modality,
    site_group,
    view_and_site,
)
from linrep.store.statistics import Sums

_SPECIAL = {site_group("text", site): site_group("special", site) for site in SITES}
"""The group of start, prompt and template tokens that stands under each group of texts."""

Limits = Mapping[tuple[int, str], float]
"""Norm above which a token of a source is high, by layer (or `NO_LAYER`) and group; without one a group has none that is high."""


def norm_limits(sums: Mapping[tuple[int, str], Sums], factor: float | None = HIGH_NORM) -> Limits:
    """The limits that some tokens of a source give.

    Args:
        sums: Sums by layer and group, of tokens of all norms.
        factor: Times the median; None for no limits.
    """
    if factor is None:
        return {}
    medians = {key: s.norm_quantile(0.5) for key, s in sums.items() if s.n}
    for layer, site in product({layer for layer, _ in medians}, SITES):
        image, text, special = (medians.get((layer, site_group(group, site))) for group in GROUPS)
        if special is not None:
            under = image if site == TOWER else text  # what special ones stand under
            least = min(special, special if image is None else image) if under is None else under
            medians[layer, site_group("special", site)] = least
    # As float32, like the norms that are held against them: then a reader and the harvest never disagree.
    return {key: float(np.float32(factor * median)) for key, median in sorted(medians.items()) if np.isfinite(median)}


def limit_of(rows: pa.Table, factor: float) -> float:
    """The limit that some rows give, special ones not counted; infinite where there are none.

    Args:
        rows: Columns `norm` and `is_special`.
        factor: Times the median.
    """
    norms, special = rows["norm"].to_numpy(), rows["is_special"].fill_null(False).to_numpy()
    norms = norms[np.isfinite(norms) & ~special.astype(bool)]
    median = float(np.median(norms)) if len(norms) else 0.0
    return float(np.float32(factor * median)) if median > 0 else float("inf")


def limit_for(limits: Mapping[str, Limits], layer: int, group: str, source: str | None = None) -> float:
    """The limit of a token; infinite where it has none.

    Args:
        limits: By source.
        layer: Layer k.
        group: Its group; for text, tokens of a source without texts are special ones.
        source: Its source; None for a token of no source.
    """
    own = limits.values() if source is None else [limits.get(source, {})]
    for name in (group, _SPECIAL[group]) if group in _SPECIAL else (group,):
        found = [of_source[layer, name] for of_source in own if (layer, name) in of_source]
        if found:
            return max(found)
    return float("inf")


def as_records(limits: Mapping[str, Limits]) -> list[dict[str, Any]]:
    """The limits of sources as they stand in a manifest."""
    return [
        {"source": source, "layer": layer, "group": group, "limit": limit}
        for source, own in sorted(limits.items())
        for (layer, group), limit in sorted(own.items())
    ]


def from_records(records: list[dict[str, Any]]) -> dict[str, dict[tuple[int, str], float]]:
    """The limits that `as_records` wrote."""
    limits: dict[str, dict[tuple[int, str], float]] = {}
    for record in records:
        limits.setdefault(record["source"], {})[record["layer"], record["group"]] = float(record["limit"])
    return limits


def group_of(folder: Folder, modality: Modality) -> str | None:
    """Whose limit holds for the rows of a view of a site; None for means, which hold no high tokens."""
    view, site = view_and_site(folder)
    match view:
        case "pooled":
            return None
        case "tokens":
            return site_group(modality, site)
        case "last":
            return site_group(LAST_GROUPS[MODALITIES.index(modality)], site)
