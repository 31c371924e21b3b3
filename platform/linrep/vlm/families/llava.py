"""LLaVA-1.5: the short edge is scaled to the tile's side and the centre is cut out, so borders are not in the model."""

from dataclasses import dataclass
from typing import Any

from linrep.errors import ModelError
from linrep.vlm.families.llava_next import TOWERS, cut_tower, padded_square
from linrep.vlm.family import Family, Settings, Vision, disagree, sides
from linrep.vlm.tokens import Grid, Layout, Size, whole_view


@dataclass(frozen=True, slots=True)
class LlavaVision(Vision):
    """What decides LLaVA-1.5's layout.

    Attributes:
        short_edge: Length to which the image's short edge is scaled.
        pad: The image is padded to a square first, so that nothing is cut off.
    """

    short_edge: int
    pad: bool


class Llava(Family):
    """LLaVA-1.5."""

    model_types = ("llava",)
    title = "LLaVA-1.5"
    checkpoints = ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf")
    tokens = "576"
    limits = ("The borders of an image that is no square are cut off: no patch shows them.",)
    facts = LlavaVision

    def vision(self, config: Any, images: Settings) -> LlavaVision:
        if config.vision_config.model_type not in TOWERS:
            raise ModelError(
                f"the vision tower {config.vision_config.model_type!r} of a LLaVA is not supported, only CLIP and SigLIP"
            )
        own = super().vision(config, images)
        return LlavaVision(own.tile_size, own.patch_size, min(sides(images()["size"])), bool(images().get("do_pad")))

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        images = processor.image_processor
        cut = sides(images.crop_size) if images.do_center_crop else sides(images.size)
        disagree(
            {
                "image token id": (processor.image_token_id, image_token_id),
                "crop size": (cut, {vision.tile_size}),
                "patch size": (processor.settings.get("patch_size", vision.patch_size), vision.patch_size),
            }
        )

    def truncate(self, config: Any, depth: int) -> Any:
        return cut_tower(super().truncate(config, depth))

    def layout(self, size: Size, vision: LlavaVision) -> Layout:
        (height, width), tile, side = size, vision.tile_size, vision.tile_size // vision.patch_size
        found = whole_view(side, side)
        if vision.pad:
            return Layout(size, padded_square(size, vision), None, found, (len(found.role),))
        edge, short = vision.short_edge, min(size)
        scaled = (edge, int(edge * width / short)) if height <= width else (int(edge * height / short), edge)
        start = (scaled[0] - tile) // 2, (scaled[1] - tile) // 2
        grid = Grid.even(side, side, scaled, (vision.patch_size, vision.patch_size), start)
        return Layout(size, grid, None, found, (len(found.role),))


FAMILY = Llava()
