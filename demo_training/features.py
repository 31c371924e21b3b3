"""Tower features of images, computed once, laid out as the model does: base view, then tiles row by row, with newlines."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration

from demo_training.model import GRID
from demo_training.views import scale_pixels
from linrep.demo.scene import Scene


@dataclass(frozen=True)
class Layout:
    """Which tower feature stands at which image token: index over the image's tiles and patches, or -1 for a newline."""

    index: Int[Tensor, " t"]


def token_layout(model: LlavaNextForConditionalGeneration, width: int, height: int) -> Layout:
    """The model's own packing, read off by letting it pack numbers in place of features."""
    n_tiles = 2 if width == height else 3
    numbers = torch.arange(n_tiles * GRID * GRID, dtype=torch.float32).view(n_tiles, GRID * GRID, 1)
    packed, _ = model.model.pack_image_features(
        [numbers], torch.tensor([[height, width]]), "default", image_newline=torch.tensor([-1.0])
    )
    return Layout(packed[0][:, 0].long())


def token_layouts(model: LlavaNextForConditionalGeneration, scenes: Iterable[Scene]) -> dict[tuple[int, int], Layout]:
    """The packing of images of each size, by width and height."""
    return {size: token_layout(model, *size) for size in sorted({(scene.width, scene.height) for scene in scenes})}


@torch.no_grad()
def tower_features(model: LlavaNextForConditionalGeneration, pixels: UInt8[Tensor, "n 3 s s"]) -> Float[Tensor, "n p w"]:
    """The tower's features of every tile, as the projector gets them."""
    layer = model.config.vision_feature_layer
    parts = [
        model.model.vision_tower(scale_pixels(some), output_hidden_states=True).hidden_states[layer][:, 1:]
        for some in pixels.split(256)
    ]
    return torch.cat(parts)


def image_embeddings(
    model: LlavaNextForConditionalGeneration, tiles: Float[Tensor, "b n p w"], layout: Layout
) -> Float[Tensor, "b t d"]:
    """What the decoder gets in place of the image tokens, for images of one size."""
    projected = model.model.multi_modal_projector(tiles.flatten(1, 2))
    newline = model.model.image_newline.expand(len(tiles), 1, -1)
    return torch.cat([projected, newline], dim=1)[:, layout.index]  # -1 picks the newline at the end
