"""Means of an SAE's latents over single training tokens, against a plain loop over the store's rows."""

from dataclasses import replace

import pytest
import torch

from linrep.errors import RecipeError
from linrep.sample import unit_hash
from linrep.steer import token_latents
from linrep.steer.config import SteerConfig, SteerSae
from linrep.steer.plan import check_latent_views, latent_views
from linrep.steer.token_latents import read_token_latents
from linrep.store import Store
from tests.probe.planted import AXES, CLASSES, TOKENS, D, write_planted


class Axes:
    """A latent for each planted class, above what lies in every vector, and one that is dead."""

    d_model, n_latents = D, 4
    decoder = torch.cat([torch.from_numpy(AXES[:3]).float(), torch.zeros(1, D)])

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.decoder.T - 1.0).clamp(min=0)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.decoder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_planted(tmp_path_factory.mktemp("planted"))


@pytest.mark.parametrize("most", [5, 10_000])
def test_means_and_rates_are_those_of_a_plain_loop(store, most, monkeypatch):
    monkeypatch.setattr(token_latents, "IMAGES", most)
    found = read_token_latents(store, Axes(), 2, "tokens", (*CLASSES, "absent"))
    assert found.names == CLASSES
    rows = store.select("tokens", 2, "image").table().to_pylist()
    train = {
        s["sample_id"]: s["class_name"] for s in store.samples().to_pylist() if s["modality"] == "image" and s["split"] == "train"
    }
    own = {n: sorted((i for i, c in train.items() if c == n), key=lambda i: unit_hash(i, "latents"))[:most] for n in CLASSES}
    fired, n_rows = torch.zeros(4), 0
    for c, name in enumerate(CLASSES):
        kept = [r for r in rows if r["sample_id"] in own[name] and not r["is_special"] and not r["is_newline"]]
        assert len(kept) == TOKENS * min(most, len(own[name]))
        z = Axes().encode(torch.stack([torch.frombuffer(bytearray(r["vector"]), dtype=torch.float16).float() for r in kept]))
        torch.testing.assert_close(found.mean(name), z.mean(0), atol=1e-4, rtol=1e-4)
        assert int(found.mean(name).argmax()) == c
        fired, n_rows = fired + (z > 0).sum(0), n_rows + len(z)
    torch.testing.assert_close(found.rates, fired / n_rows)
    assert found.rates[3] == 0


def test_a_store_without_single_tokens_is_refused_where_latents_are_chosen(tmp_path):
    store = write_planted(tmp_path, n_images=24)
    sae = SteerSae(sae="some", layer=2)
    config = SteerConfig(sae=sae, directions=("class_mean", "sae_latent"))
    assert latent_views(config) == ("tokens", "last")
    assert latent_views(SteerConfig(sae=sae, directions=("class_mean", "sae_sparse"))) == ()
    assert latent_views(SteerConfig()) == ()
    check_latent_views(config, store)
    less = replace(store, manifest=replace(store.manifest, views=("pooled", "last")))
    with pytest.raises(RecipeError, match=r"no view .tokens.: harvest it with harvest\.views, or leave sae_latent and clamp out"):
        check_latent_views(config, less)
