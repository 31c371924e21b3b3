"""What a model says of images in the place of their captions: its likeliest tokens, and its own to predict."""

import numpy as np
import pytest
import torch

from linrep.sample import Sample
from linrep.vlm.batch import collate
from linrep.vlm.likelihood import cross_entropy, log_probabilities, predicting
from linrep.vlm.load import load
from linrep.vlm.own_words import in_own_words
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from tests.conftest import encoded_image


@pytest.fixture(scope="module")
def parts(random_vlm):
    torch.manual_seed(0)
    vlm = load(random_vlm, None)
    with torch.no_grad():
        vlm.model.lm_head.weight.mul_(40)
    prepare = Preparer.from_path(random_vlm, pair_prompt="look : <image> it is {text} .")
    texts = ("a red boat", "one tree by the water", "key")
    samples = [
        Sample(id=f"p{i}", corpus="pairs", modality="pair", uri="u", split="test", text=text, image=encoded_image(i))
        for i, text in enumerate(texts)
    ]
    return vlm, [prepare(sample) for sample in samples], prepare


@pytest.mark.parametrize("tokens_per_batch", [1, 2000])
def test_every_word_is_the_likeliest_after_those_before_it(parts, tokens_per_batch) -> None:
    vlm, captions, _ = parts
    said = in_own_words(vlm, captions, 5, tokens_per_batch)
    assert [one.sample.id for one in said] == [one.sample.id for one in captions]
    for one, caption in zip(said, captions, strict=True):
        (text,) = np.nonzero(one.role == Role.TEXT)
        begin = int(np.flatnonzero(caption.role == Role.TEXT)[0])
        assert text.tolist() == list(range(begin, len(one)))
        assert (one.input_ids[:begin] == caption.input_ids[:begin]).all()
        assert one.n_image_tokens == caption.n_image_tokens
        with torch.inference_mode():
            likeliest = vlm.model(**collate([one], vlm).inputs()).logits[0].argmax(1)
        assert likeliest[text - 1].tolist() == one.input_ids[text].tolist()
        assert one.sample.text != caption.sample.text


def test_own_words_cost_a_model_less_than_others_do(parts) -> None:
    vlm, captions, _ = parts

    def nats(some) -> float:
        batch = collate(some, vlm)
        rows, columns = predicting(batch)
        with torch.inference_mode():
            losses = cross_entropy(log_probabilities(vlm, batch, rows, columns), batch.input_ids[rows, columns + 1])
        return float(losses.mean())

    assert nats(in_own_words(vlm, captions, 5, 2000)) < nats(captions) - 0.5


def test_a_text_without_an_image_is_refused(parts) -> None:
    vlm, _, prepare = parts
    text = prepare(Sample(id="t", corpus="text", modality="text", uri="u", split="test", text="a red boat"))
    with pytest.raises(ValueError, match="t: a model describes an image"):
        in_own_words(vlm, [text], 5, 2000)
