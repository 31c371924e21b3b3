"""Gemma 3: the image squashed into one square of 896 pixels, 256 tokens, which see each other in both directions.

Attention in both directions is only there if the model is given which positions are the image: without that the numbers differ in
silence. Text embeddings are scaled by the root of the width, image ones are not. Activations exceed float16.
"""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from linrep.vlm.family import Family, Settings, Vision, disagree, sides, special, square_view
from linrep.vlm.tokens import Layout, Size


@dataclass(frozen=True, slots=True)
class GemmaVision(Vision):
    """What decides Gemma 3's layout.

    Attributes:
        n_tokens: Image tokens, a square number.
    """

    n_tokens: int


class Gemma3(Family):
    """Gemma 3."""

    model_types = ("gemma3",)
    title = "Gemma 3"
    checkpoints = ("google/gemma-3-4b-it", "google/gemma-3-12b-it")
    tokens = "256"
    attention = "image"
    storage = "bfloat16"
    unit_offset = True
    limits = ("The processor's pan and scan is switched off: an image is one view.",)
    facts = GemmaVision
    processor_options = MappingProxyType({"do_pan_and_scan": False})

    def vision(self, config: Any, images: Settings) -> GemmaVision:
        own = super().vision(config, images)
        return GemmaVision(own.tile_size, own.patch_size, int(config.mm_tokens_per_image))

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        token = special(processor.tokenizer, "image_token", "<image_soft_token>")
        disagree(
            {
                "image token id": (processor.tokenizer.convert_tokens_to_ids(token), image_token_id),
                "tile size": (sides(processor.image_processor.size), {vision.tile_size}),
            }
        )

    def layout(self, size: Size, vision: GemmaVision) -> Layout:
        return square_view(size, math.isqrt(vision.n_tokens))

    def spelling(self, plan: Layout | None, token: str, tokenizer: Any) -> str:
        begin, end = special(tokenizer, "boi_token", "<start_of_image>"), special(tokenizer, "eoi_token", "<end_of_image>")
        return f"\n\n{begin}{token}{end}\n\n"

    def in_template(self, token: str, tokenizer: Any) -> str:
        return special(tokenizer, "boi_token", "<start_of_image>")

    def marks(self, of_image: Any, of_text: Any) -> dict[str, Any]:
        return {"token_type_ids": of_image.long()}


FAMILY = Gemma3()
