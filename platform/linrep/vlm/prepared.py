"""A sample as the model takes it: token ids, pixel tiles, and what each position is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from jaxtyping import Int16, Int32, UInt8

from linrep.sample import Sample


class Role(IntEnum):
    """What a position of a sequence holds."""

    TEMPLATE = 0
    """Start of sequence, prompt and template tokens: neither the image nor the sample's own text."""
    TEXT = 1
    """The sample's text or caption."""
    IMAGE = 2
    """A patch of the image."""
    NEWLINE = 3
    """What ends a row of patches where the model has a learned vector for it; it counts as an image token."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Where the turns of a chat lie in a sequence.

    Attributes:
        turns: Position of the first and the last token of what each turn says.
        question: Which of them is the user's last; None where the user says nothing.
        answer: Position at which the assistant's part begins; None where nothing stands there yet.
    """

    turns: tuple[tuple[int, int], ...]
    question: int | None
    answer: int | None

    def moved(self, runs: Mapping[int, int]) -> "Marks":
        """The same where some tokens are runs of many.

        Args:
            runs: How many positions a token takes, by its place; others take one.
        """

        def first(at: int) -> int:
            return at + sum(n - 1 for token, n in runs.items() if token < at)

        turns = tuple((first(a), first(b) + runs.get(b, 1) - 1) for a, b in self.turns)
        return Marks(turns, self.question, None if self.answer is None else first(self.answer))


@dataclass(frozen=True, slots=True)
class Prepared:
    """One sequence of t positions, not padded.

    Attributes:
        sample: What it came from, without the encoded image; its text is what the sequence holds, cut if it was too long.
        input_ids: Token ids; image positions hold the image placeholder.
        role: A `Role` per position.
        tile: 0 for the base view, 1.. for the crops in reading order, -1 for newline and text positions. Tokens that stand
            between the views of an image are template.
        row: Row of the patch: for the base view in its own grid, for crops in the grid of the whole image, for a newline the
            row that it ends; -1 for text.
        col: Column likewise; -1 for newlines and text.
        image: Which of the sample's images it belongs to, from 0 in their order, newlines included; -1 for text and template.
        pixels: Tiles as the image processor cut them, before rescaling and normalisation, image after image; None for texts.
        sizes: What the model must know of the images beside their pixels, by the name of the argument: a row for each image.
        image_sizes: Height and width of each image that the processor saw, in pixels.
        grids: Rows and columns of the finest grid of patches of each.
        marks: Where the turns of its chat lie; None where its prompt is none.
    """

    sample: Sample
    input_ids: Int32[np.ndarray, " t"]
    role: UInt8[np.ndarray, " t"]
    tile: Int16[np.ndarray, " t"]
    row: Int16[np.ndarray, " t"]
    col: Int16[np.ndarray, " t"]
    image: Int16[np.ndarray, " t"]
    pixels: UInt8[np.ndarray, "tiles 3 h w"] | None = None
    sizes: Mapping[str, list[list[int]]] = field(default_factory=dict)
    image_sizes: tuple[tuple[int, int], ...] = ()
    grids: tuple[tuple[int, int], ...] = ()
    marks: Marks | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def n_bytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.input_ids, self.role, self.tile, self.row, self.col, self.image, self.pixels)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the image of a sample that has one; None for texts and documents."""
        return None if self.sample.modality == "document" else next(iter(self.image_sizes), None)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of its finest grid of patches likewise."""
        return None if self.sample.modality == "document" else next(iter(self.grids), None)

    @property
    def n_image_tokens(self) -> int:
        """Image positions, newlines included."""
        return int((self.role >= Role.IMAGE).sum())

    @property
    def n_text_tokens(self) -> int:
        """Positions of the sample's own text."""
        return int((self.role == Role.TEXT).sum())


def without_image(sample: Sample) -> Sample:
    """The sample without its encoded images, to travel light."""
    return replace(sample, image=None, images=())
