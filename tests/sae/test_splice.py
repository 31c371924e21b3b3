"""Spliced into the model: a perfect SAE loses nothing, other samples' tokens are theirs, no share of a harm that is not there."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from linrep.sae.splice import REPLACED_BY, guarded, other_samples, splice, splice_each
from linrep.sample import Sample
from linrep.vlm.batch import collate
from linrep.vlm.hooks import edit, record
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared, Role

TEXTS = ("a red boat lies in the harbour", "one tree", "two old trees", "a red boat lies in the harbour")


def pair(seed: int, text: str, width: int | None = None) -> Sample:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, width or 30 + 20 * seed, 3), np.uint8)
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
    return vlm, [prepare(pair(0, TEXTS[0])), prepare(pair(1, TEXTS[1]))]


@pytest.fixture(scope="module")
def alike(random_vlm):
    """Images of one size: any one's tokens fit in the place of any other's."""
    prepare = Preparer.from_path(random_vlm)
    return [prepare(pair(seed, text, 40)) for seed, text in enumerate(TEXTS)]


def identity(h: torch.Tensor) -> torch.Tensor:
    return h.clone()


SAME = {"image": identity, "text": identity}
ZERO = {"image": torch.zeros_like, "text": torch.zeros_like}


@pytest.mark.parametrize("where", ["image", "text", "both"])
def test_a_perfect_sae_costs_nothing_and_zeros_are_the_zero_ablation(parts, where) -> None:
    vlm, texts = parts
    perfect, nothing = (splice(vlm, texts, 2, saes, where) for saes in (SAME, ZERO))
    assert perfect.ce_spliced.value == pytest.approx(perfect.ce.value, abs=1e-6)
    assert perfect.kl_spliced.value == pytest.approx(0, abs=1e-6)
    assert perfect.kl_recovered.value == pytest.approx(1, abs=1e-4)
    for loss in ("ce", "kl"):
        assert getattr(nothing, f"{loss}_spliced") == getattr(nothing, f"{loss}_zero")
    assert nothing.kl_zero.value > 0.01
    assert perfect.ce == nothing.ce
    assert nothing.kl_spliced.low <= nothing.kl_spliced.value <= nothing.kl_spliced.high


def test_the_loss_is_that_of_the_models_own_logits(parts) -> None:
    """Against transformers' logits, token by token, on the text alone."""
    vlm, texts = parts
    batches = [collate([one], vlm) for one in texts]
    with torch.inference_mode():
        losses = []
        for batch in batches:
            logits = vlm.model(**batch.inputs()).logits[0].float().log_softmax(1)
            text = batch.text_mask[0].nonzero().flatten().tolist()
            losses += [-logits[t - 1, batch.input_ids[0, t]].item() for t in text]
    found = splice(vlm, texts, 1, SAME, "both")
    assert found.n_tokens == len(losses)
    assert found.ce.value == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    alone = splice_each(vlm, texts, 1, {"": SAME}, ("both",), {}, tokens_per_batch=1)["", "both"].spliced()
    assert alone.ce.value == pytest.approx(found.ce.value, rel=1e-4)  # padding changes nothing
    assert alone.kl_resample.value == pytest.approx(found.kl_resample.value, rel=1e-3)
    assert found.n_replaced == sum(int((b.image_mask | b.text_mask).sum()) for b in batches)


def test_each_modality_has_its_own_sae(parts) -> None:
    vlm, texts = parts
    seen = {"image": 0, "text": 0}

    def counting(name: str):
        def sae(h: torch.Tensor) -> torch.Tensor:
            seen[name] += len(h)
            return h.clone()

        return sae

    splice(vlm, texts, 2, {name: counting(name) for name in seen}, "both")
    assert seen == {"image": sum(one.n_image_tokens for one in texts), "text": sum(one.n_text_tokens for one in texts)}


def kl_to(vlm, one: Prepared, changed: torch.Tensor) -> torch.Tensor:
    """Nats at each token of a sample's text, by transformers' logits, to predictions of the same shape."""
    plain = text_logits(vlm, one)
    return (plain.exp() * (plain - changed)).sum(1)


def text_logits(vlm, one: Prepared) -> torch.Tensor:
    (text,) = np.nonzero(one.role == Role.TEXT)
    with torch.inference_mode():
        return vlm.model(**collate([one], vlm).inputs()).logits[0].float().log_softmax(1)[text - 1]


def test_another_images_tokens_are_the_models_run_on_that_image(alike, parts) -> None:
    """At layer 0 no text has read the image yet: the other image's tokens there are the other image under the own caption."""
    vlm, _ = parts
    others = other_samples(alike, "image", 0)
    expected, n = 0.0, 0
    for one, other in zip(alike, others, strict=True):
        swapped = replace(one, pixels=alike[other].pixels, sizes=alike[other].sizes)
        nats = kl_to(vlm, one, text_logits(vlm, swapped))
        expected, n = expected + float(nats.sum()), n + len(nats)
    found = splice(vlm, alike, 0, SAME, "image")
    assert found.n_tokens == n
    assert expected / n > 0.01
    assert found.kl_resample.value == pytest.approx(expected / n, rel=1e-3)


