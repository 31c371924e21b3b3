"""Schedules over the whole run: functions of the step and the run's length, so that a resumed run continues the same one."""


def learning_rate(step: int, steps: int, height: float, warmup: float, decay: float) -> float:
    """A trapezium: linear from 0 over the first share of the steps, linear to 0 over the last.

    Args:
        step: Steps taken before this one.
        steps: Steps of the whole run.
        height: The rate between the two slopes.
        warmup: Share of the steps in which it rises.
        decay: Share of the steps in which it falls.

    >>> [learning_rate(s, 10, 1.0, 0.2, 0.5) for s in (0, 1, 2, 5, 9)]
    [0.5, 1.0, 1.0, 1.0, 0.2]
    """
    rise, fall = warmup * steps, decay * steps
    up = (step + 1) / rise if rise > 0 else 1.0
    down = (steps - step) / fall if fall > 0 else 1.0
    return height * max(0.0, min(1.0, up, down))


def warmth(step: int, steps: int, warmup: float) -> float:
    """The share of a sparsity penalty that counts at a step: linear from 0 to 1 over the first share of the steps.

    >>> [warmth(s, 10, 0.5) for s in (0, 2, 5, 9)]
    [0.0, 0.4, 1.0, 1.0]
    """
    return min(1.0, step / (warmup * steps)) if warmup * steps > 0 else 1.0
