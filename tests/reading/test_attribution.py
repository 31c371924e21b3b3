"""Attribution: the first order against finite differences, losses against passes edited by hand, controls that write as much."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from linrep.encoder import active
from linrep.reading.attribution import Attributed, attribute
from linrep.reading.read import ReadSae
from linrep.sae.controls import random_sae
from linrep.vlm.config import ModelConfig
from linrep.vlm.decode import alone, embed, logits, run
from linrep.vlm.hooks import edit_rows, record
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from tests.reading.workspace import SAMPLE


@pytest.fixture(scope="module")
def vlm(random_vlm: ModelConfig) -> VLM:
    return load(random_vlm, None)


@pytest.fixture(scope="module")
def prepared(random_vlm: ModelConfig) -> Prepared:
    found = Preparer.from_path(random_vlm, image_prompt="a <image> what is it ?")(SAMPLE)
    assert isinstance(found, Prepared)
    return found


@pytest.fixture(scope="module")
def saes(vlm: VLM) -> list[ReadSae]:
    width = vlm.card.width
    data = torch.randn(256, width, generator=torch.Generator().manual_seed(1))
    return [ReadSae(layer, f"random {layer}", random_sae(data, 48, 6)) for layer in (1, vlm.card.n_layers)]


def none_high(layer: int, h: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(h), dtype=torch.bool)


@pytest.fixture(scope="module")
def found(vlm: VLM, prepared: Prepared, saes: list[ReadSae]) -> Attributed:
    return attribute(vlm, prepared, saes, none_high, n=5)


def streams(vlm: VLM, prepared: Prepared, layer: int) -> torch.Tensor:
    with record(vlm, [layer]) as seen:
        run(vlm, *alone(embed(vlm, [prepared])[0]))
    return seen[layer][0].float().clone()


def written(vlm: VLM, prepared: Prepared, sae: ReadSae, latent: int) -> torch.Tensor:
    """What a latent writes, from the dense code."""
    h = streams(vlm, prepared, sae.layer)
    return sae.encoder.encode(h)[:, latent, None] * sae.encoder.decoder[latent]  # pyright: ignore[reportAttributeAccessIssue]


def difference(vlm: VLM, prepared: Prepared, found: Attributed, layer: int, added: torch.Tensor) -> float:
    """The difference of the logits with vectors added at a layer."""
    mask = torch.ones(1, len(prepared), dtype=torch.bool)
    with edit_rows(vlm, {layer: lambda h, _: h + added}, mask):
        _, hidden = run(vlm, *alone(embed(vlm, [prepared])[0]))
    first = logits(vlm, hidden[:, -1])[0]
    return float(first[found.answer] - first[found.against])


def test_the_answer_is_held_against_the_runner_up(vlm, prepared, found):
    _, hidden = run(vlm, *alone(embed(vlm, [prepared])[0]))
    first = logits(vlm, hidden[:, -1])[0]
    assert [found.answer, found.against] == first.topk(2).indices.tolist()
    assert found.difference == pytest.approx(float(first[found.answer] - first[found.against]), abs=1e-5)


def test_attribution_is_the_slope_of_the_difference_in_what_a_latent_writes(vlm, prepared, saes, found):
    for sae, own in zip(saes, found.saes, strict=True):
        assert (own.layer, own.sae) == (sae.layer, sae.name)
        for latent, value in zip(own.latents.tolist(), own.attribution.tolist(), strict=True):
            delta, step = written(vlm, prepared, sae, latent), 1e-2
            up, down = (difference(vlm, prepared, found, sae.layer, sign * step * delta) for sign in (1, -1))
            assert value == pytest.approx((up - down) / (2 * step), rel=0.02, abs=2e-4)


def test_the_latents_are_those_of_largest_attribution(vlm, prepared, saes, found):
    sae, own = saes[0], found.saes[0]
    h = streams(vlm, prepared, sae.layer)
    fires = active(sae.encoder, h)
    others = sorted(set(fires.latent.tolist()) - set(own.latents.tolist()))
    assert own.n_active == len(others) + len(own.latents)
    smallest = min(abs(own.attribution))
    for latent in others[:12]:
        delta = written(vlm, prepared, sae, latent)
        up, down = (difference(vlm, prepared, found, sae.layer, sign * 1e-2 * delta) for sign in (1, -1))
        assert abs(up - down) / 2e-2 <= smallest + 1e-3
    counts = {i: int((fires.latent == i).sum()) for i in own.latents.tolist()}
    assert dict(zip(own.latents.tolist(), own.n_tokens.tolist(), strict=True)) == counts


def test_losses_are_those_of_passes_edited_by_hand(vlm, prepared, saes, found):
    for sae, own in zip(saes, found.saes, strict=True):
        deltas = [written(vlm, prepared, sae, latent) for latent in own.latents.tolist()]
        for delta, loss in zip(deltas, own.loss.tolist(), strict=True):
            assert loss == pytest.approx(found.difference - difference(vlm, prepared, found, sae.layer, -delta), abs=1e-4)
        without = difference(vlm, prepared, found, sae.layer, -torch.stack(deltas).sum(0))
        assert own.together == pytest.approx(found.difference - without, abs=1e-4)
        assert abs(own.loss).max() > 1e-3


def test_after_the_last_block_the_first_order_is_nearly_all(vlm, prepared, saes):
    """Only the final norm bends there: without a latent that writes little, what is lost is what its attribution says."""
    sae = saes[1]
    weak = ReadSae(sae.layer, "weak", replace(sae.encoder, decoder=sae.encoder.decoder * 1e-3))  # pyright: ignore
    own = attribute(vlm, prepared, [weak], none_high, n=4).saes[0]
    assert own.loss == pytest.approx(own.attribution, rel=0.02, abs=1e-6)


def test_no_latent_of_a_position_of_high_norm_counts(vlm, prepared, saes):
    def all_but_last(layer: int, h: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(h)) < len(h) - 1

    own = attribute(vlm, prepared, saes[:1], all_but_last, n=4).saes[0]
    assert set(own.n_tokens.tolist()) == {1}
    none = attribute(vlm, prepared, saes[:1], lambda layer, h: torch.ones(len(h), dtype=torch.bool)).saes[0]
    assert none.n_active == len(none.latents) == 0
    assert np.isnan(none.together)
    assert np.isnan(none.together_control)


def test_controls_write_as_much_as_the_latents(vlm, prepared, saes, monkeypatch):
    from linrep.reading import attribution

    seen: list[torch.Tensor] = []
    plain = attribution._Lost.__call__

    def spy(self, deltas):
        seen.extend(deltas)
        return plain(self, deltas)

    monkeypatch.setattr(attribution._Lost, "__call__", spy)
    own = attribute(vlm, prepared, saes[:1], none_high, n=4).saes[0]
    sizes = [float(delta.norm(dim=1).sum()) for delta in seen]
    assert sizes[4:8] == pytest.approx(sizes[:4], rel=1e-4)
    assert not any(torch.equal(a, b) for a, b in zip(seen[:4], seen[4:8], strict=True))
    assert np.isfinite(own.control).all()
    again = attribute(vlm, prepared, saes[:1], none_high, n=4).saes[0]
    assert again.control.tolist() == own.control.tolist()


def test_another_word_may_be_asked_for(vlm, prepared, saes, found):
    other = attribute(vlm, prepared, saes[:1], none_high, against=3)
    assert other.answer == found.answer
    assert other.against == 3
    assert other.difference != found.difference
