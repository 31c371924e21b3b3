"""What tokens share because they were chosen for it is no sharing: a latent's own direction; nor is the length of rows."""

import numpy as np
import pytest
import torch

from linrep.encoder import Latents
from linrep.sharing.latents import latent_measures, modality_scores
from linrep.sharing.weights import compare, own_directions
from tests.sharing.planted import CONFIG, fired, write_pairs

F, D, N, T = 8, 48, 160, 3
SMALL = CONFIG.model_copy(update={"min_firings": 5})


class Tied:
    """An SAE that reads along its own rows, above a threshold."""

    d_model, n_latents = D, F

    def __init__(self, encoder: torch.Tensor) -> None:
        self.encoder = encoder

    def encode(self, x):
        return (x @ self.encoder.T - 1.0).relu()


def measured(folder, common: float, long: float = 1.0):
    """Tokens are a latent's direction of length 2 or none, `common` of another direction that goes with it, and noise."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((D, 2 * F)))[0].T
    latent = rng.integers(F, size=(2, N, T))
    tokens = 2 * axes[latent] + common * axes[F + latent] + 0.3 * rng.standard_normal((2, N, T, D))
    tokens[0] *= long
    own = torch.from_numpy(axes[:F]).float()
    latents, store = Latents("tied", Tied(own), own), write_pairs(folder, tokens[0], tokens[1], tokens=T)
    pairs, found = fired(store, latents, SMALL)
    measures = latent_measures(found, compare(store, 0, pairs, found, latents), latents, pairs, SMALL)
    return found, {m.metric: m for m in measures}


def test_tokens_that_share_their_latents_direction_alone_have_no_weight_without_it(tmp_path):
    _, m = measured(tmp_path, 0.0)
    assert m["cross_modal_weight_centred"].value > 0.4
    # By hand: both lack the other latents' share in the mean, 1 / F of length 2 each, beside noise. So do those of other latents.
    lacking = (F - 1) * (2 / F) ** 2
    rest = m["cross_modal_weight_rest"]
    assert rest.low <= lacking / (lacking + 0.09 * (D - 1)) <= rest.high
    assert rest.null == pytest.approx(rest.value, abs=0.04)


def test_what_they_share_beside_it_is_found(tmp_path):
    """By hand: a common part of length 2 beside noise of .3 along 47 axes; the modality's mean takes an eighth of it away."""
    _, m = measured(tmp_path, 2.0)
    common = 4 * (1 - 1 / F)
    wanted = common / (common + 0.09 * (D - 1))
    assert m["cross_modal_weight_rest"].value == pytest.approx(wanted, abs=0.08)
    assert m["cross_modal_weight_rest"].low > 0.2


def test_longer_rows_of_a_modality_do_not_make_its_latents(tmp_path):
    """Images five times as long; without a threshold their activations would be five times as large, with one more so."""
    found, m = measured(tmp_path, 0.0, long=5.0)
    raw = found.everything.mass[0] / found.everything.mass.sum(0)
    assert float(raw.min()) > 0.8
    assert 0.5 < float(modality_scores(found.everything).mean()) < 0.8
    assert m["bimodal_mass"].value > 0.5


def test_directions_are_the_decoders_and_what_the_encoder_has_beside_it():
    decoder, encoder = torch.tensor([[2.0, 0, 0], [0, 1, 0]]), torch.tensor([[1.0, 1, 0], [0, 3, 0]])
    both = Latents("both", Tied(encoder), decoder)
    assert own_directions(both, np.array([0, 1])).tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [0, 0, 0]]]
