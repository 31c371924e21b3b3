"""InternVL 3: the image squashed into a canvas of tiles, tile by tile, and the whole image in one tile after them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from linrep.vlm.family import Family, Settings, Vision, disagree, sides, special, square_view
from linrep.vlm.tokens import Grid, Layout, Size, one_after_the_other, tile_by_tile, whole_view


@dataclass(frozen=True, slots=True)
class InternVLVision(Vision):
    """What decides InternVL's layout.

    Attributes:
        side: Rows and columns of tokens of a tile.
        fewest: Fewest tiles of a canvas.
        most: Most tiles of a canvas.
    """

    side: int
    fewest: int
    most: int


class InternVL(Family):
    """InternVL 3."""

    model_types = ("internvl",)
    title = "InternVL 3"
    checkpoints = ("OpenGVLab/InternVL3-8B-hf", "OpenGVLab/InternVL3-1B-hf")
    tokens = "256 per tile, up to 12 tiles and the whole image"
    facts = InternVLVision
    base_first = False
    processor_options = MappingProxyType({"crop_to_patches": True})

    def vision(self, config: Any, images: Settings) -> InternVLVision:
        own, settings = super().vision(config, images), images()
        side = int(own.tile_size // own.patch_size * config.downsample_ratio)
        return InternVLVision(own.tile_size, own.patch_size, side, int(settings["min_patches"]), int(settings["max_patches"]))

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        token = special(processor.tokenizer, "context_image_token", "<IMG_CONTEXT>")
        disagree(
            {
                "image token id": (processor.tokenizer.convert_tokens_to_ids(token), image_token_id),
                "tile size": (sides(processor.image_processor.size), {vision.tile_size}),
                "image tokens of a tile": (processor.settings.get("image_seq_length", vision.side**2), vision.side**2),
            }
        )

    def layout(self, size: Size, vision: InternVLVision) -> Layout:
        rows, cols = choose_tiles(size, vision)
        side, n = vision.side, rows * cols
        if n == 1:
            return square_view(size, side)
        found = one_after_the_other([tile_by_tile(rows, cols, side, side), whole_view(side, side)])
        base, crops = Grid.even(side, side, size), Grid.even(rows * side, cols * side, size)
        return Layout(size, base, crops, found, (len(found.role),), n + 1, rows, cols)

    def most_tiles(self, vision: InternVLVision, size: Size | None) -> int:
        return vision.most + 1 if size is None else self.layout(size, vision).tiles

    def spelling(self, plan: Layout | None, token: str, tokenizer: Any) -> str:
        begin, end = special(tokenizer, "start_image_token", "<img>"), special(tokenizer, "end_image_token", "</img>")
        return f"{begin}{token}{end}"

    def tower(self, model: Any) -> Any:
        return model.vision_tower  # the projector gets four patches put into one

    def tower_patches(self, model: Any, args: tuple, kwargs: Mapping[str, Any], output: Any) -> Any:
        layer = model.config.vision_feature_layer
        found = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        return found[:, 1:] if model.config.vision_feature_select_strategy == "default" else found


def choose_tiles(size: Size, vision: InternVLVision) -> Size:
    """Rows and columns of tiles: the canvas with proportions nearest to the image's.

    Of equal ones it is a larger one while the image fills half of it.

    Source: `dynamic_preprocess` of InternVL.
    """
    (height, width), area = size, size[0] * size[1]
    numbers = range(1, vision.most + 1)
    canvases = sorted(
        ((cols, rows) for cols in numbers for rows in numbers if vision.fewest <= cols * rows <= vision.most),
        key=lambda canvas: canvas[0] * canvas[1],
    )
    best, least = (1, 1), math.inf
    for cols, rows in canvases:
        distance = abs(width / height - cols / rows)
        if distance < least or (distance == least and area > 0.5 * vision.tile_size**2 * cols * rows):
            best, least = (cols, rows), distance
    return best[1], best[0]


FAMILY = InternVL()
