"""Qwen2-VL and Qwen2.5-VL."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from linrep.sample import Skipped
from linrep.vlm.batch import collate
from linrep.vlm.decode import embed
from linrep.vlm.families import layout
from linrep.vlm.hooks import forward, record
from linrep.vlm.patches import patches_of
from linrep.vlm.prepared import Role
from tests.vlm.families.laws import Laws
from tests.vlm.families.official import noise, sample
from tests.vlm.families.tiny import TEXT, tokenizer_with, write

QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def images_of(patch: int) -> Any:
    """Few pixels, so that images have few tokens."""
    size = {"shortest_edge": (2 * patch) ** 2 * 4, "longest_edge": (2 * patch) ** 2 * 64}
    return Qwen2VLImageProcessorPil(patch_size=patch, size=size)


def ids_of(tokenizer: Any) -> dict[str, int]:
    return {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in QWEN.items()}


class QwenLaws(Laws):
    silent = False
    """Without marks of images it runs on, with other numbers."""
    placeholder = "<|vision_start|><|image_pad|><|vision_end|>"

    def test_the_next_position_is_not_the_number_of_tokens(self, vlm, prepared):
        """An image of r x c tokens takes max(r, c) places: what follows begins there, in all three axes."""
        stream, one = embed(vlm, prepared[:1])[0], prepared[0]
        first = int((one.role >= 2).argmax())
        rows, cols = one.grid
        after = first + rows * cols
        assert stream.places[after].tolist() == [first + max(rows, cols)] * 3
        assert stream.places[after - 1].tolist() == [first, first + rows - 1, first + cols - 1]

    def test_places_do_not_depend_on_what_the_model_saw_before(self, vlm, prepared):
        fresh = embed(vlm, prepared[:1])[0].places
        vlm.model.generate(**collate(prepared[2:3], vlm, "left").prompt(), max_new_tokens=2, do_sample=False)
        assert torch.equal(embed(vlm, prepared[:1])[0].places, fresh)

    def test_without_marks_of_what_is_an_image_the_model_has_no_places(self, vlm, prepared):
        """Refused by some versions; others count on in one axis, in silence."""
        batch = collate(prepared[:1], vlm)
        inputs = {name: value for name, value in batch.inputs().items() if name != "mm_token_type_ids"}
        with record(vlm, [3]) as told:
            forward(vlm, batch)
        refused = contextlib.nullcontext() if self.silent else pytest.raises(ValueError, match="mm_token_type_ids")
        with refused, record(vlm, [3]) as untold, torch.inference_mode():
            vlm.inner(**inputs, use_cache=False)
        if self.silent:
            assert not torch.allclose(told[3], untold[3], atol=1e-2)

    def test_the_patches_of_a_token_follow_each_other_row_by_row(self, vlm, preparer):
        """By hand: the first two tokens of an image of two rows and three columns of tokens."""
        one = preparer(sample(noise(16, 24)))
        own = patches_of(one, vlm.card)
        assert len(own) == 24
        assert list(zip(own.row[:8].tolist(), own.col[:8].tolist(), strict=True)) == [
            *[(0, 0), (0, 1), (1, 0), (1, 1)],
            *[(0, 2), (0, 3), (1, 2), (1, 3)],
        ]
        first = int(np.flatnonzero(one.role == Role.IMAGE)[0])
        assert own.position.tolist() == [first + i for i in range(6) for _ in range(4)]

    def test_an_image_is_capped_and_a_strip_is_skipped_with_its_reason(self, vlm, preparer):
        assert layout((4000, 4000), vlm.card).n_tokens <= 64
        found = preparer(sample(noise(2, 500)))
        assert isinstance(found, Skipped)
        assert "more than 200 times" in found.reason


class TestQwen25VL(QwenLaws):
    silent = True
    processor = "Qwen2_5_VLProcessor"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with(**QWEN)
        tower = {"hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "depth": 2, "out_hidden_size": 32}
        config = Qwen2_5_VLConfig(
            text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": ROPE},
            vision_config={**tower, "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]},
            **ids_of(tokenizer),
        )
        return write(folder, config, images_of(4), tokenizer, "Qwen2_5_VLProcessor")


class TestQwen2VL(QwenLaws):
    processor = "Qwen2VLProcessor"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with(**QWEN)
        tower = {"hidden_size": 32, "embed_dim": 16, "num_heads": 2, "depth": 2, "mlp_ratio": 2, "patch_size": 4}
        config = Qwen2VLConfig(
            text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": ROPE}, vision_config=tower, **ids_of(tokenizer)
        )
        return write(folder, config, images_of(4), tokenizer, "Qwen2VLProcessor")
