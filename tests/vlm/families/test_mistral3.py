"""Mistral 3."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import Mistral3Config
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from linrep.vlm.families import layout
from linrep.vlm.prepared import Role
from tests.vlm.families.laws import Laws
from tests.vlm.families.tiny import TEXT, TOWER, tokenizer_with, write

ROWS = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}


class TestMistral3(Laws):
    processor = "PixtralProcessor"
    placeholder = "[IMG]"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with(**ROWS)
        config = Mistral3Config(
            text_config={**TEXT, "model_type": "mistral", "vocab_size": len(tokenizer)},
            vision_config={**TOWER, "model_type": "pixtral", "image_size": 96, "patch_size": 4, "head_dim": 8},
            image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
            spatial_merge_size=2,
        )
        images = PixtralImageProcessorPil(size={"longest_edge": 96}, patch_size={"height": 4, "width": 4})
        return write(folder, config, images, tokenizer, "PixtralProcessor", {"patch_size": 4, "spatial_merge_size": 2, **ROWS})

    def changed(self, batch, vlm, one, tile, i):
        """Its pixels are whole images."""
        pixels, side = batch.beside["pixel_values"].clone(), vlm.card.patch_size
        (row, col), (down, across) = divmod(tile, one.grid[1]), divmod(i, 2)
        top, left = (2 * row + down) * side, (2 * col + across) * side
        pixels[0, :, top : top + side, left : left + side] += 1
        return replace(batch, beside={**batch.beside, "pixel_values": pixels})

    def test_the_tokens_between_rows_are_template_and_the_last_one_ends_the_image(self, vlm, prepared):
        one = prepared[0]
        rows, cols = one.grid
        words = vlm.processor.tokenizer.convert_ids_to_tokens(one.input_ids.tolist())
        first = words.index("[IMG]")
        picture = words[first : words.index("[IMG_END]") + 1]
        assert picture == (["[IMG]"] * cols + ["[IMG_BREAK]"]) * (rows - 1) + ["[IMG]"] * cols + ["[IMG_END]"]
        between = [role for role, word in zip(one.role, words, strict=True) if word in ("[IMG_BREAK]", "[IMG_END]")]
        assert between == [Role.TEMPLATE] * rows

    @pytest.mark.parametrize(
        ("size", "grid"), [((96, 96), (12, 12)), ((97, 40), (12, 5)), ((200, 100), (12, 6)), ((9, 8), (2, 1))]
    )
    def test_a_side_is_scaled_down_to_the_longest_and_filled_up_to_whole_tokens(self, vlm, size, grid):
        """97 x 40 by 96/97: 96 x 39, of which 39 pixels are 4.9 squares of 8."""
        assert layout(size, vlm.card).grid == grid
