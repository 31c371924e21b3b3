import dataclasses

import numpy as np
import pytest
import torch

from linrep.vlm.batch import collate, pack
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role


def test_pack_by_hand():
    assert pack([5, 1, 5, 3, 9], token_budget=10) == [[4], [0, 2], [3, 1]]
    assert pack([30, 2, 2], token_budget=10) == [[0], [1, 2]]
    assert pack([], token_budget=10) == []


def test_pack_keeps_the_budget_and_every_sequence():
    lengths = np.random.default_rng(0).integers(1, 3000, 500).tolist()
    batches = pack(lengths, token_budget=8192)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 8192 for batch in batches)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert batches == pack(lengths, token_budget=8192)


def test_pack_refuses_no_budget():
    with pytest.raises(ValueError, match="got 0"):
        pack([1], token_budget=0)


@pytest.mark.parametrize("padding", ["right", "left"])
def test_collate_pads_one_side_and_nothing_else(vlm, preparer, mixed, padding):
    prepared = [preparer(sample) for sample in mixed]
    batch = collate(prepared, vlm, padding)
    t = max(map(len, prepared))
    assert batch.input_ids.shape == batch.attention_mask.shape == batch.role.shape == (5, t)
    assert batch.lengths == tuple(map(len, prepared))
    for i, one in enumerate(prepared):
        real = slice(0, len(one)) if padding == "right" else slice(t - len(one), t)
        assert batch.input_ids[i, real].tolist() == one.input_ids.tolist()
        assert batch.role[i, real].tolist() == one.role.tolist()
        assert batch.attention_mask[i].sum() == len(one)
        assert batch.attention_mask[i, real].all()
        assert not (batch.input_ids[i][~batch.attention_mask[i]] == vlm.card.image_token_id).any()
    assert batch.image_mask.sum() == sum(one.n_image_tokens for one in prepared)
    assert batch.text_mask.sum() == sum(one.n_text_tokens for one in prepared)


def test_pixels_are_the_official_processors(vlm, preparer, official, make):
    import io

    from PIL import Image

    samples = [make(size=(50, 40)), make(text="no image"), make(size=(20, 90))]
    batch = collate([preparer(sample) for sample in samples], vlm)
    images = [Image.open(io.BytesIO(sample.image)) for sample in samples if sample.image]
    expected = official["mistral"][1].image_processor(images, do_pad=False, return_tensors=None)
    np.testing.assert_allclose(batch.beside["pixel_values"].numpy(), np.concatenate(expected["pixel_values"]), rtol=0, atol=1e-6)
    assert batch.beside["image_sizes"].tolist() == [[50, 40], [20, 90]]


def test_texts_alone_have_no_pixels(vlm, preparer, make):
    batch = collate([preparer(make(text="a tree"))], vlm)
    assert batch.beside == {}
    assert set(batch.inputs()) == {"input_ids"}


def test_pixels_take_the_models_type(config, preparer, make):
    batch = collate([preparer(make(size=(30, 30)))], load(config, 0, dtype="bfloat16"))
    assert batch.beside["pixel_values"].dtype == torch.bfloat16


def test_read_only_arrays_are_fine(vlm, preparer, make):
    """Ray hands out arrays that must not be written to; torch warns about those, and warnings fail here."""
    one = preparer(make(size=(50, 40)))
    frozen = dataclasses.replace(one, pixels=one.pixels.copy(), input_ids=one.input_ids.copy())
    frozen.pixels.setflags(write=False)
    frozen.input_ids.setflags(write=False)
    collate([frozen], vlm)


def test_generation_refuses_padding_on_the_right(vlm, preparer, mixed):
    prepared = [preparer(sample) for sample in mixed]
    with pytest.raises(ValueError, match="padding='left'"):
        collate(prepared, vlm).prompt()
    collate(prepared[:1], vlm).prompt()


def test_empty_batch_is_refused(vlm):
    with pytest.raises(ValueError, match="empty list"):
        collate([], vlm)


def test_padding_is_never_the_image_placeholder(folder, preparer, make):
    vlm = load(ModelConfig(path=str(folder)), 0)
    vlm.processor.tokenizer.pad_token = "<image>"
    batch = collate([preparer(make(text="a tree")), preparer(make(text="a tree and a boat"))], vlm)
    assert not (batch.input_ids == vlm.card.image_token_id).any()
    assert batch.role[0, -1] == Role.TEMPLATE


def test_batch_of_a_preparer_with_other_options(config, vlm, make):
    prepared = Preparer.from_path(config, image_size=(28, 28))(make(size=(90, 40)))
    assert collate([prepared], vlm).beside["image_sizes"].tolist() == [[28, 28]]
