"""What SAEs are judged on: tokens of images, and the attribute values that are known of the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

LEAST = 8
"""Images that a value must have, and must be missing on, among those that explanations are chosen on."""


@dataclass(frozen=True)
class TokenRows:
    """Tokens of some images.

    Attributes:
        x: Their vectors in the model's own scale, finite.
        image: Number of each token's image, from 0.
        n_images: Images; some may have no token.
    """

    x: Float[Tensor, "n d"]
    image: Int[Tensor, " n"]
    n_images: int


@dataclass(frozen=True)
class Values:
    """Attribute values of s images, a column each: what a latent can be explained by.

    Attributes:
        names: Attribute and value in words.
        true: Whether the image has the value.
        known: Whether the attribute is known of the image.
    """

    names: tuple[str, ...]
    true: Bool[np.ndarray, "s v"]
    known: Bool[np.ndarray, "s v"]

    @classmethod
    def of(cls, attributes: Mapping[str, Sequence[str | None]]) -> "Values":
        """Every value of every attribute.

        Args:
            attributes: By name the value of each image, None where it has none.
        """
        names, true, known = [], [], []
        for attribute, own in attributes.items():
            for value in sorted({word for word in own if word is not None}):
                names.append(f"{attribute} {value}")
                true.append([word == value for word in own])
                known.append([word is not None for word in own])
        shape = (len(names), len(next(iter(attributes.values()), ())))
        return cls(tuple(names), np.array(true, bool).reshape(shape).T, np.array(known, bool).reshape(shape).T)

    def images(self, chosen: Int64[np.ndarray, " m"]) -> "Values":
        """The same of some images."""
        return Values(self.names, self.true[chosen], self.known[chosen])

    def columns(self, chosen: Int64[np.ndarray, " w"]) -> "Values":
        """Some of the values."""
        return Values(tuple(self.names[i] for i in chosen), self.true[:, chosen], self.known[:, chosen])


@dataclass(frozen=True)
class PanelData:
    """Images to choose on, and held-out images to report on.

    Attributes:
        train: Tokens that thresholds, explanations, means and assignments are chosen on.
        held: Tokens that are reported on.
        train_values: Of the images of the one.
        held_values: Of the images of the other.
    """

    train: TokenRows
    held: TokenRows
    train_values: Values
    held_values: Values

    def __post_init__(self) -> None:
        for rows, values in ((self.train, self.train_values), (self.held, self.held_values)):
            if rows.n_images != len(values.true):
                raise ValueError(f"tokens of {rows.n_images} images, values of {len(values.true)}")
        if self.train_values.names != self.held_values.names:
            raise ValueError("the values of both parts must be the same")

    @classmethod
    def of(cls, train: TokenRows, held: TokenRows, train_values: Values, held_values: Values) -> "PanelData":
        """With the values that enough images have, and that enough do not have.

        Raises:
            ValueError: There is no such value.
        """
        has = train_values.true.sum(0)
        lacks = (train_values.known & ~train_values.true).sum(0)
        common = np.flatnonzero((has >= LEAST) & (lacks >= LEAST) & held_values.true.any(0))
        if not len(common):
            raise ValueError(
                f"no attribute value has {LEAST} training images with it, {LEAST} without it and a held-out image: "
                "nothing is known that latents could be explained by"
            )
        return cls(train, held, train_values.columns(common), held_values.columns(common))
