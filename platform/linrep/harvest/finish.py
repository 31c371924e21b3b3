"""The end of a harvest: statistics merged from the commits, and the manifest marked complete."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from linrep.places import Place
from linrep.store.commit import Commit
from linrep.store.manifest import Manifest, read_manifest
from linrep.store.read import Store
from linrep.store.statistics import Sums
from linrep.store.write import write_statistics

QUANTILES = (0.01, 0.5, 0.99)
POSITIONS = 8
"""Positions of tokens of high norm that the manifest names; the statistics have all."""


def complete_manifest(place: Place, commits: dict[int, Commit]) -> Manifest:
    """Write the statistics of all chunks, merged in their order; returns the manifest of the complete store, not written yet."""
    # One that is complete already is made anew where a damaged chunk was harvested again.
    running = replace(read_manifest(place), status="running")
    sums = Store(place, running, commits).statistics()
    seal = write_statistics(place, sums)
    records = [record(layer, group, s) for (layer, group), s in sorted(sums.items())]
    return running.finish(counts(commits), records, seal)


def counts(commits: dict[int, Commit]) -> dict[str, int]:
    """Totals over all commits."""
    return {
        "n_samples": sum(c.n_samples for c in commits.values()),
        "n_skipped": sum(len(c.skipped) for c in commits.values()),
        "n_tokens": sum(c.n_tokens for c in commits.values()),
        "n_files": sum(len(c.files) for c in commits.values()),
        "n_bytes": sum(f.bytes for c in commits.values() for f in c.files),
    }


def record(layer: int, group: str, sums: Sums) -> dict[str, Any]:
    """What the manifest says of one layer and group; norms to within a histogram bin (2.2%).

    Tokens of high norm are in none of these numbers but their own: how many there are, and at which positions the most stand.
    """
    norms = {f"norm_p{round(100 * q)}": _plain(sums.norm_quantile(q)) for q in QUANTILES}
    return {
        "layer": layer,
        "group": group,
        "n": sums.n,
        **norms,
        "norm_of_mean": _plain(float((sums.mean**2).sum() ** 0.5)),
        "total_variance": _plain(float(sums.variance.sum())),
        "max_std": _plain(float(sums.variance.max() ** 0.5)),
        "n_high_norm": sums.n_high_norm,
        "high_norm_positions": positions(sums),
        "n_nonfinite": sums.n_nonfinite,
    }


def positions(sums: Sums) -> list[list[int]]:
    """Where most tokens of high norm stand: place in the sequence and how many, the most first."""
    counts = np.zeros(0, np.int64) if sums.high_positions is None else sums.high_positions
    order = np.argsort(-counts, kind="stable")[:POSITIONS]
    return [[int(i), int(counts[i])] for i in order if counts[i]]


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
