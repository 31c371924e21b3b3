"""InternVL 3."""

from pathlib import Path

from transformers import InternVLConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from linrep.vlm.families import layout
from tests.vlm.families.laws import Laws
from tests.vlm.families.tiny import TEXT, TOWER, tokenizer_with, write


class TestInternVL(Laws):
    processor = "InternVLProcessor"
    placeholder = "<IMG_CONTEXT>"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with(
            context_image_token="<IMG_CONTEXT>", start_image_token="<img>", end_image_token="</img>", video_token="<video>"
        )
        config = InternVLConfig(
            text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
            vision_config={**TOWER, "image_size": [32, 32], "patch_size": [4, 4]},
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
            image_seq_length=16,
        )
        images = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, max_patches=6)
        return write(folder, config, images, tokenizer, "InternVLProcessor", {"image_seq_length": 16})

    def test_tiles_come_first_and_the_whole_image_last(self, vlm):
        plan = layout((32, 64), vlm.card)
        assert plan.map.tile.tolist() == [1] * 16 + [2] * 16 + [0] * 16
        assert plan.map.col[16:20].tolist() == [4, 5, 6, 7]
