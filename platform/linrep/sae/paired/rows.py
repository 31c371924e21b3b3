"""Rows of image-text pairs, on a common scale."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from linrep.sae.controls.trained import Moments


@dataclass(frozen=True)
class PairRows:
    """Two rows a pair: row i of both belongs to pair i.

    Attributes:
        image: Rows of images.
        text: Rows of their captions.

    Raises:
        ValueError: There are not as many, or as wide, rows of both.
    """

    image: Float[Tensor, "n d"]
    text: Float[Tensor, "m d2"]

    def __post_init__(self) -> None:
        if self.image.shape != self.text.shape:
            raise ValueError(f"a pair has a row of each modality, got {tuple(self.image.shape)} and {tuple(self.text.shape)}")

    def __len__(self) -> int:
        return len(self.image)

    @property
    def width(self) -> int:
        """Width of the stream."""
        return self.image.shape[1]

    @property
    def beside(self) -> Float[Tensor, "n d2"]:
        """Both rows of a pair as one."""
        return torch.cat([self.image, self.text], dim=1)

    def of(self, chosen: Shaped[Tensor, " m"]) -> "PairRows":
        """Some of the pairs."""
        return PairRows(self.image[chosen], self.text[chosen])

    def dealt(self, seed: int) -> "PairRows":
        """The same rows with the texts dealt anew among the images: nothing is left that pairs have in common."""
        return PairRows(self.image, self.text[shifted(len(self), seed)])


def shifted(n: int, seed: int) -> Int[Tensor, " n"]:
    """For each of n pairs another one, each once: a random cycle, so that none keeps its own.

    Raises:
        ValueError: There is one pair alone.
    """
    if n < 2:
        raise ValueError(f"{n} pair has no other to take a text from")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found


def standardised(train: PairRows, held: PairRows) -> tuple[PairRows, PairRows]:
    """Both parts less each modality's training mean, in units of its training norm: to a mean norm of sqrt(d).

    So no design has to spend latents on the distance between the modalities, and none is drawn to the longer rows.
    """

    def scaled(of: Moments, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (x - of.mean) * of.scale

    image, text = Moments.of(train.image), Moments.of(train.text)
    both = tuple(PairRows(scaled(image, rows.image), scaled(text, rows.text)) for rows in (train, held))
    return both[0], both[1]


def batches(rows: PairRows, steps: int, batch: int, seed: int) -> Iterator[PairRows]:
    """Pairs to train on, drawn with replacement: the same for every design.

    Args:
        rows: The pairs.
        steps: Batches.
        batch: Pairs of each.
        seed: Of the draw.
    """
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield rows.of(torch.randint(len(rows), (batch,), generator=draw))
