"""An image of a sample: as it lies in the corpus, with what the store knows of it, and its patches where they are asked for."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from linrep.contents.draw import fit, heat_map, outlined
from linrep.contents.stored import Box, Token
from linrep.notebook.markup import image_tag, plain, png, table, text
from linrep.vlm.tokens import Layout, patch_box

SIDE = 336
"""The longer side of an image as it is shown, in pixels."""
FACTS = {
    "class_name": "class",
    "text": "caption",
    "split": "split",
    "grid": "patches of the crops",
    "n_image_tokens": "image tokens",
}
"""What is shown of a sample's row, and how it is called."""
Views = Literal["base", "crops"]


@dataclass(frozen=True)
class SampleImage:
    """An image of a sample.

    Attributes:
        facts: The sample's row of the store's samples table.
        image: The image as it lies in the corpus.
        layout: How the model cut it into patches.
        boxes: Patches to draw, in the image's pixels.
        values: Activation of each of these, for a heat map; None for outlines.
        most: The activation of full colour; None for the largest of the values.
    """

    facts: dict[str, Any]
    image: Image.Image
    layout: Layout
    boxes: tuple[Box, ...] = ()
    values: tuple[float, ...] | None = None
    most: float | None = None

    def patches(self, view: Views = "crops") -> "SampleImage":
        """The same image with a line around each of its patches.

        Args:
            view: The crops, or the base view, whose patches are larger.
        """
        found = self.layout.map
        rows = zip(found.tile.tolist(), found.row.tolist(), found.col.tolist(), strict=True)
        tokens = [Token(0, *row) for row in rows if (row[0] == 0) == (view == "base")]
        return self.at([token for token in tokens if token.is_patch])

    def at(self, tokens: list[Token], values: list[float] | None = None) -> "SampleImage":
        """The same image with some patches drawn.

        Args:
            tokens: The patches; newlines are no place and are left out.
            values: Activation at each of them, for a heat map.
        """
        kept = [i for i, token in enumerate(tokens) if token.is_patch]
        # An image that the harvest squashed was seen in another size than it has.
        source = self.image.height, self.image.width
        boxes = tuple(patch_box(self.layout, *tokens[i][1:], source) for i in kept)
        return replace(self, boxes=boxes, values=None if values is None else tuple(float(values[i]) for i in kept))

    def drawn(self, side: int = SIDE) -> Image.Image:
        """What is shown, with a longer side of some pixels."""
        if self.values is not None:
            most = max(self.values, default=0.0) if self.most is None else self.most
            return heat_map(self.image, self.boxes, self.values, most, side)
        return outlined(self.image, self.boxes, side) if self.boxes else fit(self.image, side)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The pixels of the image as it lies in the corpus."""
        return np.asarray(self.image, dtype)

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {plain(value, 80)}" for name, value in _said(self.facts).items())
        return f"{plain(self.facts['sample_id'], 200)}: {self.image.width} x {self.image.height} pixels, {said}"

    def _repr_png_(self) -> bytes:
        return png(self.drawn())

    def _repr_html_(self) -> str:
        facts = {
            "sample": self.facts["sample_id"],
            "size": f"{self.image.width} x {self.image.height} pixels",
            **_said(self.facts),
        }
        rows = [(text(name), text(value)) for name, value in facts.items()]
        return image_tag(self.drawn(), f"image {self.facts['sample_id']}") + table(("", ""), rows)


def _said(facts: dict[str, Any]) -> dict[str, Any]:
    return {said: facts[name] for name, said in FACTS.items() if facts.get(name) is not None}
