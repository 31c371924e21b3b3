"""What stands in a prompt in the place of a sample's own text: the text, or a document with its images spelled out in it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from linrep.vlm.config import IMAGE
from linrep.vlm.turns import Span


class Passage(NamedTuple):
    """A sample's own text as the tokenizer gets it.

    Attributes:
        written: The text, with each image as the family spells it.
        stretches: Where the sample's own words lie in it.
        begins: Where each of these stretches begins in the sample's own text.
    """

    written: str
    stretches: tuple[Span, ...]
    begins: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> "Passage":
        """A text without images."""
        return cls(text, ((0, len(text)),), (0,))

    @classmethod
    def showing(cls, text: str, spelled: Sequence[str]) -> "Passage":
        """A document.

        Args:
            text: With `<image>` in the place of each image.
            spelled: What stands there, for each image.

        >>> Passage.showing("a<image>b", ["<tile><tile>"])
        Passage(written='a<tile><tile>b', stretches=((0, 1), (13, 14)), begins=(0, 8))
        """
        written, stretches, begins, begin = "", [], [], 0
        for words, image in zip(text.split(IMAGE), [*spelled, ""], strict=True):
            stretches.append((len(written), len(written) + len(words)))
            begins.append(begin)
            written += words + image
            begin += len(words) + len(IMAGE)
        return cls(written, tuple(stretches), tuple(begins))

    def own(self, spans: Int64[np.ndarray, "t 2"]) -> tuple[Bool[np.ndarray, " t"], Int64[np.ndarray, " n"]]:
        """Which tokens hold the sample's own words, and where in the sample's own text each of these ends.

        Args:
            spans: First character of each token and the one after its last, counted from the begin of what is written.
        """
        own, ends = np.zeros(len(spans), bool), np.zeros(len(spans), np.int64)
        for (start, end), begin in zip(self.stretches, self.begins, strict=True):
            held = (spans[:, 0] < end) & (spans[:, 1] > start) & (spans[:, 1] > spans[:, 0])
            (inside,) = np.nonzero(held)
            if len(inside):  # one stretch: byte-level tokenizers give tokens of mere spaces within it an empty span
                held[inside[0] : inside[-1] + 1] = True
            own |= held
            ends[held] = begin + np.minimum(spans[held, 1], end) - start
        return own, np.maximum.accumulate(ends[own])
