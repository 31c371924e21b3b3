"""Limited-memory BFGS for smooth convex functions whose values carry a little noise (float32 products).

Torch has one too; it drags the compiler into every worker (seconds to import) and its search for strong Wolfe points spends more
evaluations than a problem needs on which a step of one is nearly always right.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

HISTORY = 12
DECREASE = 1e-4
"""A step must bring this share of what the slope promises (Armijo)."""
NOISE = 1e-8
"""Relative noise of the function's values: a step that raises the value by less counts as level."""
MOST_HALVINGS = 20

Objective = Callable[[Float[Tensor, "m c"]], tuple[float, Float[Tensor, "m c"]]]
"""Value and gradient at a point."""


class State(NamedTuple):
    """Where the search is.

    Attributes:
        point: The best point so far.
        value: The function there.
        gradient: Its gradient there.
        evaluations: Calls of the function so far.
        stuck: Whether no step along the last direction was any better: the noise is reached.
    """

    point: Float[Tensor, "m c"]
    value: float
    gradient: Float[Tensor, "m c"]
    evaluations: int
    stuck: bool


def descend(objective: Objective, start: Float[Tensor, "m c"]) -> Iterator[State]:
    """Better and better points, the start first, until no step improves; stop when you like.

    Source: Nocedal & Wright, "Numerical Optimization", 2006, algorithms 7.4 and 3.1.
    """
    value, gradient = objective(start)
    state = State(start, value, gradient, 1, False)
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=HISTORY)
    yield state
    while not state.stuck:
        direction = _direction(state.gradient, pairs)
        slope = _dot(state.gradient, direction)
        if slope >= 0:  # noise has spoiled the history
            pairs.clear()
            direction, slope = -state.gradient, -_dot(state.gradient, state.gradient)
        after = _search(objective, state, direction, slope)
        moved, turned = after.point - state.point, after.gradient - state.gradient
        curvature = _dot(moved, turned)
        if curvature > 1e-12 * _dot(turned, turned):
            pairs.append((moved, turned, curvature))
        state = after
        yield state


def _search(objective: Objective, state: State, direction: Float[Tensor, "m c"], slope: float) -> State:
    """The first of the steps 1, then shorter ones, that lowers the value enough."""
    step, evaluations = 1.0, state.evaluations
    slack = NOISE * abs(state.value)
    for _ in range(MOST_HALVINGS):
        point = state.point + step * direction
        value, gradient = objective(point)
        evaluations += 1
        if value <= state.value + DECREASE * step * slope + slack:
            # Level within the noise: a point that is much steeper is no progress.
            level = value >= state.value - slack and _dot(gradient, gradient) > 4 * _dot(state.gradient, state.gradient)
            if level:
                return state._replace(evaluations=evaluations, stuck=True)
            return State(point, value, gradient, evaluations, False)
        # The lowest point of the parabola through both values and the slope, kept within a tenth and a half of the step.
        lowest = -slope * step * step / (2 * (value - state.value - slope * step))
        step = min(max(lowest, 0.1 * step), 0.5 * step)
    return state._replace(evaluations=evaluations, stuck=True)


def _direction(gradient: Float[Tensor, "m c"], pairs: "deque[tuple[Tensor, Tensor, float]]") -> Float[Tensor, "m c"]:
    direction, shares = -gradient, []
    for moved, turned, curvature in reversed(pairs):
        share = _dot(moved, direction) / curvature
        direction = direction - share * turned
        shares.append(share)
    if pairs:
        _, turned, curvature = pairs[-1]
        direction = direction * (curvature / _dot(turned, turned))
    for (moved, turned, curvature), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - _dot(turned, direction) / curvature) * moved
    return direction


def _dot(a: Float[Tensor, "m c"], b: Float[Tensor, "m c"]) -> float:
    return float((a * b).sum())
