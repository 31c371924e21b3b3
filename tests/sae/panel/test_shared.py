"""Shared latents taken away: planted worlds whose answers are in shared latents, or in those of one modality alone."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from linrep.encoder import Active
from linrep.sae.panel.shared import (
    EVERY,
    IMAGE_ONLY,
    RANDOM,
    SHARED,
    SHARES,
    TEXT_ONLY,
    Asked,
    ModalityCodes,
    damage,
    draw_set,
    draw_sets,
    pools,
    whole_sets,
)

CLASSES, NUISANCES, TOKENS = 8, 40, 6
D = 3 * CLASSES + 3 * NUISANCES
GROUPS = {SHARED: 0, IMAGE_ONLY: 1, TEXT_ONLY: 2}
OWN = {"image": IMAGE_ONLY, "text": TEXT_ONLY}


@dataclass(frozen=True)
class Exact:
    """Latents at right angles, each of them read exactly."""

    decoder: Tensor

    @property
    def d_model(self) -> int:
        return self.decoder.shape[1]

    @property
    def n_latents(self) -> int:
        return len(self.decoder)

    def encode(self, x: Tensor) -> Tensor:
        return (x @ self.decoder.T).relu() * ((x @ self.decoder.T) > 1e-4)


SAE = Exact(torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0)))[0])


def classes_of(group: str) -> Tensor:
    """Latents that stand for the classes: shared, or of one modality alone."""
    return GROUPS[group] * CLASSES + torch.arange(CLASSES)


def world(modality: str, answers_in: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens of n samples of a modality and their classes. All tokens have nuisances, shared and of the modality alone.

    Texts are ten times longer: shares of raw activations would call every shared latent a text's.
    """
    draw = torch.Generator().manual_seed(seed)
    of_class = torch.randint(CLASSES, (n,), generator=draw)
    z = torch.zeros(n * TOKENS, D)
    rows, group = torch.arange(n * TOKENS), answers_in if answers_in == SHARED else OWN[modality]
    z[rows, classes_of(group)[of_class.repeat_interleave(TOKENS)]] = 1 + torch.rand(n * TOKENS, generator=draw)
    # Classes are in one group, so that the nuisances of the other need as much energy.
    nuisances = {SHARED: 0, IMAGE_ONLY: 1, TEXT_ONLY: 2}
    for own in (SHARED, OWN[modality]):
        first = 3 * CLASSES + nuisances[own] * NUISANCES
        if own != group:
            z[rows, first + torch.randint(NUISANCES, (n * TOKENS,), generator=draw)] = 1.5
    return z @ SAE.decoder * (10 if modality == "text" else 1), of_class


def asked(modality: str, answers_in: str, seed: int, n: int = 80) -> Asked:
    """A linear model in the place of a real one: it reads the class off the mean token."""
    x, of_class = world(modality, answers_in, n, seed)
    owner = torch.arange(n).repeat_interleave(TOKENS)
    readout = SAE.decoder[classes_of(answers_in if answers_in == SHARED else OWN[modality])] / (10 if modality == "text" else 1)

    def answer(taken: Tensor | None) -> Tensor:
        rest = x if taken is None else x - taken
        mean = torch.zeros(n, D).index_add_(0, owner, rest) / TOKENS
        return (6 * mean @ readout.T).log_softmax(1)

    return Asked(x, owner, tuple(f"{modality}{i}" for i in range(n)), of_class, answer)


def codes_of(answers_in: str) -> dict[str, ModalityCodes]:
    return {m: ModalityCodes.of(SAE, SAE.decoder, world(m, answers_in, 1000, i)[0]) for i, m in enumerate(("image", "text"))}


def lost(site: str, answers_in: str, share: float = 1.0):
    codes = codes_of(answers_in)
    sets = {**draw_sets(codes, site, share, 5), **whole_sets(codes, site)}
    return damage([asked(site, answers_in, 77)], SAE, SAE.decoder, sets, 200)


@pytest.mark.parametrize("site", ["image", "text"])
def test_where_shared_latents_carry_the_answer_only_they_damage_it_in_both_modalities(site) -> None:
    found = lost(site, SHARED)
    kl = {name: own.interval() for name, own in found["kl"].items()}
    assert kl[SHARED].low > 1
    assert kl[OWN[site]].high < 1e-5
    assert found["kl"][SHARED].less(found["kl"][RANDOM]).low > 0.2
    other = IMAGE_ONLY if site == "text" else TEXT_ONLY
    assert other not in kl or kl[other].high < 1e-5
    assert found["right"][SHARED].interval().high < 0.8
    assert found["right"][OWN[site]].interval().value == found["same"][OWN[site]].interval().value == 1
    assert found["kl"][EVERY].interval().value >= kl[SHARED].value - 1e-6
    assert found["energy"][EVERY].interval().value == pytest.approx(1)


