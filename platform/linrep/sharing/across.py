"""Sharing across layers: images at one layer beside texts at every other, for every measure that compares two sets of rows.

What images carry at layer i may be what texts carry at another layer j. All measures are of the pairs in the reservoir, and
each has the null that it has within a layer.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.stats import t
from torch import Tensor

from linrep.sharing.concepts import WAYS, discriminant, two_sets
from linrep.sharing.config import Pooling, SharingConfig
from linrep.sharing.crossfit import (
    FEWEST,
    PERMUTATIONS,
    Products,
    ValueSums,
    apart,
    cosine_of,
    lengths,
    nearest_is_own,
    size_without_groups,
)
from linrep.sharing.intervals import Measure, mean_without, of_classes, of_hits, without_classes, without_groups
from linrep.sharing.kernels import cka_of, hsic_without_groups
from linrep.sharing.layers import CommonRows
from linrep.sharing.study import Pairs
from linrep.stats import nulls
from linrep.stats.interval import LEVEL
from linrep.stats.jackknife import error, jackknife
from linrep.store.samples import CLASS

FOLDS = 5
"""Of probes: each is fitted without the groups of one, and scored on those."""

Cells = Mapping[tuple[int, int], Measure]
"""A measure by image layer and text layer."""


@dataclass(frozen=True)
class AcrossMeasure:
    """A number about images at one layer and texts at another.

    Attributes:
        image_layer: Layer of the images.
        text_layer: Layer of the texts.
        measure: The number.
        best: Whether the text layer is among the best for the image layer, see `best_layers`; None where there is no value.
    """

    image_layer: int
    text_layer: int
    measure: Measure
    best: bool | None


def across(rows: CommonRows, pairs: Pairs, config: SharingConfig, pooling: Pooling = "mean") -> Iterator[AcrossMeasure]:
    """All measures, image layer by image layer.

    Args:
        rows: The rows.
        pairs: The pairs.
        config: What to compare.
        pooling: Which tokens the rows are made of: CKA and transfers of probes are of means alone.
    """
    found: list[Cells] = []
    for sums in layer_sums(rows, pairs, config):
        found += _directions(rows.layers, *sums, config)
    if pooling == "mean" and len(rows.pair) > 3:
        found.append(_cka(rows, pairs.group[rows.pair], config.groups))
        found += _transfers(rows, pairs, config) if pairs.classes else ()
    for cells in found:
        for i in rows.layers:
            own = [cells[i, j] for j in rows.layers]
            for j, measure, best in zip(rows.layers, own, best_layers(own), strict=True):
                yield AcrossMeasure(i, j, measure, best)


def best_layers(measures: Sequence[Measure]) -> list[bool | None]:
    """Which of several layers cannot be separated from the one with the largest value: a 95% set, as a rule, of the best one.

    The same parts of the data are left out at all of them, and what is jackknifed is the difference from the largest value; all
    differences hold at once (Bonferroni).

    Args:
        measures: The same measure at these layers.

    Returns:
        None where a layer has no value.

    Source: after Hsu, "Simultaneous confidence intervals for all distances from the best", 1981.
    """
    values = np.array([m.value for m in measures])
    if not np.isfinite(values).any():
        return [None] * len(values)
    top = measures[int(np.nanargmax(values))]
    others = max(1, int(np.isfinite(values).sum()) - 1)
    found: list[bool | None] = []
    for m in measures:
        left = [top.left_out[part] - value for part, value in m.left_out.items() if part in top.left_out]
        left = [difference for difference in left if math.isfinite(difference)]
        reach = float(t.ppf(1 - (1 - LEVEL) / 2 / others, max(len(left) - 1, 1)))
        found.append(None if math.isnan(m.value) else top.value - m.value <= reach * error(left))
    return found


def layer_sums(
    rows: CommonRows, pairs: Pairs, config: SharingConfig
) -> Iterator[tuple[ValueSums, Float[Tensor, "l g c d"], Float[Tensor, "l g c d"]]]:
    """Sums by class, then by value of each attribute.

    Returns:
        Those of the first layer, those of images by layer, and those of texts.
    """
    group = pairs.group[rows.pair]
    for name, values, label in ((CLASS, pairs.classes, pairs.label), *((a.name, a.values, a.label) for a in pairs.attributes)):
        own, n = label[rows.pair], (config.groups, len(values))
        if len(values) < 2:
            continue
        there = own >= 0
        counts = torch.zeros(n, dtype=torch.float64)
        counts.index_put_(
            (torch.from_numpy(group[there]), torch.from_numpy(own[there])), torch.ones((), dtype=torch.float64), True
        )
        if not two_sets(counts):
            continue
        x, y = (rows.by_value(some, own, group, n) for some in (rows.x, rows.y))
        yield ValueSums(name, values, counts, x[0], y[0]), x, y


def _directions(
    layers: Sequence[int], sums: ValueSums, x: Float[Tensor, "l g c d"], y: Float[Tensor, "l g c d"], config: SharingConfig
) -> list[Cells]:
    """Cosines of directions, and whether they find their own in the other modality, of all image layers with all text layers."""
    n, c = sums.n, len(sums.values)
    orders = nulls.permutations(c, PERMUTATIONS, config.seed)
    own = [[(apart(z, z[None], n)[0], size_without_groups(z, z, n), lengths(z, n)) for z in some] for some in (x, y)]
    cosines: dict[tuple[int, int], Measure] = {}
    retrieval: list[dict[tuple[int, int], Measure]] = [{}, {}]
    for i, image in enumerate(layers):
        xx, of_xx, long_x = own[0][i]
        for j, (text, xy) in enumerate(zip(layers, apart(x[i], y, n), strict=True)):
            yy, of_yy, long_y = own[1][j]
            of_xy = size_without_groups(x[i], y[j], n) if c < FEWEST else np.full(len(n), np.nan)
            cosines[image, text] = cosine_of(Products(xy, xx, yy), np.stack([of_xy, of_xx, of_yy], axis=1), sums, orders)
            for (source, target), axis, cells in zip(WAYS, (1, 0), retrieval, strict=True):
                hits = nearest_is_own(xy, long_x, long_y, axis)
                name = f"class_retrieval_{source}_to_{target}"
                cells[image, text] = of_classes(
                    name, lambda _, hits=hits: hits, len(n), 1 / c, sums.pairs, sums.values, sums.attribute
                )
    return [cosines, *retrieval]


def _cka(rows: CommonRows, group: Int64[np.ndarray, " m"], n_groups: int) -> Cells:
    """Debiased CKA; its estimators of HSIC are zero on average over the permutations of the pairs, whatever their number."""
    k = len(rows.layers)
    whole, without = (cka_of(hsic)[..., :k, k:] for hsic in hsic_without_groups([*rows.x, *rows.y], group, n_groups))
    return {
        (image, text): Measure(
            "cka_debiased", float(whole[i, j]), *jackknife(float(whole[i, j]), without[:, i, j]), 0.0, len(group),
            left_out=without_groups(list(without[:, i, j])),
        )
        for i, image in enumerate(rows.layers)
        for j, text in enumerate(rows.layers)
    }  # fmt: skip


def _transfers(rows: CommonRows, pairs: Pairs, config: SharingConfig) -> list[Cells]:
    """A discriminant of one modality at its layer on held-out rows of the other at its own, with the means aligned."""
    label, shuffled = pairs.label[rows.pair], pairs.shuffled[rows.pair]
    fold, c = pairs.group[rows.pair] % FOLDS, len(pairs.classes)
    scored: dict[str, list[np.ndarray]] = {}
    truth: list[np.ndarray] = []
    for f in np.unique(fold[label >= 0]):
        kept, own = np.flatnonzero(fold != f), np.flatnonzero((fold == f) & (label >= 0))
        if not len(kept):
            continue
        truth.append(label[own])
        wanted = torch.from_numpy(np.stack([label[own], shuffled[own]]))
        for (source, target), fitted, read in zip(WAYS, (rows.x, rows.y), (rows.y, rows.x), strict=True):
            # Weights of all layers and of both labellings side by side: one product for each layer that is read.
            weights, bias = zip(*(_fitted(z[kept], label[kept], shuffled[kept], c, config.ridge) for z in fitted), strict=True)
            weights, bias = torch.cat(weights, dim=1), torch.cat(bias)
            hits = []
            for z in read:
                scores = (z[own].double() - z[kept].double().mean(0)) @ weights + bias
                told = scores.reshape(len(own), len(rows.layers), 2, c).argmax(3)
                hits.append((told.permute(1, 2, 0) == wanted).double())
            by_layer = torch.stack(hits).numpy()  # layer read, layer fitted, labelling, row
            scored.setdefault(f"transfer_{source}_to_{target}_centred", []).append(by_layer)
    labels, found = np.concatenate(truth), []
    for name, parts in scored.items():
        hits = np.concatenate(parts, axis=3)
        hits = hits if name.startswith("transfer_text") else hits.swapaxes(0, 1)  # images first
        cells = {}
        for i, image in enumerate(rows.layers):
            for j, text in enumerate(rows.layers):
                right, control = hits[i, j]
                left_out = without_classes(mean_without(right, labels, c), pairs.classes)
                cells[image, text] = replace(of_hits(name, right, float(control.mean()), None, labels, left_out), attribute=CLASS)
        found.append(cells)
    return found


def _fitted(
    z: Float[Tensor, "m d"], label: Int64[np.ndarray, " m"], shuffled: Int64[np.ndarray, " m"], c: int, ridge: float
) -> tuple[Float[Tensor, "d c2"], Float[Tensor, " c2"]]:
    """Weights and biases of probes of the labels and of the shuffled ones, of rows about their mean."""
    z = z.double() - z.double().mean(0)
    scatter, nothing, found = z.T @ z, torch.zeros(z.shape[1], dtype=torch.float64), []
    for labels in (label, shuffled):
        at, codes = torch.from_numpy(np.flatnonzero(labels >= 0)), torch.from_numpy(labels[labels >= 0])
        by_class = torch.zeros(c, z.shape[1], dtype=torch.float64).index_add_(0, codes, z[at])
        counts = torch.bincount(codes, minlength=c).double()
        found.append(discriminant(scatter, by_class, nothing, counts, torch.tensor(float(len(z)), dtype=torch.float64), ridge))
    return torch.cat([w for w, _ in found], dim=1), torch.cat([b for _, b in found])
