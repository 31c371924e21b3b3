"""Rows of the pairs in the reservoir at several layers at once, for what compares one layer's images with another's texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from linrep.sharing.pooled import PooledRows
from linrep.sharing.sums import Drawn, together


@dataclass(frozen=True)
class LayerRows:
    """What was drawn, by layer."""

    drawn: Mapping[int, Drawn]


@dataclass(frozen=True)
class CommonRows:
    """Rows of the pairs that have both at every layer.

    Attributes:
        layers: The layers, rising.
        pair: Number of each pair.
        x: Rows of the images.
        y: Rows of the texts.
    """

    layers: tuple[int, ...]
    pair: Int64[np.ndarray, " m"]
    x: Float32[Tensor, "l m d"]
    y: Float32[Tensor, "l m d"]

    def by_value(
        self, x: Float32[Tensor, "l m d"], label: Int64[np.ndarray, " m"], group: Int64[np.ndarray, " m"], n: tuple[int, int]
    ) -> Float[Tensor, "l g c d"]:
        """Sums of some rows about their mean, by group of pairs and value.

        Args:
            x: The rows, of either modality.
            label: Value of each pair, -1 for none.
            group: Group of each pair.
            n: Groups and values.
        """
        at = torch.from_numpy(np.flatnonzero(label >= 0))
        cell = torch.from_numpy(group * n[1] + label)[at]
        layers = [
            torch.zeros(n[0] * n[1], x.shape[2], dtype=torch.float64).index_add_(
                0, cell, (own.double() - own.double().mean(0))[at]
            )
            for own in x
        ]
        return torch.stack(layers).reshape(len(layers), *n, -1)


def draw_layer(rows: PooledRows) -> LayerRows:
    """The drawn rows of a layer."""
    found = []
    for part in rows.parts():
        for pair, x, y in rows.matched(part):
            kept = np.flatnonzero(rows.pairs.drawn[pair])
            found.append(Drawn(pair[kept], x[kept].float(), y[kept].float()))
    return LayerRows({rows.layer: together(found, rows.store.manifest.width)})


def add_layers(one: LayerRows, other: LayerRows) -> LayerRows:
    """The layers of both."""
    return LayerRows({**one.drawn, **other.drawn})


def in_common(rows: LayerRows) -> CommonRows:
    """The pairs that have rows of finite numbers of both modalities at every layer."""
    layers = tuple(sorted(rows.drawn))
    pair = reduce(np.intersect1d, (rows.drawn[k].pair for k in layers))
    at = [torch.from_numpy(np.searchsorted(rows.drawn[k].pair, pair)) for k in layers]
    x, y = (torch.stack([getattr(rows.drawn[k], name)[i] for k, i in zip(layers, at, strict=True)]) for name in ("x", "y"))
    return CommonRows(layers, pair, x, y)
