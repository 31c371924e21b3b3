"""LLaVA-NeXT (LLaVA-1.6): the image squashed into one tile, then scaled into a canvas of tiles with its proportions kept.

The canvas is padded, and the model drops the rows or columns of patches that are padding, rounding in whole patches, so patches
at the edge can be partly padding. Each row of the crops ends with a learned newline.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from linrep.vlm.family import Family, Settings, Tiles, Vision, disagree, shorten, sides
from linrep.vlm.tokens import Grid, Layout, Size, one_after_the_other, row_by_row, whole_view

TOWERS = ("clip_vision_model", "siglip_vision_model")
"""Vision towers whose `hidden_states` are plain block outputs, so that dropping blocks after the chosen one is exact."""


@dataclass(frozen=True, slots=True)
class LlavaNextVision(Vision):
    """What decides LLaVA-NeXT's layout.

    Attributes:
        grid_pinpoints: Height and width in pixels of the canvases among which the processor picks one per image.
        feature_strategy: "default" drops the vision tower's class token, "full" keeps all of its tokens.
        feature_layer: The vision tower's layer whose output is projected.
    """

    grid_pinpoints: tuple[Size, ...]
    feature_strategy: str
    feature_layer: int | tuple[int, ...]


class LlavaNext(Family):
    """LLaVA-NeXT."""

    model_types = ("llava_next",)
    title = "LLaVA-NeXT (1.6)"
    checkpoints = ("llava-hf/llava-v1.6-mistral-7b-hf", "llava-hf/llava-v1.6-vicuna-7b-hf")
    tokens = "576 of the base view, up to 2,304 of the crops, a newline per row"
    facts = LlavaNextVision

    def vision(self, config: Any, images: Settings) -> Vision:
        layer = config.vision_feature_layer
        return LlavaNextVision(
            tile_size=config.vision_config.image_size,
            patch_size=config.vision_config.patch_size,
            grid_pinpoints=tuple((int(h), int(w)) for h, w in config.image_grid_pinpoints),
            feature_strategy=config.vision_feature_select_strategy,
            feature_layer=layer if isinstance(layer, int) else tuple(layer),
        )

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        images, settings = processor.image_processor, processor.settings
        side = vision.tile_size
        disagree(
            {
                "image token id": (processor.image_token_id, image_token_id),
                "patch size": (settings.get("patch_size"), vision.patch_size),
                "feature strategy": (settings.get("vision_feature_select_strategy"), vision.feature_strategy),
                "grid pinpoints": (tuple(tuple(p) for p in images.image_grid_pinpoints), vision.grid_pinpoints),
                "tile size": (sides(images.size), {side}),
                "crop size": (sides(images.crop_size) if images.do_center_crop else {side}, {side}),
                "resizing": (bool(images.do_resize), True),
                # The tower's class token, which the default strategy drops again: what is left is a token a patch.
                "number of additional image tokens": (
                    settings.get("num_additional_image_tokens", 0),
                    int(vision.feature_strategy == "default"),
                ),
            }
        )

    def truncate(self, config: Any, depth: int) -> Any:
        """Also no more of the vision tower than the projector reads, whose layer is counted from its new end.

        -2 of 24 blocks becomes -1 of 23.
        """
        return cut_tower(super().truncate(config, depth))

    def layout(self, size: Size, vision: Any) -> Layout:
        canvas = choose_canvas(size, vision.grid_pinpoints)
        return canvas_layout(size, canvas, vision, newline=True)

    def most_tiles(self, vision: Any, size: Size | None) -> int:
        canvases = vision.grid_pinpoints if size is None else (choose_canvas(size, vision.grid_pinpoints),)
        return 1 + max((height // vision.tile_size) * (width // vision.tile_size) for height, width in canvases)

    def cut(self, image: Image.Image, plan: Layout, images: Any) -> Tiles:
        return cut_canvas(image, plan, Image.Resampling(int(images.resample)))

    def sizes(self, plan: Layout) -> dict[str, list[int]]:
        return {"image_sizes": list(plan.image_size)}


def canvas_layout(size: Size, canvas: Size, vision: Vision, newline: bool) -> Layout:
    """The base view, then the crops of a canvas as one grid without its padding.

    Args:
        size: Height and width of the image.
        canvas: Height and width of the canvas in pixels.
        vision: Sides of tile and patch.
        newline: A newline ends each row of the crops.
    """
    (height, width), tile, patch = size, vision.tile_size, vision.patch_size
    scale_h, scale_w = canvas[0] / height, canvas[1] / width
    if scale_w < scale_h:
        scaled = min(math.ceil(height * scale_w), canvas[0]), canvas[1]
    else:
        scaled = canvas[0], min(math.ceil(width * scale_h), canvas[1])
    offset = (canvas[0] - scaled[0]) // 2, (canvas[1] - scaled[1]) // 2
    side = tile // patch
    rows, cols = canvas[0] // tile * side, canvas[1] // tile * side
    # The model's own arithmetic, rounding included: see `unpad_image` in transformers' LLaVA-NeXT.
    if width / height > cols / rows:
        first = (rows - int(round(height * (cols / width), 7))) // 2, 0
    else:
        first = 0, (cols - int(round(width * (rows / height), 7))) // 2
    tile_rows, tile_cols = canvas[0] // tile, canvas[1] // tile
    down, across = (np.arange(begin, n - begin) for n, begin in ((rows, first[0]), (cols, first[1])))
    tiles = (1 + down[:, None] // side * tile_cols + across[None] // side).astype(np.int16)
    found = one_after_the_other([whole_view(side, side), row_by_row(tiles, newline)])
    # Patches of a tile whose side they do not divide leave its last pixels out.
    begins = [
        (index // side * tile + index % side * patch - begin).tolist()
        for index, begin in ((down, offset[0]), (across, offset[1]))
    ]
    rows_at, cols_at = (tuple((begin, begin + patch) for begin in some) for some in begins)
    return Layout(
        image_size=size,
        base=Grid.even(side, side, (tile, tile), (patch, patch)),
        crops=Grid(rows_at, cols_at, scaled),
        map=found,
        runs=(len(found.role),),
        tiles=1 + tile_rows * tile_cols,
        tile_rows=tile_rows,
        tile_cols=tile_cols,
    )


def padded_square(size: Size, vision: Vision) -> Grid:
    """The view of an image that is padded to a square, which is scaled into one tile.

    Args:
        size: Height and width of the image.
        vision: Sides of tile and patch.
    """
    (height, width), tile, side = size, vision.tile_size, vision.tile_size // vision.patch_size
    whole = max(size)
    scaled = height * tile / whole, width * tile / whole
    start = -((whole - height) // 2) * tile / whole, -((whole - width) // 2) * tile / whole
    return Grid.even(side, side, scaled, (vision.patch_size, vision.patch_size), start)


def choose_canvas(image_size: Size, pinpoints: tuple[Size, ...]) -> Size:
    """The canvas that keeps most of the image's pixels, and among those the one that wastes least.

    Source: `select_best_resolution` of LLaVA-NeXT, ties going to the earlier canvas.
    """
    height, width = image_size
    best, most, least_waste = pinpoints[0], -1, math.inf
    for canvas_h, canvas_w in pinpoints:
        scale = min(canvas_w / width, canvas_h / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas_h * canvas_w - used
        if used > most or (used == most and waste < least_waste):
            best, most, least_waste = (canvas_h, canvas_w), used, waste
    return best


def cut_canvas(image: Image.Image, plan: Layout, resample: Image.Resampling) -> Tiles:
    """Base view and crops of an image, as the official image processor has them before rescaling.

    Args:
        image: RGB, of the layout's size.
        plan: Where everything goes.
        resample: The processor's filter.
    """
    assert plan.base is not None
    assert plan.crops is not None
    side, n_rows, n_cols = int(plan.base.scaled[0]), plan.tile_rows, plan.tile_cols
    tiles = np.empty((plan.tiles, 3, side, side), np.uint8)
    tiles[0] = np.asarray(image.resize((side, side), resample)).transpose(2, 0, 1)
    canvas_h, canvas_w = n_rows * side, n_cols * side
    height, width = map(int, plan.crops.scaled)
    top, left = (canvas_h - height) // 2, (canvas_w - width) // 2
    scaled = np.asarray(image.resize((width, height), resample))
    if (height, width) == (canvas_h, canvas_w):
        canvas = scaled
    else:
        canvas = np.zeros((canvas_h, canvas_w, 3), np.uint8)
        canvas[top : top + height, left : left + width] = scaled
    crops = canvas.reshape(n_rows, side, n_cols, side, 3).transpose(0, 2, 4, 1, 3)
    tiles[1:].reshape(n_rows, n_cols, 3, side, side)[...] = crops
    return tiles


def cut_tower(config: Any) -> Any:
    """A configuration with no more of the vision tower than the projector reads."""
    cut = copy.deepcopy(config)
    vision, asked = cut.vision_config, cut.vision_feature_layer
    if vision.model_type not in TOWERS:
        return cut
    n_states = vision.num_hidden_layers + 1
    layers = [asked] if isinstance(asked, int) else list(asked)
    kept = max(1, *(i % n_states for i in layers))
    # Negative, as transformers takes a layer of 0 for "none"; one block at least, as its input is captured there.
    anew = [i % n_states - (kept + 1) for i in layers]
    cut.vision_feature_layer = anew[0] if isinstance(asked, int) else anew
    shorten(vision, kept)
    return cut


FAMILY = LlavaNext()