@pytest.mark.parametrize("site", ["image", "text"])
def test_where_private_latents_carry_the_answer_they_damage_it_in_their_own_modality_alone(site) -> None:
    found = lost(site, "private")
    assert found["kl"][OWN[site]].interval().low > 1
    assert found["kl"][SHARED].interval().high < 1e-5
    assert found["kl"][OWN[site]].less(found["kl"][SHARED]).low > 1


@pytest.mark.parametrize("share", SHARES)
def test_sets_write_equally_much_on_training_and_on_other_tokens(share) -> None:
    codes = codes_of(SHARED)
    sets = draw_sets(codes, "image", share, 4)
    wanted = share * min(draw_set(codes["image"], pools(codes)[name], math.inf, 0).energy for name in (SHARED, IMAGE_ONLY))
    for own in sets.values():
        assert [one.energy for one in own] == pytest.approx([wanted] * 4, rel=1e-4)
    found = damage([asked("image", SHARED, 77)], SAE, SAE.decoder, sets, 50)["energy"]
    values = [found[name].interval().value for name in (SHARED, IMAGE_ONLY, RANDOM)]
    assert max(values) - min(values) < 0.1 * max(values)


def test_the_energy_of_a_set_is_that_of_what_it_writes_together() -> None:
    """Decoder rows at any angles: against dense products, latents that cancel each other included."""
    draw = torch.Generator().manual_seed(3)
    decoder, z = torch.randn(30, 6, generator=draw), torch.rand(200, 30, generator=draw)
    z[z < 0.6] = 0
    row, latent = z.nonzero(as_tuple=True)
    codes = ModalityCodes(Active(row, latent, z[row, latent]), 200, 1.0, decoder)
    pool = np.arange(5, 30)
    whole = draw_set(codes, pool, math.inf, 0)
    assert whole.energy == pytest.approx(float((z[:, 5:] @ decoder[5:]).square().sum(1).mean()), rel=1e-4)
    assert whole.size == 25
    for seed in range(6):
        own = draw_set(codes, pool, 0.3 * whole.energy, seed)
        written = (z * own.weights) @ decoder
        assert float(written.square().sum(1).mean()) == pytest.approx(0.3 * whole.energy, rel=1e-4)
        assert own.energy == pytest.approx(0.3 * whole.energy, rel=1e-4)
        assert int(((own.weights > 0) & (own.weights < 1)).sum()) <= 1
        assert not own.weights[:5].any()
    assert not torch.equal(
        draw_set(codes, pool, 0.3 * whole.energy, 0).weights, draw_set(codes, pool, 0.3 * whole.energy, 1).weights
    )


def test_modality_scores_are_in_units_of_each_modalitys_norm() -> None:
    """A latent that writes a tenth of a token's norm in either modality is shared, however long the tokens are."""
    codes = codes_of(SHARED)
    own = pools(codes)
    image, text = (codes[m].mass for m in ("image", "text"))
    assert text[0] == pytest.approx(float(image[0]), rel=0.2)
    assert set(classes_of(SHARED).tolist()) <= set(own[SHARED].tolist())
    assert set(own[IMAGE_ONLY].tolist()) == set(range(3 * CLASSES + NUISANCES, 3 * CLASSES + 2 * NUISANCES)) & set(
        own[RANDOM].tolist()
    )
    assert not set(own[SHARED].tolist()) & (set(own[IMAGE_ONLY].tolist()) | set(own[TEXT_ONLY].tolist()))


def test_a_sample_counts_once_and_only_answers_that_were_right_can_stay_so() -> None:
    one = asked("image", SHARED, 5, 20)
    unknown = torch.full_like(one.right, -1)
    sets = draw_sets(codes_of(SHARED), "image", 1.0, 2)
    once, twice = (damage([one] * n, SAE, SAE.decoder, sets, 50) for n in (1, 2))
    for measure in ("kl", "same", "right", "energy"):
        assert twice[measure][SHARED].values == pytest.approx(once[measure][SHARED].values)
        assert twice[measure][SHARED].draws == pytest.approx(once[measure][SHARED].draws)
    silent = damage([Asked(one.x, one.owner, one.sample, unknown, one.answer)], SAE, SAE.decoder, sets, 50)
    assert np.isnan(silent["right"][SHARED].values).all()
    assert silent["kl"][SHARED].values == pytest.approx(once["kl"][SHARED].values)
    with pytest.raises(ValueError, match="no sample"):
        damage([], SAE, SAE.decoder, sets, 50)


def test_without_shared_latents_there_is_nothing_to_compare() -> None:
    codes = codes_of(SHARED)
    silent = ModalityCodes(
        Active(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0)), 10, 1.0, SAE.decoder
    )
    with pytest.raises(ValueError, match="is shared"):
        draw_sets({"image": codes["image"], "text": silent}, "image", 1.0, 2)
