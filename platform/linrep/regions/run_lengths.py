"""Masks as run lengths, as COCO has them: pixels column by column, lengths of runs that begin with empty ones.

Source: the formats of COCO's own program (Lin et al., "Microsoft COCO", 2014; maskApi of pycocotools).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool


def mask_of(counts: Sequence[int] | str | bytes, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The mask that run lengths describe.

    Args:
        counts: Lengths of runs, empty and covered ones in turn, or the text that they are packed in.
        height: Rows of the image.
        width: Columns.

    Raises:
        ValueError: The runs do not come to the image's pixels, or the text is no packed runs.

    >>> mask_of([1, 2, 3], 2, 3).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    runs = np.asarray(unpacked(counts) if isinstance(counts, str | bytes) else counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"{len(runs)} runs come to {runs.sum():,} pixels, the image has {height} x {width}")
    covered = np.arange(len(runs)) % 2 == 1
    return np.repeat(covered, runs).reshape(width, height).T


def unpacked(text: str | bytes) -> list[int]:
    """The run lengths in a packed text: six bits a character, five of them data; from the fourth run on, the change since
    the run two before.

    Raises:
        ValueError: The text ends within a number, or has a character that stands for no six bits.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text if isinstance(text, bytes) else text.encode("latin-1", "replace"):
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the character {chr(character)!r} is none of packed run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("the packed run lengths end within a number")
    return runs
