"""LLaVA-1.5."""

from pathlib import Path

from transformers import LlavaConfig
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from linrep.vlm.families import layout
from linrep.vlm.tokens import patch_box
from tests.vlm.families.laws import Laws
from tests.vlm.families.tiny import TEXT, TOWER, tokenizer_with, write


class TestLlava(Laws):
    processor = "LlavaProcessor"
    placeholder = "<image>"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with()
        config = LlavaConfig(
            text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
            vision_config={**TOWER, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 8},
            image_token_index=4,
            image_seq_length=16,
        )
        images = LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        settings = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        return write(folder, config, images, tokenizer, "LlavaProcessor", settings)

    def test_borders_that_are_cut_off_lie_in_no_patch(self, vlm):
        """64 x 128 becomes 32 x 64, of which columns 16 to 48 are seen: columns 32 to 96 of the image."""
        plan = layout((64, 128), vlm.card)
        boxes = [patch_box(plan, 0, row, col) for row in range(4) for col in range(4)]
        assert (min(box[0] for box in boxes), max(box[2] for box in boxes)) == (32, 96)
        assert (min(box[1] for box in boxes), max(box[3] for box in boxes)) == (0, 64)
