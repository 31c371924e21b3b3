"""Idefics3 and SmolVLM."""

from pathlib import Path

from PIL import Image
from transformers import Idefics3Config, SmolVLMConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from linrep.vlm.batch import collate
from linrep.vlm.families import layout
from linrep.vlm.hooks import forward, record
from linrep.vlm.prepared import Role
from tests.vlm.families.laws import Laws
from tests.vlm.families.official import sample
from tests.vlm.families.tiny import TEXT, TOWER, tokenizer_with, write

SPECIAL = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}


class IdeficsLaws(Laws):
    placeholder = "<image>"

    def test_the_whole_image_is_last_and_what_names_the_crops_is_no_image(self, vlm, prepared):
        one = prepared[1]
        assert one.tile[one.role == Role.IMAGE][-1] == 0
        assert one.tile[one.role == Role.IMAGE][0] == 1
        inside = (one.role == Role.IMAGE).nonzero()[0]
        between = one.role[inside[0] : inside[-1] + 1] != Role.IMAGE
        plan = layout(one.image_size, vlm.card)
        assert between.sum() >= 2 * plan.tile_rows * plan.tile_cols
        assert (one.role[inside[0] : inside[-1] + 1][between] == Role.TEMPLATE).all()

    def test_a_tile_of_nothing_but_zeros_is_not_dropped(self, vlm, preparer, monkeypatch):
        """Of an image processor that does not normalise, black is zero; the model takes such a tile for padding."""
        images = vlm.processor.image_processor
        monkeypatch.setattr(images, "do_normalize", False)
        one = preparer(sample(Image.new("RGB", (60, 40))))
        assert not one.pixels.any()
        with record(vlm, [0]) as found:
            forward(vlm, collate([one], vlm))
        assert found[0].shape[1] == len(one)


class TestSmolVLM(IdeficsLaws):
    processor = "SmolVLMProcessor"

    @staticmethod
    def write(folder: Path) -> Path:
        return write_idefics(folder, SmolVLMConfig, SmolVLMImageProcessorPil, "SmolVLMProcessor")


class TestIdefics3(IdeficsLaws):
    processor = "Idefics3Processor"

    @staticmethod
    def write(folder: Path) -> Path:
        return write_idefics(folder, Idefics3Config, Idefics3ImageProcessorPil, "Idefics3Processor")


def write_idefics(folder: Path, config: type, images: type, processor: str) -> Path:
    tokenizer = tokenizer_with(**SPECIAL)
    made = config(
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={**TOWER, "image_size": 32, "patch_size": 4},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=3,
    )
    own = images(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    return write(folder, made, own, tokenizer, processor, {"image_seq_len": 16})
