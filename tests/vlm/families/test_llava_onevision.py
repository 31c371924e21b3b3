"""LLaVA-OneVision."""

from pathlib import Path

from transformers import LlavaOnevisionConfig
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from linrep.vlm.families import layout
from tests.vlm.families.laws import Laws
from tests.vlm.families.site_laws import tower_tokens
from tests.vlm.families.tiny import TEXT, TOWER, tokenizer_with, write

PINPOINTS = [[rows * 32, cols * 32] for rows in range(1, 4) for cols in range(1, 4)]


class TestLlavaOneVision(Laws):
    processor = "LlavaOnevisionProcessor"
    placeholder = "<image>"

    @staticmethod
    def write(folder: Path) -> Path:
        tokenizer = tokenizer_with()
        config = LlavaOnevisionConfig(
            text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
            vision_config={
                **TOWER,
                "model_type": "siglip_vision_model",
                "image_size": 32,
                "patch_size": 7,
                "vision_use_head": False,
            },
            image_token_index=4,
            video_token_index=3,
            image_grid_pinpoints=PINPOINTS,
            vision_aspect_ratio="anyres_max_4",
        )
        images = LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS)
        settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_4"}
        return write(folder, config, images, tokenizer, "LlavaOnevisionProcessor", settings)

    def resampled(self, one, tokens):
        return len(tokens) > 1 and bool((tokens[1:] < 0).all())

    def test_one_of_the_images_is_resampled(self, vlm, prepared):
        images = [one for one in prepared if one.pixels is not None]
        assert {self.resampled(one, tower_tokens(vlm, one)) for one in images} == {False, True}

    def test_a_tiles_last_pixels_that_patches_do_not_divide_lie_in_no_patch(self, vlm):
        """A tile of 32 pixels has four patches of 7: the second tile's first patch begins at 32, not at 28."""
        plan = layout((32, 64), vlm.card)
        assert [begin for begin, _ in plan.crops.across] == [0, 7, 14, 21, 32, 39, 46, 53]

    def test_of_many_patches_fewer_tokens_are_left_that_cover_the_same_image(self, vlm):
        """96 x 96 in 3 x 3 tiles has 144 patches, more than 4 tiles of 16: the root of their ratio is 1.5, so 8 x 8 are left."""
        plan = layout((96, 96), vlm.card)
        assert plan.grid == (8, 8)
        assert plan.n_tokens == 16 + 8 * 9
        # A new row is one and a half old ones: the third is the last of the first tile and half a patch of the second, at 32.
        assert plan.crops.down[:4] == ((0, 10.5), (10.5, 21), (21, 35.5), (35.5, 46))
        assert plan.crops.down[-1] == (81.5, 92)
