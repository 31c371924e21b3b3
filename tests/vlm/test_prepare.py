import dataclasses
import io
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from linrep.errors import ModelError
from linrep.sample import Skipped
from linrep.vlm.batch import normalise
from linrep.vlm.config import ModelConfig
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.processor import load_processor
from linrep.vlm.random import write_random_vlm

SIZES = [(28, 28), (50, 40), (100, 30), (20, 90), (1, 1), (1, 200), (250, 2), (61, 61), (84, 28), (29, 400)]
TEXTS = [
    "A red boat lies in the harbour.",
    "x",
    " leading and trailing  ",
    "línea ünï 🚤🚤 \n\n two",
    "ends with </s> tag",
    "\ttab",
]


def image(sample):
    return Image.open(io.BytesIO(sample.image)).convert("RGB")


def reference(processor, text, image=None):
    return processor(images=image, text=text, return_tensors="np")


@pytest.mark.parametrize("size", SIZES)
def test_ids_and_pixels_are_the_official_processors(preparer, official, make, size):
    processor = official["mistral"][1]
    sample = make(size=size)
    found = preparer(sample)
    expected = reference(processor, "<image>", image(sample))
    assert found.input_ids.tolist() == expected["input_ids"][0].tolist()
    assert found.image_size == tuple(expected["image_sizes"][0])
    assert found.pixels.dtype == np.uint8
    ours = normalise(torch.from_numpy(found.pixels), processor.image_processor).numpy()
    np.testing.assert_allclose(ours, expected["pixel_values"][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(336, 336), (375, 500), (500, 375), (200, 900), (64, 64)])
