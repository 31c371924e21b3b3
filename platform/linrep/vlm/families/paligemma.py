"""PaliGemma: the image squashed into one square, before a prompt with which it sees itself in both directions.

Only what follows the prompt is causal. So that a caption cannot have reached the image, the sample's own text is what follows
and the prompt is the rest: image and prompt see each other, the text sees both. The image's placeholder can lie outside the
vocabulary.
"""

from typing import Any

from linrep.vlm.config import TEXT
from linrep.vlm.family import Family, Vision, disagree, sides, special, square_view
from linrep.vlm.tokens import Layout, Size


class PaliGemma(Family):
    """PaliGemma and PaliGemma 2."""

    model_types = ("paligemma",)
    title = "PaliGemma"
    checkpoints = ("google/paligemma-3b-mix-224", "google/paligemma2-3b-mix-448")
    tokens = "256, 1,024 or 4,096"
    attention = "prefix"
    storage = "bfloat16"
    unit_offset = True
    first_position = 1
    interleaved = False
    limits = (
        "Image tokens see the prompt: the same image has other vectors under another prompt, and steering shares no pass.",
        "The image stands before all text, so documents (images within a text, or several of them) are refused.",
    )

    def check(self, processor: Any, vision: Vision, image_token_id: int) -> None:
        disagree(
            {
                "image token id": (processor.image_token_id, image_token_id),
                "tile size": (sides(processor.image_processor.size), {vision.tile_size}),
            }
        )

    def layout(self, size: Size, vision: Vision) -> Layout:
        return square_view(size, vision.tile_size // vision.patch_size)

    def dress(self, prompt: str, image: str, tokenizer: Any) -> str:
        """The start token after the image, or in front where there is none; a line's end after what is asked."""
        start = special(tokenizer, "bos_token", "<bos>")
        before, found, after = prompt.rpartition(image)
        end = "" if TEXT in prompt or prompt.endswith("\n") else "\n"
        return f"{before}{found}{start}{after}{end}"

    def settle(self, tokenizer: Any) -> None:
        tokenizer.add_bos_token = tokenizer.add_eos_token = False

    def marks(self, of_image: Any, of_text: Any) -> dict[str, Any]:
        return {"token_type_ids": of_text.long()}


FAMILY = PaliGemma()
