"""Attention sinks among a store's tokens change no number of any stage: they are those of the same store without."""

from dataclasses import replace
from functools import reduce

import numpy as np
import polars as pl
import pytest
import torch

from linrep.cluster.given_saes import with_control
from linrep.features.study import plan_study as plan_features
from linrep.named_sae import NamedSae
from linrep.probe.config import ProbeConfig
from linrep.probe.study import Unit
from linrep.probe.study import plan_study as plan_probes
from linrep.probe.unit import gather_part, parts_of, probe_unit
from linrep.sae.architectures import Largest
from linrep.sae.sae import Sae
from linrep.sharing.artefact import rows_of
from linrep.sharing.fires import add_fired, fire_part
from linrep.sharing.grouped import parts_of as parts_of_pairs
from linrep.sharing.intervals import Measure
from linrep.sharing.study import TRAINED
from linrep.sharing.study import plan_study as plan_sharing
from linrep.sharing.weights import compare
from linrep.store import Store
from linrep.store.apart import Apart, kept_apart
from linrep.store.tables import table_of
from schemas.sharing import SHARING
from tests.features import planted as features
from tests.probe.planted import write_planted
from tests.sharing import planted as pairs
from tests.sharing.test_weights import LATENTS, D, F, T
from tests.sinks import with_sinks

APART = ["n_high_norm", "high_norm_positions"]


def both(store: Store, tmp_path) -> tuple[Store, Store]:
    own = with_sinks(store, tmp_path / "sinks")
    n = len(store.select("tokens", 0, high_norm=None))
    assert len(own.select("tokens", 0, high_norm=None)) > n  # they are there
    return store, own


def test_probes_and_their_directions(tmp_path):
    stores = both(write_planted(tmp_path / "plain", n_images=90), tmp_path)
    config = ProbeConfig(alphas=(1e-2,), shrinkages=(0.1,), sparse=(1,), curve=(), resamples=20, softmax=None)
    found = []
    for store in stores:
        study = plan_probes(store, config)
        unit = Unit("tokens", 2)
        found.append(probe_unit(study, unit, [gather_part(study, unit, part) for part in parts_of(study, unit)]))
    assert len(found[0].probes)
    plain, own = (pl.DataFrame(pl.from_arrow(one.probes)) for one in found)
    assert plain.drop(APART).equals(own.drop(APART))
    assert plain["n_high_norm"].sum() == 0
    n = {m: len(stores[1].select("tokens", 2, m, special=False, high_norm=True)) for m in ("image", "text")}
    n["both"] = n["image"] + n["text"]
    assert own["n_high_norm"].to_list() == [n[name] for name in own["tested_on"]]
    places = {"image": [1001, 1003], "text": [1001], "both": [1001, 1003]}
    assert own["high_norm_positions"].to_list() == [places[name] for name in own["tested_on"]]
    for one, other in zip(found[0].directions.entries, found[1].directions.entries, strict=True):
        assert torch.equal(one.vectors, other.vectors)
        assert one.token_norm == other.token_norm < 1000


def test_sharing_tables_say_what_is_kept_apart(tmp_path):
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((2, 60, T, D)).astype(np.float16)
    stores = both(pairs.write_pairs(tmp_path / "plain", tokens[0], tokens[1], tokens=T, chunk=16), tmp_path)
    for store, places in zip(stores, ([], [1001, 1003]), strict=True):
        study = plan_sharing(store, pairs.CONFIG)
        (row,) = rows_of(study, pairs.UNIT, "geometry", [Measure("cka", 1.0, 0.9, 1.0, None, 60)], {})
        n = {m: len(store.select("tokens", 0, m, high_norm=True)) for m in ("image", "text")}
        assert n == ({"image": 120, "text": 60} if places else {"image": 0, "text": 0})
        table = table_of([row], SHARING)
        for modality, own in (("image", places), ("text", places[:1])):
            assert table[f"n_high_norm_{modality}"].to_pylist() == [n[modality]]
            assert table[f"high_norm_positions_{modality}"].to_pylist() == [own]


