"""The texts that a model would say itself: those that cost it least per token, against transformers' own loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from linrep.sample import Sample
from linrep.vlm.batch import collate
from linrep.vlm.likelihood import likeliest
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role

TEXTS = ("a red boat", "the old house stands", "key", "one tree by the water", "a boat", "the the the the the the")


@pytest.fixture(scope="module")
def parts(random_vlm):
    torch.manual_seed(0)
    vlm = load(random_vlm, None)
    with torch.no_grad():  # with the weights of a random model every text costs the same
        vlm.model.lm_head.weight.mul_(40)
    prepare = Preparer.from_path(random_vlm)
    samples = [Sample(id=f"t{i}", corpus="text", modality="text", uri="u", split="test", text=t) for i, t in enumerate(TEXTS)]
    return vlm, [prepare(sample) for sample in samples]


def own_loss(vlm, one) -> float:
    batch = collate([one], vlm)
    logits = vlm.model(**batch.inputs()).logits[0].float().log_softmax(-1)
    (said,) = np.nonzero(one.role == Role.TEXT)
    said = said[said > 0]
    return float(-logits[said - 1, torch.from_numpy(one.input_ids[said]).long()].mean())


@pytest.mark.parametrize("tokens_per_batch", [1, 1000])
def test_the_texts_kept_are_those_that_cost_least_per_token(parts, tokens_per_batch) -> None:
    vlm, texts = parts
    with torch.inference_mode():
        losses = [own_loss(vlm, one) for one in texts]
    best = sorted(sorted(range(len(texts)), key=losses.__getitem__)[:3])
    assert best != [0, 1, 2]  # the first would do as well otherwise
    assert [one.sample.id for one in likeliest(vlm, texts, 3, tokens_per_batch)] == [f"t{i}" for i in best]


def test_no_more_texts_than_are_kept_are_all_kept(parts) -> None:
    vlm, texts = parts
    assert likeliest(vlm, texts[:2], 2, 1000) == texts[:2]


def test_a_sample_without_text_of_its_own_comes_last(parts) -> None:
    vlm, texts = parts
    empty = replace(texts[0], role=np.full_like(texts[0].role, Role.TEMPLATE))
    assert likeliest(vlm, [empty, *texts[1:3]], 2, 1000) == texts[1:3]
