"""Spliced into the model: nothing lost by a perfect SAE, everything by zeros, and no share of a harm that is not there."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from linrep.sae.splice import guarded, splice
from linrep.sample import Sample
from linrep.vlm.batch import collate
from linrep.vlm.hooks import record
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer


def pair(seed: int, text: str) -> Sample:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30 + 20 * seed, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Sample(id=f"p{seed}", corpus="pairs", modality="pair", uri="u", split="test", text=text, image=buffer.getvalue())


@pytest.fixture(scope="module")
def parts(random_vlm):
    torch.manual_seed(0)
    vlm = load(random_vlm, None)
    with torch.no_grad():  # weights so small that predictions hardly differ would make every share of harm undefined
        vlm.model.lm_head.weight.mul_(40)
    prepare = Preparer.from_path(random_vlm)
    samples = [prepare(pair(0, "a red boat lies in the harbour")), prepare(pair(1, "one tree"))]
    return vlm, [collate([samples[0]], vlm), collate([samples[1]], vlm)], collate(samples, vlm)


def identity(h: torch.Tensor) -> torch.Tensor:
    return h.clone()


SAME = {"image": identity, "text": identity}
ZERO = {"image": torch.zeros_like, "text": torch.zeros_like}


@pytest.mark.parametrize("where", ["image", "text", "both"])
def test_a_perfect_sae_recovers_everything_and_zeros_nothing(parts, where) -> None:
    vlm, batches, _ = parts
    perfect, nothing = (splice(vlm, batches, 2, coders, where) for coders in (SAME, ZERO))
    assert perfect.ce_spliced == pytest.approx(perfect.ce, abs=1e-6)
    assert perfect.kl_spliced == pytest.approx(0, abs=1e-6)
    assert nothing.ce_spliced == pytest.approx(nothing.ce_zero, abs=1e-6)
    assert nothing.kl_zero > 0.01
    assert (perfect.kl_recovered, nothing.kl_recovered) == (pytest.approx(1, abs=1e-4), pytest.approx(0, abs=1e-4))
    assert perfect.ce == nothing.ce
    if not math.isnan(perfect.ce_recovered):
        assert (perfect.ce_recovered, nothing.ce_recovered) == (pytest.approx(1, abs=1e-3), pytest.approx(0, abs=1e-3))


def test_the_loss_is_that_of_the_models_own_logits(parts) -> None:
    """Against transformers' logits, token by token, on the text alone."""
    vlm, batches, together = parts
    with torch.inference_mode():
        losses = []
        for batch in batches:
            logits = vlm.model(**batch.inputs()).logits[0].float().log_softmax(1)
            text = batch.text_mask[0].nonzero().flatten().tolist()
            losses += [-logits[t - 1, batch.input_ids[0, t]].item() for t in text]
    found = splice(vlm, batches, 1, SAME, "both")
    assert found.n_tokens == len(losses)
    assert found.ce == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert splice(vlm, [together], 1, SAME, "both").ce == pytest.approx(found.ce, rel=1e-4)  # padding changes nothing
    assert found.n_replaced == sum(int((b.image_mask | b.text_mask).sum()) for b in batches)


def test_each_modality_has_its_own_sae(parts) -> None:
    vlm, batches, _ = parts
    seen = {"image": 0, "text": 0}

    def counting(name: str):
        def coder(h: torch.Tensor) -> torch.Tensor:
            seen[name] += len(h)
            return h.clone()

        return coder

    splice(vlm, batches, 2, {name: counting(name) for name in seen}, "both")
    assert seen == {"image": sum(int(b.image_mask.sum()) for b in batches), "text": sum(int(b.text_mask.sum()) for b in batches)}


def test_a_harm_that_is_not_there_has_no_share(parts) -> None:
    """After the last block image positions no longer reach the text: zeros there cost nothing."""
    vlm, batches, _ = parts
    found = splice(vlm, batches, 4, ZERO, "image")
    assert found.ce_zero == pytest.approx(found.ce, abs=1e-6)
    assert math.isnan(found.ce_recovered)
    assert math.isnan(found.kl_recovered)
    assert math.isnan(guarded(-0.1, -0.2))
    assert guarded(0.5, 1.0) == 0.5


def test_what_cannot_be_spliced_is_said(parts, random_vlm) -> None:
    vlm, batches, _ = parts
    with pytest.raises(ValueError, match="cut after layer 2"):
        splice(load(random_vlm, 2), batches, 2, SAME, "both")
    with pytest.raises(ValueError, match="nothing to predict"):
        splice(vlm, [], 2, SAME, "both")


@pytest.mark.parametrize("where", ["image", "text", "both"])
def test_positions_of_high_norm_are_left_as_they_are(parts, where) -> None:
    vlm, batches, _ = parts
    norms = []
    for batch in batches:
        with record(vlm, [2]) as seen, torch.inference_mode():
            vlm.model(**batch.inputs())
        own = {"image": batch.image_mask, "text": batch.text_mask, "both": batch.image_mask | batch.text_mask}[where]
        norms.append(seen[2].norm(dim=-1)[own])
    limit = float(torch.cat(norms).median())
    half = splice(vlm, batches, 2, ZERO, where, {"image": limit, "text": limit})
    assert half.n_replaced == int((torch.cat(norms) <= limit).sum()) < len(torch.cat(norms))
    none = splice(vlm, batches, 2, ZERO, where, {"image": 0.0, "text": 0.0})
    assert none.n_replaced == 0
    assert none.ce_spliced == none.ce_zero == pytest.approx(none.ce, abs=1e-6)
    assert none.kl_zero == pytest.approx(0, abs=1e-6)