def test_the_same_for_tiles_of_336(folder_336, make, size):
    processor = AutoProcessor.from_pretrained(folder_336, backend="pil")
    sample = make(size=size)
    found = Preparer.from_path(ModelConfig(path=str(folder_336)))(sample)
    expected = reference(processor, "<image>", image(sample))
    assert found.input_ids.tolist() == expected["input_ids"][0].tolist()
    ours = normalise(torch.from_numpy(found.pixels), processor.image_processor).numpy()
    np.testing.assert_allclose(ours, expected["pixel_values"][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["mistral", "llama"])
def test_text_and_pair_ids_are_the_official_processors(folders, official, make, text, name):
    preparer = Preparer.from_path(ModelConfig(path=str(folders[name])), pair_prompt="USER: <image>\nSay {text} ASSISTANT:")
    processor = official[name][1]
    assert preparer(make(text=text)).input_ids.tolist() == reference(processor, text)["input_ids"][0].tolist()
    sample = make(size=(40, 50), text=text)
    expected = reference(processor, f"USER: <image>\nSay {text} ASSISTANT:", image(sample))
    assert preparer(sample).input_ids.tolist() == expected["input_ids"][0].tolist()


@pytest.mark.parametrize("text", TEXTS)
def test_text_positions_decode_to_the_text(config, make, text):
    preparer = Preparer.from_path(config, pair_prompt="USER: <image> Describe: {text} ASSISTANT: yes")
    found = preparer(make(size=(40, 50), text=text))
    (inside,) = np.nonzero(found.role == Role.TEXT)
    assert (np.diff(inside) == 1).all()
    decoded = preparer.tokenizer.decode(found.input_ids[inside], clean_up_tokenization_spaces=False)
    assert decoded.split() == text.split()  # the tokenizer's decoder adds a space after a special token
    after = preparer.tokenizer.decode(found.input_ids[inside[-1] + 1 :])
    assert after.strip() == "ASSISTANT: yes"
    assert found.n_text_tokens == len(inside)


def test_roles_of_a_sequence_by_hand(preparer, make):
    """<s>, 16 base patches, 4 rows of 4 patches and a newline (28 x 28 pixels in a canvas of 28 x 56), '▁', line feed, text."""
    found = preparer(make(size=(28, 28), text="A key"))
    roles = "".join("tTin"[r] for r in found.role)
    assert roles.startswith("t" + "i" * 16 + "iiiin" * 4 + "tt" + "T")
    assert set(roles[39:]) == {"T"}
    assert (found.n_image_tokens, found.grid, found.tile[0], found.tile[-1]) == (36, (4, 4), -1, -1)
    assert found.tile[17:22].tolist() == [1, 1, 2, 2, -1]  # 14 pixels of padding on the left: two columns from each tile
    assert len(found) == len(found.role) == len(found.tile) == len(found.row) == len(found.col)


def test_text_without_template_is_all_text_but_the_start(preparer, make):
    found = preparer(make(text="A red boat"))
    assert found.role[0] == Role.TEMPLATE
    assert (found.role[1:] == Role.TEXT).all()
    assert (found.pixels, found.image_size, found.grid) == (None, None, None)
    assert (found.tile == -1).all()


def test_squash(config, make):
    sample = make(size=(90, 40))
    found = Preparer.from_path(config, image_size=(28, 28))(sample)
    assert found.image_size == (28, 28)
    base = np.asarray(image(sample).resize((28, 28), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(found.pixels[0], base)
    np.testing.assert_array_equal(np.concatenate([found.pixels[1], found.pixels[2]], axis=2)[:, :, 14:42], base)


def test_an_image_sample_ignores_its_text(preparer, make):
    sample = dataclasses.replace(make(size=(40, 40)), text="a caption with <image> in it")
    assert preparer(sample).n_text_tokens == 0


def test_samples_travel_without_their_bytes(preparer, make):
    assert preparer(make(size=(40, 40))).sample.image is None
    assert preparer(make(image=b"junk")).sample.image is None


@pytest.mark.parametrize("text", [" ".join(["The old tree stands near the house."] * 20), "🚤" * 50, "tree " * 40])
@pytest.mark.parametrize("limit", [7, 16])
def test_long_texts_are_cut_at_a_token_and_say_so(config, official, make, text, limit):
    preparer = Preparer.from_path(config, max_text_tokens=limit)
    for sample in (make(text=text), make(size=(100, 30), text=text)):
        found = preparer(sample)
        assert limit - 4 < found.n_text_tokens <= limit
        kept = found.sample.text
        assert text.startswith(kept)
        full = f"<image>\n{kept}" if sample.image else kept
        expected = reference(official["mistral"][1], full, image(sample) if sample.image else None)
        assert found.input_ids.tolist() == expected["input_ids"][0].tolist()


def test_a_text_at_the_limit_is_left_whole(preparer, config, make):
    whole = preparer(make(text=TEXTS[0]))
    same = Preparer.from_path(config, max_text_tokens=whole.n_text_tokens)(make(text=TEXTS[0]))
    assert same.sample.text == TEXTS[0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": ""}, "empty text"),
        ({"text": " \n "}, "empty text"),
        ({"text": "see <image> here"}, "image placeholder"),
        ({"image": b""}, "no image bytes"),
        ({"image": b"GIF?"}, "not an image"),
        ({"image": b"", "text": "caption"}, "no image bytes"),
        ({"size": (30, 30), "text": "two <image>"}, "image placeholder"),
        ({"size": (30, 30), "text": ""}, "empty text"),
    ],
)
def test_unfit_samples_are_skipped_with_the_reason(preparer, make, fields, reason):
    found = preparer(make(**fields))
    assert isinstance(found, Skipped)
    assert reason in found.reason


def test_missing_parts_are_skipped(preparer, make):
    for modality, reason in {"image": "no image bytes", "pair": "empty text", "text": "empty text"}.items():
        bare = dataclasses.replace(make(text="x"), modality=modality, text=None)
        assert reason in preparer(bare).reason
    assert preparer(dataclasses.replace(make(text="x"), modality="pair")).reason == "no image bytes"


def test_truncated_jpeg_is_skipped(preparer, make, png):
    data = png(200, 200, kind="JPEG")
    assert "corrupt or truncated" in preparer(make(image=data[: len(data) // 2])).reason


def test_a_text_of_which_nothing_fits_is_skipped(config, make):
    assert "no text left" in Preparer.from_path(config, max_text_tokens=1)(make(text="🚤")).reason


def test_sequences_beyond_the_model_are_skipped_and_images_never_cut(tmp_path, make):
    config = ModelConfig(path=str(write_random_vlm(tmp_path / "m", n_layers=1, max_positions=80)))
    preparer = Preparer.from_path(config)
    assert isinstance(preparer(make(size=(50, 40))), Prepared)
    found = preparer(make(size=(60, 60)))
    assert found.reason == "sequence of 89 positions is beyond the model's 80"
    assert "beyond the model's 80" in preparer(make(text="tree " * 100)).reason


@pytest.mark.parametrize(
    "options",
    [
        {"image_prompt": "no image"},
        {"image_prompt": "<image><image>"},
        {"image_prompt": "<image> {text}"},
        {"pair_prompt": "<image>"},
        {"pair_prompt": "{text}"},
        {"text_prompt": "nothing"},
        {"image_size": (0, 5)},
        {"max_text_tokens": 0},
    ],
)
def test_bad_options_are_refused(config, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Preparer.from_path(config, **options)


def test_braces_in_prompts_and_texts_are_harmless(config, official, make):
    preparer = Preparer.from_path(config, text_prompt='{"q": {text}}')
    found = preparer(make(text="{0} {text} {}"))
    assert found.input_ids.tolist() == reference(official["mistral"][1], '{"q": {0} {text} {}}')["input_ids"][0].tolist()


def test_survives_pickling(preparer, make):
    again = pickle.loads(pickle.dumps(preparer))
    assert again(make(size=(50, 40))).input_ids.tolist() == preparer(make(size=(50, 40))).input_ids.tolist()


def test_needs_no_weights(folder):
    """A worker that prepares never loads the model's modules."""
    code = f"""
import sys
from linrep.vlm.config import ModelConfig
from linrep.vlm.prepare import Preparer
import safetensors
Preparer.from_path(ModelConfig(path={str(folder)!r}))
print([m for m in sys.modules if m.endswith(("modeling_mistral", "modeling_clip", "modeling_llava_next"))])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("image_processor", "image_grid_pinpoints", [[28, 56]]), "grid pinpoints"),
        (("image_processor", "crop_size", {"height": 14, "width": 14}), "crop size"),
        (("image_processor", "size", {"shortest_edge": 56}), "tile size"),
        ((None, "patch_size", 14), "patch size"),
        ((None, "num_additional_image_tokens", 0), "image tokens"),
        (("tokenizer", "image_token", "</s>"), "image token id"),
    ],
)
def test_a_processor_that_disagrees_with_the_model_is_refused(preparer, folder, change, reason):
    processor = load_processor(folder)
    part, name, value = change
    if part is None:
        processor = dataclasses.replace(processor, settings={**processor.settings, name: value})
    else:
        setattr(getattr(processor, part), name, value)
    with pytest.raises(ModelError, match=reason):
        Preparer(processor, preparer.card)


def test_a_damaged_processor_is_one_clear_line(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot load the processor") as caught:
        Preparer.from_path(ModelConfig(path=str(broken)))
    assert "\n" not in str(caught.value)