def test_what_the_manifest_counted_is_what_tables_say(tmp_path):
    store = write_planted(tmp_path / "plain", n_images=6)
    counted = [
        {"layer": 2, "group": group, "n": 100, "n_high_norm": n, "high_norm_positions": places}
        for group, n, places in (("image", 5, [[3, 4], [0, 1]]), ("text", 9, [[0, 9]]), ("last_image", 1, [[7, 1]]))
    ]
    store = replace(store, manifest=replace(store.manifest, statistics=counted))
    assert kept_apart(store, "pooled", 2, ("image", "text")) == Apart(14, ((0, 10), (3, 4)))
    assert kept_apart(store, "tokens", 2, ("image",)).columns() == {"n_high_norm": 5, "high_norm_positions": [3, 0]}
    assert kept_apart(store, "last", 2, ("image", "text")) == Apart(1, ((7, 1),))
    assert kept_apart(store, "tokens", 0, ("image",)) == Apart(0)


def test_latents_shared_by_pairs_and_their_strongest_tokens(tmp_path):
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((2, 60, T, D)).astype(np.float16)
    tokens[..., :F] = rng.choice([0, 0, 0, 1, 2, 3], (2, 60, T, F))
    stores = both(pairs.write_pairs(tmp_path / "plain", tokens[0], tokens[1], tokens=T, chunk=16), tmp_path)
    found = []
    for store in stores:
        known = plan_sharing(store, pairs.CONFIG).pairs[TRAINED]
        sums = reduce(
            add_fired, (fire_part(store, known, part, LATENTS, pairs.CONFIG) for part in parts_of_pairs(store, "tokens", 0))
        )
        found.append((sums.everything, compare(store, 0, known, sums, LATENTS)))
    (plain, weights), (own, others) = found
    for name in plain.__dataclass_fields__:
        assert torch.equal(getattr(plain, name), getattr(own, name)), name
    assert float(plain.mass.sum()) > 0
    for one, other in zip(weights, others, strict=True):
        assert torch.equal(one.pair, other.pair)
        assert torch.equal(one.cosines, other.cosines)
        assert one.others == other.others


@pytest.mark.parametrize("coordinate", [0, 3])
def test_features_their_examples_and_labels(tmp_path, coordinate):
    f = 8
    images, texts = features.draw(40, f, 1), features.draw(40, f, 2)
    plain = features.write_store(tmp_path / "plain", images, texts, np.arange(40) % 4)
    tables = []
    for i, store in enumerate((plain, with_sinks(plain, tmp_path / "sinks", coordinate))):
        study = plan_features(store, features.CONFIG, latents=features.identity(f))
        found = features.found_plainly(tmp_path / f"w{i}", study)
        tables.append([pl.DataFrame(pl.from_arrow(found.table(name))) for name in ("features", "labels")])
        tables[-1].append(pl.DataFrame(pl.from_arrow(found.examples("own", 0, f))))
    for one, other in zip(*tables, strict=True):
        assert len(one)
        assert one.equals(other)


def test_controls_of_random_directions(tmp_path):
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((2, 60, 4, 10)).astype(np.float16)
    stores = both(pairs.write_pairs(tmp_path / "plain", tokens[0], tokens[1], tokens=4), tmp_path)
    w = torch.randn(12, 10, generator=torch.Generator().manual_seed(0))
    sae = Sae(w, torch.zeros(12), w, torch.zeros(10), Largest(3), False)
    controls = [with_control(NamedSae(path="x", layer=0), sae, store, 0)[1] for store in stores]
    for modality in ("image", "text"):
        one, other = (control.of(modality) for control in controls)
        assert isinstance(one, Sae)
        assert isinstance(other, Sae)
        assert torch.equal(one.decoder, other.decoder)
        assert torch.equal(one.b_dec, other.b_dec)


def test_a_control_says_nothing_of_where_a_modality_lies(tmp_path):
    """About one mean of both, the distance between the modalities decides which directions are active on texts."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((2, 60, 4, 10)).astype(np.float32)
    far = tokens[1] + 20 * np.eye(10, dtype=np.float32)[3]
    stores = [pairs.write_pairs(tmp_path / name, tokens[0], own, tokens=4) for name, own in (("near", tokens[1]), ("far", far))]
    w = torch.randn(12, 10, generator=torch.Generator().manual_seed(0))
    sae = Sae(w, torch.zeros(12), w, torch.zeros(10), Largest(3), False)
    near, moved = (with_control(NamedSae(path="x", layer=0), sae, store, 0)[1] for store in stores)
    texts, gone = (torch.from_numpy(own.reshape(-1, 10)) for own in (tokens[1], far))
    assert torch.allclose(near.of("text").encode(texts), moved.of("text").encode(gone), atol=2e-2)
    images = torch.from_numpy(tokens[0].reshape(-1, 10))
    assert torch.equal(near.of("image").encode(images), moved.of("image").encode(images))
    assert torch.equal(near.decoder, moved.decoder)
