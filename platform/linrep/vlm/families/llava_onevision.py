"""LLaVA-OneVision: LLaVA-NeXT's tiling with a SigLIP tower, and a grid that is resampled where it has many patches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from linrep.errors import ModelError
from linrep.vlm.families.llava_next import LlavaNext, padded_square
from linrep.vlm.family import Family, Settings, Tiles, Vision, disagree
from linrep.vlm.tokens import Grid, Layout, Size, Span, one_after_the_other, row_by_row, whole_view


@dataclass(frozen=True, slots=True)
class OneVision(Vision):
    """What decides LLaVA-OneVision's layout.

    Attributes:
        grid_pinpoints: Height and width in pixels of the canvases among which the processor picks one per image.
        most_tiles: Tiles of patches above which the grid of the crops is resampled.
    """

    grid_pinpoints: tuple[Size, ...]
    most_tiles: int


class LlavaOneVision(LlavaNext):
    """LLaVA-OneVision."""

    model_types = ("llava_onevision",)
    title = "LLaVA-OneVision"
    checkpoints = ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf")
    tokens = "729 of the base view, up to 7,290 in all, a newline per row"
    limits = (
        "Of more than nine tiles the crops' tokens are resampled: a patch then mixes its neighbours on the tower's grid.",
        "Where a document shows several images, each is padded to a square and seen as one view, without crops.",
    )
    facts = OneVision

    def vision(self, config: Any, images: Settings) -> OneVision:
        ratio = str(config.vision_aspect_ratio)
        if not ratio.startswith("anyres_max_"):
            raise ModelError(f"vision_aspect_ratio {ratio!r} is not supported, only anyres_max_N")
        own = Family.vision(self, config, images)
        pinpoints = tuple((int(h), int(w)) for h, w in config.image_grid_pinpoints)
        return OneVision(own.tile_size, own.patch_size, pinpoints, int(ratio.removeprefix("anyres_max_")))

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        images = processor.image_processor
        disagree(
            {
                "image token id": (processor.image_token_id, image_token_id),
                "grid pinpoints": (tuple(tuple(p) for p in images.image_grid_pinpoints), vision.grid_pinpoints),
            }
        )

    def layout(self, size: Size, vision: OneVision) -> Layout:
        plan = super().layout(size, vision)
        grid, side = plan.crops, vision.tile_size // vision.patch_size
        assert grid is not None
        ratio = math.sqrt(grid.rows * grid.cols / (vision.most_tiles * side**2))
        if ratio <= 1.1:
            return plan
        rows, cols = int(grid.rows // ratio), int(grid.cols // ratio)
        # Resampled over the extent of the old grid: the crop in which a new patch's centre lies names its tile.
        fewer = [_centres(old, new) for old, new in ((grid.rows, rows), (grid.cols, cols))]
        old = plan.map.tile[side * side :].reshape(grid.rows, grid.cols + 1)
        found = one_after_the_other([whole_view(side, side), row_by_row(old[np.ix_(*fewer)], newline=True)])
        again = Grid(_fewer(grid.down, rows), _fewer(grid.across, cols), grid.scaled)
        return replace(plan, crops=again, map=found, runs=(len(found.role),))

    def layout_among(self, size: Size, vision: OneVision) -> Layout:
        """One view of the image padded to a square, and a newline after its last row."""
        side = vision.tile_size // vision.patch_size
        whole = whole_view(side, side)
        end = row_by_row(np.empty((1, 0), np.int16), newline=True)
        end = end._replace(row=np.full(1, side - 1, np.int16))
        found = one_after_the_other([whole, end])
        return Layout(size, padded_square(size, vision), None, found, (len(found.role),))

    def cut(self, image: Image.Image, plan: Layout, images: Any) -> Tiles:
        if plan.crops is not None:
            return super().cut(image, plan, images)
        assert plan.base is not None
        whole, tile = max(image.size), round(max(plan.base.scaled))
        square = Image.new("RGB", (whole, whole), tuple(int(mean * 255) for mean in images.image_mean))
        square.paste(image, ((whole - image.width) // 2, (whole - image.height) // 2))
        return np.asarray(square.resize((tile, tile), Image.Resampling(int(images.resample)))).transpose(2, 0, 1)[None].copy()

    def pixel_inputs(self, pixels: Any, sizes: Mapping[str, Any], counts: Sequence[int], vision: OneVision) -> dict[str, Any]:
        """How many images a sample has decides whether the model puts crops together."""
        found = super().pixel_inputs(pixels, sizes, counts, vision)
        return found if max(counts) == 1 else {**found, "batch_num_images": sizes["image_sizes"].new_tensor(counts)}

    def tower_tokens(self, plan: Layout, vision: OneVision) -> Int[np.ndarray, "tiles n"]:
        found = super().tower_tokens(plan, vision)
        if plan.crops is not None and super().layout(plan.image_size, vision).grid != plan.grid:
            found[1:] = -1  # a token of the crops mixes its neighbours
        return found

    def tower_padding(self, plan: Layout, vision: OneVision) -> Bool[np.ndarray, "tiles n"]:
        """Those that are dropped before what is left is resampled."""
        return super().tower_tokens(plan if plan.crops is None else super().layout(plan.image_size, vision), vision) < 0


def _fewer(old: tuple[Span, ...], new: int) -> tuple[Span, ...]:
    """The spans of fewer patches that share the extent of the old ones; tiles leave pixels between them."""

    def at(place: float, ending: bool) -> float:
        index = min(math.ceil(place) - 1 if ending else int(place), len(old) - 1)
        begin, end = old[index]
        return begin + (place - index) * (end - begin)

    places = [i * len(old) / new for i in range(new + 1)]
    return tuple((at(low, False), at(high, True)) for low, high in pairwise(places))


def _centres(old: int, new: int) -> np.ndarray:
    """The old patch in which the centre of each new one lies."""
    return np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)


FAMILY = LlavaOneVision()
