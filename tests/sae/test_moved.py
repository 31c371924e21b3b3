"""How far decoder rows are from their start: by hand, for every architecture, and after any number of interruptions."""

import math
from dataclasses import replace

import pytest
import torch

from linrep.sae.config import Adam, Archetypal, Gated, JumpReLU, Matryoshka, ReLU, SaeDesign, TopK
from linrep.sae.evaluate import evaluate, latents_of_energy
from linrep.sae.moved import moved
from linrep.sae.sae import Sae
from linrep.sae.start import first_directions, unit_rows
from linrep.sae.train import Rows, Trainer
from tests.sae.reference import planted
from tests.sae.saes import D, F, inputs, make_sae

X = planted(4000, D, 30, 3)[0]


def trained(config: SaeDesign, steps: int, height: int = 200) -> Sae:
    trainer = Trainer.begin(config, X[:500], height)
    for i in range(steps):
        trainer.take(Rows(X[i * 20 :][:20], torch.zeros(20, dtype=torch.bool)))
    return replace(trainer.sae(), about={"config": config.model_dump(mode="json")})


@pytest.mark.parametrize("activation", [ReLU(), TopK(k=3), Matryoshka(k=3), JumpReLU(), Gated()], ids=lambda a: a.kind)
def test_an_untrained_sae_has_not_moved(activation) -> None:
    config = SaeDesign(activation=activation, expansion=4, seed=7)
    found = moved(trained(config, 0), torch.ones(4 * D))
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1), abs=1e-6)
    assert abs(found.other) < 0.15
    assert torch.equal(first_directions(config, D), unit_rows(4 * D, D, 7))  # type: ignore[arg-type]


def test_cosines_are_those_of_living_rows_by_hand() -> None:
    config = SaeDesign(activation=TopK(k=2), expansion=2, seed=3)
    first = unit_rows(2 * D, D, 3)
    decoder = first.clone()
    decoder[0] *= -5  # its cosine is -1, whatever its length
    decoder[1] = 0
    rates = torch.ones(2 * D)
    rates[1] = 0  # never fires: not counted
    sae = Sae(decoder, torch.zeros(2 * D), decoder, torch.zeros(D), make_sae("topk").rule, True, {"config": config.model_dump()})
    found = moved(sae, rates)
    assert found is not None
    assert found.mean == pytest.approx((2 * D - 1 - 2) / (2 * D - 1), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((1, 1), abs=1e-6)


def test_training_moves_rows_and_a_small_rate_hardly_does() -> None:
    lazy, busy = (SaeDesign(activation=TopK(k=3), expansion=4, adam=Adam(learning_rate=rate)) for rate in (1e-4, 3e-2))
    near, far = (moved(trained(config, 200), torch.ones(4 * D)) for config in (lazy, busy))
    assert near is not None
    assert far is not None
    assert near.mean > 0.95
    assert far.mean < 0.75


def test_an_interrupted_run_has_moved_as_far() -> None:
    config = SaeDesign(activation=TopK(k=3), expansion=4, adam=Adam(learning_rate=1e-2))
    whole, trainer = trained(config, 60, 60), Trainer.begin(config, X[:500], 60)
    for i in range(60):
        if i == 25:  # as after a kill: begun with a row of zeros, then loaded
            state = torch.load(saved(trainer), weights_only=True)
            trainer = Trainer.begin(config, torch.zeros(1, D), 60)
            trainer.load_state_dict(state)
        trainer.take(Rows(X[i * 20 :][:20], torch.zeros(20, dtype=torch.bool)))
    again = replace(trainer.sae(), about=whole.about)
    assert moved(again, torch.ones(4 * D)) == moved(whole, torch.ones(4 * D))


def saved(trainer: Trainer):
    import io

    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    buffer.seek(0)
    return buffer


def test_where_the_start_is_not_known_nothing_is_said() -> None:
    archetypal = SaeDesign(activation=Archetypal(k=3, points=20), expansion=4)
    assert moved(trained(archetypal, 0), torch.ones(4 * D)) is None  # its rows begin as mixtures of data
    assert moved(make_sae("topk"), torch.ones(F)) is None
    assert moved(replace(make_sae("topk"), about={"config": {"trainer": "another library's"}}), torch.ones(F)) is None
    config = SaeDesign(activation=TopK(k=3), expansion=4)
    assert moved(trained(config, 0), torch.zeros(4 * D)) is None


def test_the_energy_of_a_latent_is_what_it_writes() -> None:
    """Two latents of activation 3 and 4 whose rows have lengths 2 and 1: 36 and 16 of 52, so that half is the first's."""
    decoder = torch.zeros(2, D)
    decoder[0, 0], decoder[1, 1] = 2.0, 1.0
    encoder = torch.nn.functional.normalize(decoder, dim=1)
    sae = Sae(encoder, torch.zeros(2), decoder, torch.zeros(D), make_sae("relu").rule, False)
    x = torch.zeros(1, D)
    x[0, 0], x[0, 1] = 3.0, 4.0
    for pieces in (1, 3):
        found = evaluate(sae, [Rows(x, torch.tensor([False]))] * pieces)
        assert found.energy["image"].tolist() == [36.0 * pieces, 16.0 * pieces]
        assert found.quality["image"].latents_of_energy == (1, 2, 2)
    assert all(math.isnan(n) for n in latents_of_energy(torch.zeros(5)))
    both = evaluate(make_sae("topk"), [Rows(inputs(), torch.arange(50) % 2 == 0)]).energy
    torch.testing.assert_close(both["both"], both["image"] + both["text"])
