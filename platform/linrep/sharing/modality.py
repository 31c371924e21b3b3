"""Geometry level: a linear probe that separates the modalities, and how many directions it takes until none can.

The accuracy of one probe is 1 as soon as one direction tells images from texts. How many directions have to be taken out, one
after the other, until the next probe is at chance says how much of the space is taken up by the difference.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sharing.config import SharingConfig
from linrep.sharing.geometry import scatters, solve
from linrep.sharing.intervals import Measure, without_groups
from linrep.sharing.study import Pairs
from linrep.sharing.sums import PassSums, Sums
from linrep.stats.jackknife import jackknife

AT_CHANCE = 0.55
"""A held-out probe below this accuracy is at chance: a fixed one, so that it does not depend on how many pairs there are."""
AXES = 256
"""Of wider streams only the leading axes of all rows are looked at, and as many directions taken out, at most."""


def modality_probe(
    found: PassSums, pairs: Pairs, config: SharingConfig, groups: Sequence[int]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Share of a pair's two rows that a linear probe of the modality gets right, and of its control with swapped labels.

    Least squares from the sums of all but one of some groups, scored on the drawn rows of the one left out: each of their pairs
    is held out once.
    """
    drawn, (a, b) = found.drawn, found.references
    right, control, whole = [np.zeros(0)], [np.zeros(0)], found.total(groups)
    for g in groups:
        own = np.flatnonzero(pairs.group[drawn.pair] == g)
        if not len(own):
            continue
        s = whole - found.sums[g]
        gap, scatter, middle = _contrast(s, a, b)
        directions = solve(scatter, config.ridge * float(scatter.diagonal().mean()), torch.stack([gap, s.swapped / s.n], dim=1))
        at = torch.from_numpy(own)
        of_image, of_text = ((z[at].double() - middle) @ directions for z in (drawn.x, drawn.y))
        right.append(((of_image[:, 0] > 0).double() + (of_text[:, 0] < 0).double()).numpy() / 2)
        keeps = torch.from_numpy(~pairs.swapped[drawn.pair[own]])
        control.append((((of_image[:, 1] > 0) == keeps).double() + ((of_text[:, 1] < 0) == keeps).double()).numpy() / 2)
    return np.concatenate(right), np.concatenate(control)


def modality_directions(found: PassSums, pairs: Pairs, config: SharingConfig) -> Measure:
    """How many directions are taken out until a linear probe of the modality is at chance; 0 where nothing separates them.

    A probe is fitted on every second group of pairs, and scored on the drawn pairs of the others; its direction is projected out
    of all rows, and so on. Both halves take their turn, and the count is the mean of both. Between two steps it is the place
    where the accuracy, as a line, crosses `AT_CHANCE`, so that it is no whole number, and a jackknife can follow it.

    Source: Ravfogel et al., "Null It Out: Guarding Protected Attributes by Iterative Nullspace Projection", 2020.
    """
    groups = np.unique(pairs.group[found.drawn.pair]).tolist()
    axes = _axes(found)

    def count(chosen: Sequence[int], step: int = 1) -> float:
        """Of some groups, every second of which (or of pairs of which) is fitted on while the others are scored."""
        halves = [[g for g in chosen if g // step % 2 == half] for half in (0, 1)]
        if not all(halves):
            return float("nan")
        return float(np.mean([_until_chance(found, axes, pairs, config, fit, test) for fit, test in (halves, halves[::-1])]))

    value = count(groups)
    without = [count([g for g in groups if g != left]) for left in groups]
    why = None if np.isfinite(value) else f"more than {axes.shape[1]} directions tell images from texts"
    each = [count([g for g in groups if g % 2 == half], 2) for half in (0, 1)]
    low, high = jackknife(value, without)
    return Measure(
        "modality_directions", value, low, high, 0.0, found.n, (each[0], each[1]), why=why,
        left_out=without_groups(without, groups),
    )  # fmt: skip


def _axes(found: PassSums) -> Float[Tensor, "d k"]:
    """The leading axes of all rows, about their mean: all there are, unless they are more than `AXES`."""
    d = len(found.references[0])
    if d <= AXES:
        return torch.eye(d, dtype=torch.float64)
    return torch.linalg.eigh(_contrast(found.everything, *found.references)[1])[1][:, -AXES:]


def _until_chance(
    found: PassSums, axes: Float[Tensor, "d k"], pairs: Pairs, config: SharingConfig, fit: Sequence[int], test: Sequence[int]
) -> float:
    """Directions of probes fitted on some groups until one is at chance on others; NaN where there are not enough."""
    gap, scatter, middle = _contrast(found.total(fit), *found.references)
    penalty = config.ridge * float(scatter.diagonal().mean())
    gap, scatter = gap @ axes, axes.T @ scatter @ axes
    at = torch.from_numpy(np.flatnonzero(np.isin(pairs.group[found.drawn.pair], test)))
    x, y = ((z[at].double() - middle) @ axes for z in (found.drawn.x, found.drawn.y))
    taken: list[Tensor] = []
    last = 1.0
    for step in range(axes.shape[1] + 1):
        w = solve(scatter, penalty, gap[:, None])[:, 0]
        for own in taken:  # the penalty keeps a trace of what was projected out
            w = w - (w @ own) * own
        norm = float(w.norm())
        right = 0.5
        if norm > 0:
            w = w / norm
            right = float(((x @ w > 0).double().mean() + (y @ w < 0).double().mean()) / 2)
        if right <= AT_CHANCE:
            return step - (AT_CHANCE - right) / (last - right) if step and last > right else float(step)
        last = right
        taken.append(w)
        gap = gap - (gap @ w) * w
        along = scatter @ w
        scatter = scatter - torch.outer(along, w) - torch.outer(w, along) + (w @ along) * torch.outer(w, w)
        x, y = x - torch.outer(x @ w, w), y - torch.outer(y @ w, w)
    return float("nan")


def _contrast(
    s: Sums, a: Float[Tensor, " d"], b: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"], Float[Tensor, " d"]]:
    """Difference of the modalities' means, scatter of all rows about the mean of both, and that mean."""
    gap = (s.x + s.n * a - s.y - s.n * b) / s.n
    xx, yy, _ = scatters(s)
    return gap, xx + yy + s.n / 2 * torch.outer(gap, gap), ((s.x / s.n + a) + (s.y / s.n + b)) / 2
