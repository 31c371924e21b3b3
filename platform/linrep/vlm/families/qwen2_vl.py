"""Qwen2-VL and Qwen2.5-VL: an image of any size as one grid of patches, 2 x 2 of them merged into a token.

Positions count in time, height and width, so the next position after an image is not the number of tokens. Tiles here are the
tower's patches: a flat list of them, with the grid's extent beside it, is what the model takes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Int16
from PIL import Image

from linrep.vlm.family import Family, Settings, Tiles, Vision, disagree, special
from linrep.vlm.tokens import Grid, Layout, Size, places_within_tokens, whole_view

MOST_TOKENS = 1280
"""Image tokens that an image gets at most: processors on the hub allow 16,384."""


@dataclass(frozen=True, slots=True)
class QwenVision(Vision):
    """What decides Qwen-VL's layout; a tile is one patch.

    Attributes:
        merge: Patches along each side that become one token.
        fewest_pixels: Smaller images are scaled up.
        most_pixels: Larger images are scaled down.
        frames: Times that a patch is repeated, as the tower reads frames of a video.
        adds_later: Blocks after which features of the image are added to the stream.
    """

    merge: int
    fewest_pixels: int
    most_pixels: int
    frames: int
    adds_later: int


class Qwen2VL(Family):
    """Qwen2-VL and Qwen2.5-VL."""

    model_types = ("qwen2_vl", "qwen2_5_vl")
    title = "Qwen2-VL, Qwen2.5-VL"
    checkpoints = ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2-VL-7B-Instruct")
    tokens = "height/28 x width/28, at most 1,280"
    limits = ("Images are scaled down to 1,280 tokens, also where the processor allows more.",)
    facts = QwenVision
    rope_axes = 3

    def vision(self, config: Any, images: Settings) -> QwenVision:
        vision, size = config.vision_config, dict(images()["size"])
        merge = int(vision.spatial_merge_size)
        factor = int(vision.patch_size) * merge
        return QwenVision(
            tile_size=int(vision.patch_size),
            patch_size=int(vision.patch_size),
            merge=merge,
            fewest_pixels=int(size["shortest_edge"]),
            most_pixels=max(min(int(size["longest_edge"]), MOST_TOKENS * factor**2), int(size["shortest_edge"])),
            frames=int(vision.temporal_patch_size),
            adds_later=len(getattr(vision, "deepstack_visual_indexes", ())),
        )

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        images = processor.image_processor
        token = special(processor.tokenizer, "image_token", "<|image_pad|>")
        disagree(
            {
                "image token id": (processor.tokenizer.convert_tokens_to_ids(token), image_token_id),
                "patch size": (images.patch_size, vision.patch_size),
                "merge size": (images.merge_size, vision.merge),
                "frames of a patch": (images.temporal_patch_size, vision.frames),
            }
        )

    def adds_later(self, vision: QwenVision) -> int:
        return vision.adds_later

    def layout(self, size: Size, vision: QwenVision) -> Layout:
        height, width = scaled_size(size, vision)
        step = vision.patch_size * vision.merge
        rows, cols = height // step, width // step
        found = whole_view(rows, cols)
        patches = rows * cols * vision.merge**2
        return Layout(size, Grid.even(rows, cols, (height, width)), None, found, (len(found.role),), tiles=patches)

    def most_tiles(self, vision: QwenVision, size: Size | None) -> int:
        return vision.most_pixels // vision.patch_size**2 if size is None else self.layout(size, vision).tiles

    def cut(self, image: Image.Image, plan: Layout, images: Any) -> Tiles:
        assert plan.base is not None
        (height, width), patch, merge = map(int, plan.base.scaled), images.patch_size, images.merge_size
        scaled = image.resize((width, height), Image.Resampling(int(images.resample)))
        split = np.asarray(scaled).reshape(height // patch // merge, merge, patch, width // patch // merge, merge, patch, 3)
        return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, 3, patch, patch)

    def sizes(self, plan: Layout) -> dict[str, list[int]]:
        assert plan.base is not None
        merge = math.isqrt(plan.tiles // (plan.base.rows * plan.base.cols))
        return {"image_grid_thw": [1, plan.base.rows * merge, plan.base.cols * merge]}

    def spelling(self, plan: Layout | None, token: str, tokenizer: Any) -> str:
        start, end = (special(tokenizer, f"vision_{name}_token", f"<|vision_{name}|>") for name in ("start", "end"))
        return f"{start}{token}{end}"

    def in_template(self, token: str, tokenizer: Any) -> str:
        return self.spelling(None, token, tokenizer)

    def pixel_inputs(self, pixels: Any, sizes: Mapping[str, Any], counts: Sequence[int], vision: QwenVision) -> dict[str, Any]:
        repeated = pixels.unsqueeze(2).expand(-1, -1, vision.frames, -1, -1)
        grid = sizes["image_grid_thw"].to(pixels.device)
        return {"pixel_values": repeated.reshape(len(pixels), -1), "image_grid_thw": grid}

    def marks(self, of_image: Any, of_text: Any) -> dict[str, Any]:
        return {"mm_token_type_ids": of_image.int()}

    def tower(self, model: Any) -> Any:
        return model.visual

    def tower_patches(self, model: Any, args: tuple, kwargs: Mapping[str, Any], output: Any) -> Any:
        patches, tower = output.last_hidden_state, model.visual
        if hasattr(tower, "window_size"):  # Qwen2.5-VL: window by window
            from transformers.vision_utils import get_vision_window_index

            order, _ = get_vision_window_index(kwargs["grid_thw"], tower.spatial_merge_size, tower.window_size, tower.patch_size)
            merged = patches.reshape(len(order), -1, patches.shape[-1])
            patches = merged[order.argsort()].flatten(0, 1)
        return patches[:, None]

    def tower_width(self, config: Any) -> int:
        vision = config.vision_config
        return vision.embed_dim if hasattr(vision, "embed_dim") else vision.hidden_size  # Qwen2-VL's is the language model's

    def tower_tokens(self, plan: Layout, vision: QwenVision) -> Int[np.ndarray, "tiles n"]:
        return np.arange(plan.tiles)[:, None] // vision.merge**2

    def tower_places(self, plan: Layout, vision: QwenVision) -> Int16[np.ndarray, "3 tiles n"]:
        return places_within_tokens(plan, vision.merge).reshape(3, -1, 1)


def scaled_size(size: Size, vision: QwenVision) -> Size:
    """Height and width in multiples of a token's extent, with about the image's proportions and neither too few nor too many.

    Raises:
        ValueError: The image is more than 200 times as long as it is wide.

    Source: `smart_resize` of Qwen2-VL.
    """
    (height, width), step = size, vision.patch_size * vision.merge
    if max(size) / min(size) > 200:
        raise ValueError(f"an image of {width} x {height} pixels is more than 200 times as long as it is wide")
    rows, cols = round(height / step) * step, round(width / step) * step
    if rows * cols > vision.most_pixels:
        shrink = math.sqrt(height * width / vision.most_pixels)
        rows, cols = (max(step, math.floor(length / shrink / step) * step) for length in size)
    elif rows * cols < vision.fewest_pixels:
        grow = math.sqrt(vision.fewest_pixels / (height * width))
        rows, cols = (math.ceil(length * grow / step) * step for length in size)
    return rows, cols


FAMILY = Qwen2VL()
