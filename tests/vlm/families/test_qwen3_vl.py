"""Qwen3-VL."""

from pathlib import Path

import torch
from transformers import Qwen3VLConfig

from linrep.vlm.batch import collate
from linrep.vlm.hooks import forward, record
from tests.vlm.families.test_qwen2_vl import QWEN, ROPE, QwenLaws, ids_of, images_of
from tests.vlm.families.tiny import TEXT, tokenizer_with, write


class TestQwen3VL(QwenLaws):
    processor = "Qwen3VLProcessor"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with(**QWEN)
        tower = {"hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "depth": 3, "out_hidden_size": 32, "patch_size": 4}
        config = Qwen3VLConfig(
            text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": {**ROPE, "mrope_interleaved": True}},
            vision_config={**tower, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64},
            **ids_of(tokenizer),
        )
        return write(folder, config, images_of(4), tokenizer, "Qwen3VLProcessor")

    def test_deepstack_adds_features_after_a_block_so_its_output_is_not_the_next_ones_input(self, vlm, prepared):
        outputs = {}
        handle = vlm.text.layers[0].register_forward_hook(lambda module, args, out: outputs.update(out=out))
        batch = collate(prepared[:1], vlm)
        with record(vlm, [1]) as found:
            forward(vlm, batch)
        handle.remove()
        moved = (found[1] - outputs["out"]).abs().amax(-1) > 1e-6
        assert torch.equal(moved, batch.image_mask)
