"""The outline of a mask as closed loops, holes included, with few corners: to be drawn over an image."""

import numpy as np
from jaxtyping import Bool, Float

Loop = list[tuple[float, float]]
"""Corners, x and y each; the last one is joined to the first."""

TOLERANCE = 1.0
"""Pixels by which an outline may leave a mask's edge."""
_TURNS = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}
"""To the right of each way along the pixels' edges: so that pixels that touch at a corner are apart."""


def outlines(mask: Bool[np.ndarray, "h w"], tolerance: float = TOLERANCE) -> list[Loop]:
    """The loops around a mask's pixels.

    Args:
        mask: True on the pixels that belong to it.
        tolerance: Pixels by which a loop may leave the mask's edge.
    """
    return [simplified(loop, tolerance) for loop in _traced(mask)]


def _traced(mask: Bool[np.ndarray, "h w"]) -> list[Loop]:
    """Loops along the pixels' edges, the mask on their right, a corner at each turn."""
    around = np.pad(mask, 1)
    inside = around[1:-1, 1:-1]
    steps: dict[tuple[int, int], set[tuple[int, int]]] = {}
    # An edge runs from (x, y) plus the offset, one step on, where the pixel has no neighbour on that side.
    for beside, (dx, dy), step in (
        (around[:-2, 1:-1], (0, 0), (1, 0)),
        (around[1:-1, 2:], (1, 0), (0, 1)),
        (around[2:, 1:-1], (1, 1), (-1, 0)),
        (around[1:-1, :-2], (0, 1), (0, -1)),
    ):
        for y, x in np.argwhere(inside & ~beside).tolist():
            steps.setdefault((x + dx, y + dy), set()).add(step)
    loops = []
    while steps:
        start = min(steps)
        at, way, loop = start, min(steps[start]), []
        while steps.get(at):
            ways = steps[at]
            turned = way if len(ways) == 1 else _TURNS[way]
            turned = turned if turned in ways else next(iter(ways))
            if turned != way or not loop:
                loop.append((float(at[0]), float(at[1])))
            ways.remove(turned)
            if not ways:
                del steps[at]
            at, way = (at[0] + turned[0], at[1] + turned[1]), turned
        loops.append(loop)
    return loops


def simplified(loop: Loop, tolerance: float) -> Loop:
    """A loop with the corners that it needs to stay within a tolerance of itself.

    Source: Douglas & Peucker, "Algorithms for the reduction of the number of points required to represent a digitized line",
    1973.
    """
    if len(loop) < 4:
        return loop
    points = np.array(loop)
    far = int(((points - points[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([points, points[:1]])
    kept = sorted({0, far, *_kept(closed, 0, far, tolerance), *_kept(closed, far, len(points), tolerance)} - {len(points)})
    return [loop[i] for i in kept]


def _kept(points: Float[np.ndarray, "n 2"], first: int, last: int, tolerance: float) -> list[int]:
    """Corners between two that are needed."""
    found, waiting = [], [(first, last)]
    while waiting:
        a, b = waiting.pop()
        if b - a < 2:
            continue
        along = points[b] - points[a]
        length = float(np.hypot(*along))
        beside = points[a + 1 : b] - points[a]
        off = np.abs(beside[:, 0] * along[1] - beside[:, 1] * along[0]) / length if length else np.hypot(*beside.T)
        at = a + 1 + int(off.argmax())
        if off.max() > tolerance:
            found.append(at)
            waiting += [(a, at), (at, b)]
    return found
