"""Mistral 3: an image of any size as one grid of patches, 2 x 2 of them merged into a token, a token of text after each row.

Tiles here are the squares that become one token. The model takes whole images, filled up to the largest of a batch, with sizes.
`[IMG_BREAK]` after a row and `[IMG_END]` after the last are ordinary tokens of the vocabulary: template.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Int16
from PIL import Image

from linrep.vlm.family import Family, Settings, Tiles, Vision, disagree
from linrep.vlm.tokens import Grid, Layout, Size, places_within_tokens, whole_view


@dataclass(frozen=True, slots=True)
class Mistral3Vision(Vision):
    """What decides Mistral 3's layout; a tile is the square that becomes one token.

    Attributes:
        longest: Longest side of an image in pixels; larger ones are scaled down.
    """

    longest: int


class Mistral3(Family):
    """Mistral Small 3.1 and 3.2."""

    model_types = ("mistral3",)
    title = "Mistral 3"
    checkpoints = ("mistralai/Mistral-Small-3.1-24B-Instruct-2503",)
    tokens = "height/28 x width/28, at most 55 x 55"
    limits = ("The tokens between the rows of an image, [IMG_BREAK] and [IMG_END], are filed under text as template.",)
    facts = Mistral3Vision

    def vision(self, config: Any, images: Settings) -> Mistral3Vision:
        patch = int(config.vision_config.patch_size)
        return Mistral3Vision(patch * int(config.spatial_merge_size), patch, int(dict(images()["size"])["longest_edge"]))

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        known, merge = processor.settings, vision.tile_size // vision.patch_size
        token = processor.tokenizer.convert_tokens_to_ids(known.get("image_token", "[IMG]"))
        disagree(
            {
                "image token id": (token, image_token_id),
                "patch size": (known.get("patch_size", vision.patch_size), vision.patch_size),
                "merge size": (known.get("spatial_merge_size", merge), merge),
            }
        )

    def layout(self, size: Size, vision: Mistral3Vision) -> Layout:
        ratio = max(max(size) / vision.longest, 1.0)
        height, width = (math.floor(side / ratio) if ratio > 1 else side for side in size)
        rows, cols = math.ceil(height / vision.tile_size), math.ceil(width / vision.tile_size)
        if not rows or not cols:
            raise ValueError(
                f"image of {size[0]} x {size[1]} pixels is too long for its width: nothing is left of it when scaled"
            )
        scaled = rows * vision.tile_size, cols * vision.tile_size
        return Layout(size, Grid.even(rows, cols, scaled), None, whole_view(rows, cols), (cols,) * rows, tiles=rows * cols)

    def most_tiles(self, vision: Mistral3Vision, size: Size | None) -> int:
        return math.ceil(vision.longest / vision.tile_size) ** 2 if size is None else self.layout(size, vision).tiles

    def cut(self, image: Image.Image, plan: Layout, images: Any) -> Tiles:
        assert plan.base is not None
        height, width = map(int, plan.base.scaled)
        scaled = np.asarray(image.resize((width, height), Image.Resampling(int(images.resample))))
        squares = scaled.reshape(plan.base.rows, height // plan.base.rows, plan.base.cols, width // plan.base.cols, 3)
        return np.ascontiguousarray(squares.transpose(0, 2, 4, 1, 3)).reshape(plan.tiles, 3, *squares.shape[1:4:2])

    def sizes(self, plan: Layout) -> dict[str, list[int]]:
        assert plan.base is not None
        return {"image_sizes": [int(side) for side in plan.base.scaled]}

    def spelling(self, plan: Layout | None, token: str, tokenizer: Any) -> str:
        rows = 1 if plan is None else len(plan.runs)
        return f"{token}[IMG_BREAK]" * (rows - 1) + f"{token}[IMG_END]"

    def pixel_inputs(
        self, pixels: Any, sizes: Mapping[str, Any], counts: Sequence[int], vision: Mistral3Vision
    ) -> dict[str, Any]:
        side, whole = vision.tile_size, sizes["image_sizes"]
        found = pixels.new_zeros(len(whole), 3, *whole.amax(0).tolist())
        first = 0
        for image, (height, width) in zip(found, whole.tolist(), strict=True):
            rows, cols = height // side, width // side
            own = pixels[first : first + rows * cols].reshape(rows, cols, 3, side, side)
            image[:, :height, :width] = own.permute(2, 0, 3, 1, 4).reshape(3, height, width)
            first += rows * cols
        return {"pixel_values": found, "image_sizes": whole.to(pixels.device)}

    def tower_patches(self, model: Any, args: tuple, kwargs: Mapping[str, Any], output: Any) -> Any:
        (patches, sizes), merge = args, model.config.spatial_merge_size
        found = patches.reshape(-1, merge**2, patches.shape[-1]).clone()
        first = 0
        for height, width in (sizes // model.config.vision_config.patch_size).tolist():
            n = height * width // merge**2
            own = patches[first * merge**2 : (first + n) * merge**2].reshape(height // merge, merge, width // merge, merge, -1)
            found[first : first + n] = own.transpose(1, 2).reshape(n, merge**2, -1)
            first += n
        return found

    def tower_tokens(self, plan: Layout, vision: Mistral3Vision) -> Int[np.ndarray, "tiles n"]:
        return np.arange(plan.tiles)[:, None].repeat((vision.tile_size // vision.patch_size) ** 2, axis=1)

    def tower_places(self, plan: Layout, vision: Mistral3Vision) -> Int16[np.ndarray, "3 tiles n"]:
        return places_within_tokens(plan, vision.tile_size // vision.patch_size)


FAMILY = Mistral3()