def test_another_samples_tokens_are_its_stream_at_the_layer(alike, parts) -> None:
    """Deeper in the model: the stream of the other sample, recorded, put at the positions of the own one."""
    vlm, _ = parts
    others = other_samples(alike, "image", 3)
    expected, n = 0.0, 0
    for one, other in zip(alike, others, strict=True):
        batch, donor = collate([one], vlm), collate([alike[other]], vlm)
        with record(vlm, [2]) as seen, torch.inference_mode():
            vlm.model(**donor.inputs())
        tokens = seen[2][0][donor.image_mask[0]]
        with edit(vlm, {2: lambda h, tokens=tokens: tokens}, batch.image_mask):
            changed = text_logits(vlm, one)
        nats = kl_to(vlm, one, changed)
        expected, n = expected + float(nats.sum()), n + len(nats)
    found = splice_each(vlm, alike, 2, {"": SAME}, ("image",), {}, seed=3)["", "image"].spliced()
    assert found.kl_resample.value == pytest.approx(expected / n, rel=1e-3)


def test_the_other_sample_has_other_content_and_the_same_length_where_there_is_one(alike, parts) -> None:
    _, texts = parts
    images, captions = (other_samples(alike, name, 0) for name in ("image", "text"))
    assert all(other != i for i, other in enumerate(images))
    assert TEXTS[0] == TEXTS[3]
    assert {captions[0], captions[3]} <= {1, 2}  # never the same words under another image
    assert alike[1].n_text_tokens != alike[0].n_text_tokens
    longer = [*alike, replace(alike[1], sample=replace(alike[1].sample, id="q"), input_ids=alike[1].input_ids.copy())]
    (text,) = np.nonzero(longer[4].role == Role.TEXT)
    longer[4].input_ids[text[0]] += 1
    assert other_samples(longer, "text", 0)[1] == 4  # as many tokens, and other ones
    assert other_samples(texts[:1], "image", 0) == [None]
    assert [other_samples(alike, "image", seed) for seed in range(9)] != [images] * 9


def test_resampling_itself_recovers_nothing(alike, parts) -> None:
    """An SAE that writes the tokens that resampling puts there: exactly 0 of what that costs is recovered."""
    vlm, _ = parts
    two = alike[:2]
    with record(vlm, [2]) as seen, torch.inference_mode():
        batch = collate(two, vlm)
        vlm.model(**batch.inputs())
    swapped = torch.cat([seen[2][i][batch.image_mask[i]] for i in (1, 0)])
    # Longest first, as micro-batches are packed.
    assert len(two[0]) >= len(two[1])
    found = splice(vlm, two, 2, {"image": lambda h: swapped, "text": identity}, "image")
    assert found.kl_spliced.value == pytest.approx(found.kl_resample.value, rel=1e-4)
    assert found.kl_recovered.value == pytest.approx(0, abs=1e-4)
    assert found.ce_recovered.value == pytest.approx(0, abs=1e-3) or math.isnan(found.ce_recovered.value)


def test_the_mean_ablation_puts_the_given_mean_there(alike, parts) -> None:
    vlm, _ = parts
    mean = torch.linspace(-1, 1, 32)
    saes = dict.fromkeys(("image", "text"), lambda h: mean.expand_as(h))
    found = splice(vlm, alike, 2, saes, "both", {"image": mean, "text": mean})
    assert found.kl_mean == found.kl_spliced
    assert found.kl_mean.value > 0
    without = splice(vlm, alike, 2, saes, "both", {"image": mean})
    assert math.isnan(without.kl_mean.value)
    assert without.kl_spliced == found.kl_spliced


def test_a_harm_that_is_not_there_has_no_share(parts) -> None:
    """After the last block image positions no longer reach the text: whatever stands there costs nothing."""
    vlm, texts = parts
    found = splice(vlm, texts, 4, ZERO, "image")
    for by in REPLACED_BY:
        assert getattr(found, f"kl_{by}").value == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.ce_recovered.value)
    assert math.isnan(found.kl_recovered.value)
    assert math.isnan(guarded(-0.1, -0.2))
    assert guarded(0.5, 1.0) == 0.5


def test_a_lone_sample_has_no_other_ones_tokens(parts) -> None:
    vlm, texts = parts
    found = splice(vlm, texts[:1], 2, ZERO, "image")
    assert math.isnan(found.kl_resample.value)
    assert math.isnan(found.kl_recovered.value)
    assert found.kl_spliced.value == found.kl_zero.value > 0


def test_what_cannot_be_spliced_is_said(parts, random_vlm) -> None:
    vlm, texts = parts
    with pytest.raises(ValueError, match="cut after layer 2"):
        splice(load(random_vlm, 2), texts, 2, SAME, "both")
    with pytest.raises(ValueError, match="nothing to predict"):
        splice(vlm, [], 2, SAME, "both")


@pytest.mark.parametrize("where", ["image", "text", "both"])
def test_positions_of_high_norm_are_left_as_they_are(parts, where) -> None:
    vlm, texts = parts
    norms = []
    for one in texts:
        batch = collate([one], vlm)
        with record(vlm, [2]) as seen, torch.inference_mode():
            vlm.model(**batch.inputs())
        own = {"image": batch.image_mask, "text": batch.text_mask, "both": batch.image_mask | batch.text_mask}[where]
        norms.append(seen[2].norm(dim=-1)[own])
    limit = 1.0001 * float(torch.cat(norms).median())
    half = splice(vlm, texts, 2, ZERO, where, limits={"image": limit, "text": limit})
    assert half.n_replaced == int((torch.cat(norms) <= limit).sum()) < len(torch.cat(norms))
    none = splice(vlm, texts, 2, ZERO, where, limits={"image": 0.0, "text": 0.0})
    assert none.n_replaced == 0
    assert none.ce_spliced.value == none.ce_zero.value == pytest.approx(none.ce.value, abs=1e-6)
    assert none.kl_zero.value == pytest.approx(0, abs=1e-6)
