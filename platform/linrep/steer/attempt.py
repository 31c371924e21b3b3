"""Work on a batch, and where it fails on its halves, down to the one that is at fault."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from linrep.errors import LinrepError

T = TypeVar("T")


def attempt(batch: Sequence[T], work: Callable[[Sequence[T]], None], lost: Callable[[T, str], None]) -> None:
    """Run a batch; when it fails, run its halves, down to the one that is at fault.

    Args:
        batch: What to work on.
        work: Must put down all of a batch or nothing.
        lost: Takes one that fails by itself, and the reason.

    Raises:
        LinrepError: What the user can mend, and no other cell would escape.
    """
    if not batch:
        return
    try:
        work(batch)
    except LinrepError:
        raise
    except Exception as error:  # whatever the model, a kernel or an SAE raises: out of memory, not finite, ...
        if len(batch) == 1:
            lost(batch[0], f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(batch) // 2
        attempt(batch[:half], work, lost)
        attempt(batch[half:], work, lost)
