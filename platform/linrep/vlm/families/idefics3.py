"""Idefics3 and SmolVLM: crops one after the other, each with its row and column spelled out before it, the whole image last.

A tile of nothing but zeros is taken for padding and dropped by the model, so a uniform tile that normalises to zero would leave
more placeholders than features: one value of it is moved by a trifle.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linrep.vlm.family import Family, Settings, Vision, disagree, special, square_view
from linrep.vlm.tokens import Grid, Layout, Size, one_after_the_other, tile_by_tile, whole_view

LONGEST = 4096
"""Longest edge in pixels to which the processor scales an image."""


@dataclass(frozen=True, slots=True)
class IdeficsVision(Vision):
    """What decides Idefics3's layout.

    Attributes:
        side: Rows and columns of tokens of a tile.
        longest_edge: Length to which an image's longer edge is scaled before it is cut.
        split: The image is cut into crops; else it is one tile.
    """

    side: int
    longest_edge: int
    split: bool


class Idefics3(Family):
    """Idefics3 and SmolVLM."""

    model_types = ("idefics3", "smolvlm")
    title = "SmolVLM, Idefics3"
    checkpoints = (
        "HuggingFaceTB/SmolVLM-256M-Instruct",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        "HuggingFaceM4/Idefics3-8B-Llama3",
    )
    tokens = "64 per crop (SmolVLM) or 169 (Idefics3), and as many of the whole image"
    facts = IdeficsVision
    base_first = False

    def vision(self, config: Any, images: Settings) -> IdeficsVision:
        own, settings = super().vision(config, images), images()
        tile = int(dict(settings["max_image_size"])["longest_edge"])
        side = own.tile_size // own.patch_size // int(config.scale_factor)
        return IdeficsVision(
            tile, own.patch_size, side, int(dict(settings["size"])["longest_edge"]), bool(settings["do_image_splitting"])
        )

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        disagree(
            {
                "image token id": (processor.image_token_id, image_token_id),
                "image tokens of a tile": (processor.settings.get("image_seq_len", vision.side**2), vision.side**2),
            }
        )

    def layout(self, size: Size, vision: IdeficsVision) -> Layout:
        side, tile = vision.side, vision.tile_size
        height, width = scaled_size(size, vision)
        if not vision.split or (height <= tile and width <= tile):
            return square_view(size, side)
        rows, cols = height // tile, width // tile
        found = one_after_the_other([tile_by_tile(rows, cols, side, side), whole_view(side, side)])
        runs = (side * side,) * (rows * cols + 1)
        base, crops = Grid.even(side, side, size), Grid.even(rows * side, cols * side, size)
        return Layout(size, base, crops, found, runs, rows * cols + 1, rows, cols)

    def most_tiles(self, vision: IdeficsVision, size: Size | None) -> int:
        if size is not None:
            return self.layout(size, vision).tiles
        return math.ceil(vision.longest_edge / vision.tile_size) ** 2 + 1

    def spelling(self, plan: Layout | None, token: str, tokenizer: Any) -> str:
        around = special(tokenizer, "fake_image_token", "<fake_token_around_image>")
        whole = f"{around}{special(tokenizer, 'global_image_token', '<global-img>')}{token}{around}"
        if plan is None or plan.crops is None:
            return whole
        lines = (
            "".join(f"{around}<row_{row + 1}_col_{col + 1}>{token}" for col in range(plan.tile_cols))
            for row in range(plan.tile_rows)
        )
        return "".join(f"{line}\n" for line in lines) + f"\n{whole}"

    def pixel_inputs(self, pixels: Any, sizes: Mapping[str, Any], counts: Sequence[int], vision: Any) -> dict[str, Any]:
        empty = (pixels == 0).flatten(1).all(1)
        pixels[empty, 0, 0, 0] = 1e-6
        return {"pixel_values": pixels[None]}

    def tower(self, model: Any) -> Any:
        return model.connector


def scaled_size(size: Size, vision: IdeficsVision) -> Size:
    """Height and width before the image is cut: the longer edge as the processor has it, then multiples of a tile.

    Source: the image processor of Idefics3.
    """
    (height, width), edge, tile = size, vision.longest_edge, vision.tile_size
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
        height += height % 2
    else:
        height, width = edge, int(edge * ratio)
        width += width % 2
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > LONGEST:
        width, height = LONGEST, max(int(LONGEST / ratio), 1)
    elif height > width and height > LONGEST:
        height, width = LONGEST, max(int(LONGEST * ratio), 1)
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / ratio) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * ratio) / tile) * tile
    return height, width


FAMILY = Idefics3()
