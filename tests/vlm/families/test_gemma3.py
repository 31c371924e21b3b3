"""Gemma 3."""

from pathlib import Path

import torch
from transformers import Gemma3Config
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from linrep.vlm.batch import collate
from linrep.vlm.hooks import forward, record
from tests.vlm.families.laws import Laws
from tests.vlm.families.tiny import TEXT, TOWER, tokenizer_with, write


class TestGemma3(Laws):
    processor = "Gemma3Processor"
    placeholder = "<start_of_image>"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
        kinds = ["sliding_attention", "full_attention", "sliding_attention"]
        config = Gemma3Config(
            text_config={**TEXT, "vocab_size": len(tokenizer), "sliding_window": 8, "layer_types": kinds},
            vision_config={**TOWER, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 4},
            mm_tokens_per_image=16,
            image_token_id=tokenizer.image_token_id,
            boi_token_index=tokenizer.boi_token_id,
            eoi_token_index=tokenizer.eoi_token_id,
        )
        images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
        return write(folder, config, images, tokenizer, "Gemma3Processor", {"image_seq_length": 16})

    def test_attention_within_the_image_is_in_both_directions_only_if_the_model_is_told(self, vlm, prepared):
        batch = collate(prepared[:1], vlm)
        with record(vlm, [3]) as told:
            forward(vlm, batch)
        with record(vlm, [3]) as untold, torch.inference_mode():
            vlm.inner(input_ids=batch.input_ids, pixel_values=batch.beside["pixel_values"], use_cache=False)
        first = int(batch.image_mask[0].nonzero()[0])
        assert not torch.allclose(told[3][0, first], untold[3][0, first], atol=1e-2)

    def test_the_placeholder_is_the_models_and_not_the_begin_of_image(self, vlm):
        assert vlm.processor.tokenizer.convert_ids_to_tokens(vlm.card.image_token_id) == "<image_soft_token>"

    def test_text_embeddings_are_scaled_and_image_ones_are_not(self, vlm, prepared):
        with record(vlm, [0]) as found:
            forward(vlm, collate(prepared[:1], vlm))
        token = int(prepared[0].input_ids[0])
        torch.testing.assert_close(found[0][0, 0], vlm.text.embed_tokens.weight[token] * 32**0.5)
