"""Which candidates no other beats on both sparsity and loss, and which of them to take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A trained candidate.

    Attributes:
        name: Its name.
        l0: Mean number of active latents on held-out rows.
        fvu: Unexplained share of their variance.
    """

    name: str
    l0: float
    fvu: float


@dataclass(frozen=True)
class Recommendation:
    """The candidate to take, and why, in a sentence."""

    name: str
    reason: str


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other dominates (is nowhere larger and somewhere smaller), by rising L0; equal points all stay."""
    best, found = math.inf, []
    finite = [p for p in points if math.isfinite(p.l0) and math.isfinite(p.fvu)]
    for p in sorted(finite, key=lambda p: (p.l0, p.fvu)):
        twin = bool(found) and (found[-1].l0, found[-1].fvu) == (p.l0, p.fvu)
        if p.fvu < best or twin:
            found.append(p)
            best = p.fvu
    return found


def recommend(points: Sequence[Point]) -> Recommendation | None:
    """The knee of the front: the point farthest below the line between its ends, both axes scaled to 1, L0 by its logarithm.

    Left of the knee a halving of L0 costs more loss than its share, right of it a doubling buys less. A front of fewer than three
    points, or without a bend, has no knee: then the one with the least FVU. None where there are no points.
    """
    line = front(points)
    if not line:
        return None
    first, last = line[0], line[-1]
    span = (math.log(max(last.l0, 1e-9) / max(first.l0, 1e-9)), first.fvu - last.fvu)
    depths = [0.0 for _ in line]
    if len(line) > 2 and span[0] > 0 and span[1] > 0:
        depths = [
            1 - math.log(max(p.l0, 1e-9) / max(first.l0, 1e-9)) / span[0] - (p.fvu - last.fvu) / span[1] for p in line
        ]  # fmt: skip
    i = max(range(len(line)), key=lambda i: depths[i])
    if depths[i] <= 1e-9:
        chosen = line[-1]
        return Recommendation(chosen.name, f"least FVU, {_said(chosen)}, of a front of {len(line)} without a knee")
    chosen, before, after = line[i], line[i - 1], line[i + 1]
    return Recommendation(
        chosen.name,
        f"knee of a front of {len(line)}: {_said(chosen)}; sparser {before.name} costs {before.fvu - chosen.fvu:+.3f} FVU at "
        f"L0 {before.l0:.1f}, denser {after.name} brings {after.fvu - chosen.fvu:+.3f} at L0 {after.l0:.1f}",
    )


def _said(p: Point) -> str:
    return f"FVU {p.fvu:.3f} (of the rows that choose) at L0 {p.l0:.1f}"
