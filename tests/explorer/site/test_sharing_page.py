"""The page of sharing: every measure that the stage takes has words, and what is said of a curve is in its rows."""

import numpy as np
import polars as pl
import torch

from linrep.encoder import Latents
from linrep.explorer.site.shards import Site
from linrep.explorer.site.sharing import readings, spread_of, write_sharing
from linrep.explorer.site.sharing_measures import described, measure_of
from linrep.places import place
from linrep.sharing.artefact import SHARING_KIND, SharingAbout
from linrep.sharing.concepts import concepts
from linrep.sharing.geometry import from_sums
from linrep.sharing.latents import latent_measures
from linrep.sharing.rows import from_rows
from linrep.sharing.trends import trends
from linrep.sharing.weights import compare
from linrep.store.tables import table_of
from schemas.sharing import SHARING_TRENDS
from tests.explorer.site.planted import HARVEST, column, results, same, shard, written
from tests.sharing.planted import CONFIG, fired, in_memory, write_pairs

SMALL = CONFIG.model_copy(update={"min_firings": 1})


class Rectified:
    """An SAE whose latents are the coordinates, active above zero."""

    d_model = n_latents = 6

    def encode(self, x):
        return x.relu()


def test_every_measure_that_the_stage_takes_has_words(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6))
    pairs, sums = in_memory(x, x + rng.normal(size=x.shape), rng.integers(0, 4, 120), CONFIG)
    taken = [*from_sums(sums, CONFIG), *from_rows(sums, pairs, CONFIG), *concepts(sums, pairs, CONFIG)]
    latents = Latents("rectified", Rectified(), torch.eye(6))
    store = write_pairs(tmp_path, rng.normal(size=(80, 3, 6)), rng.normal(size=(80, 3, 6)), tokens=3)
    own, found = fired(store, latents, SMALL)
    taken += latent_measures(found, compare(store, 0, own, found, latents), latents, own, SMALL)
    names = {measure.metric for measure in taken} | {"turned_by_text_class_mean_at_image_2", "turned_by_class_mean_at_image_2"}
    assert len(names) > 50
    assert sorted(name for name in names if measure_of(name) is None) == []
    ways = {one["metric"]: one["way"] for one in described(sorted(names))}
    assert {name for name, way in ways.items() if way == "low"} == {
        "modality_probe",
        "cluster_homogeneity",
        "gap_share",
        "modality_directions",
    }
    assert ways["turned_by_text_class_mean_at_image_2"] == "high"
    assert ways["turned_by_class_mean_at_image_2"] == ""


def row(metric: str, layer: int, value: float | None, model: str = "trained", sae: str | None = None, **more) -> dict:
    level = "geometry" if sae is None else "latent"
    ends = {"low": None if value is None else value - 0.01, "high": None if value is None else value + 0.01}
    return {
        "model": model, "layer": layer, "level": level, "sae": sae, "metric": metric, "pooling": None if sae else "mean",
        "attribute": None, "value": value, **ends, "null": 0.05,
        "null_low": 0.0, "null_high": 0.1, "n": 100, "parents": HARVEST, "n_high_norm_image": 0, "high_norm_positions_image": [],
        "n_high_norm_text": 0, "high_norm_positions_text": [], **more,
    }  # fmt: skip


ROWS = [
    row("hub", 4, 0.5), row("hub", 0, 0.1), row("hub", 2, 0.9), row("hub", 0, 0.2, "untrained"), row("hub", 4, 0.3, "untrained"),
    row("direction_cosine", 0, None, note="the directions are noise"), row("cka", 4, -0.001),
    row("cofire", 4, 0.6, sae="a sae"), row("cofire", 4, 0.4, sae="a sae/random"),
]  # fmt: skip


def test_a_reading_names_the_ends_the_null_and_the_controls_of_its_own_curve():
    moved = table_of(trends([{"note": None, **one} for one in ROWS], [], 0), SHARING_TRENDS)
    said = readings(pl.DataFrame(ROWS, infer_schema_length=None), pl.DataFrame(pl.from_arrow(moved)))
    # Of four intervals of .01 the root of the sum of squares is .02, of two .014.
    assert said == {
        "hub|mean|": "Rises from layer 0 to 4: 0.10 to 0.50, +0.40 [+0.39, +0.41]; beyond the untrained model +0.30 "
        "[+0.28, +0.32] (null 0.05, untrained model 0.30).",
        "direction_cosine|mean|": "No value: the directions are noise.",
        "cka|mean|": "0.00 at layer 4, the only one (null 0.05).",
        "cofire||": "0.60 at layer 4, the only one (null 0.05, random directions 0.40).",
    }


def test_poolings_and_attributes_have_readings_of_their_own():
    rows = [
        row("direction_cosine", layer, 0.1 * layer, pooling=p, attribute="colour") for layer in (1, 4) for p in ("mean", "last")
    ]
    said = readings(pl.DataFrame(rows, infer_schema_length=None), pl.DataFrame(trends(rows, [], None)))
    assert set(said) == {"direction_cosine|mean|colour", "direction_cosine|last|colour"}


def latent(number: int, score: float | None, bridge: float, sae: str = "a sae", **more) -> dict:
    return {
        "model": "trained", "layer": 4, "sae": sae, "latent": number, "rate_image": 0.1, "rate_text": 0.1, "mean_image": 0.1,
        "mean_text": 0.1, "modality_score": score, "bridge": bridge, "cofire": 0.2, "cofire_null": 0.1, **more,
    }  # fmt: skip


LATENTS = [
    latent(0, 0.0, 0.0), latent(1, 0.5, 10.0, bridge_partner=3, bridge_partner_score=2.5), latent(2, 1.0, 0.1),
    latent(3, 0.8, 1.0), latent(4, None, 0.0), latent(0, 0.2, 0.1, "a sae/random"),
]  # fmt: skip


def test_scores_are_spread_as_counted_by_hand():
    own = pl.DataFrame(LATENTS[:5], infer_schema_length=None)
    found = spread_of(own, [-1.0, 0.0, 1.0], 0.2)
    assert (found["n"], found["alive"]) == (5, 4)
    assert (found["text"], found["both"], found["image"]) == (0.25, 0.25, 0.5)  # 0; .5; .8 and 1
    assert found["bridge"] == [0.25, 0.5]  # .1; 1 and 10
    assert {i: share for i, share in enumerate(found["modality"]) if share} == {0: 0.25, 10: 0.25, 16: 0.25, 19: 0.25}


def test_no_latent_fires_and_nothing_breaks():
    silent = pl.DataFrame([latent(0, None, 0.0)], infer_schema_length=None, schema_overrides={"modality_score": pl.Float64})
    found = spread_of(silent, [0.0, 1.0], 0.2)
    assert (found["alive"], found["image"], found["both"], found["text"], found["bridge"]) == (0, 0.0, 0.0, 0.0, [0.0])


def test_the_shards_hold_each_level_and_each_sae_beside_its_control(tmp_path):
    about = SharingAbout({"trained": "harvests/x"}, {"trained": 100}, ["boat"])
    tables = {"sharing": ROWS, "latents": LATENTS}
    one = written(SHARING_KIND, tmp_path, about, tables, {"harvest": HARVEST, "untrained": "0123456789"})
    write_sharing(Site(place(tmp_path / "site")), results(tmp_path, sharing=[one]))
    head = shard(tmp_path / "site", f"sharing/{one.name}")
    assert head["harvests"] == {"trained": HARVEST, "untrained": "0123456789"}
    assert [(level["level"], level["sae"], level["n"]) for level in head["levels"]] == [
        ("geometry", None, 7),
        ("latent", "a sae", 2),
    ]
    geometry = shard(tmp_path / "site", head["levels"][0]["shard"])["rows"]
    own = one.frame("sharing").filter(pl.col("level") == "geometry").sort("layer", maintain_order=True)
    for name in ("metric", "layer", "value", "low", "null_high", "note"):
        assert same(column(geometry["columns"][name]), own[name].to_list()), name
    scores = shard(tmp_path / "site", head["levels"][1]["scores"])
    (spread,) = scores["spread"]
    assert [latent["latent"] for latent in spread["strongest"]] == [1, 3, 2]
    assert (spread["strongest"][0]["bridge_partner"], spread["strongest"][0]["bridge_partner_score"]) == (3, 2.5)
    assert spread["random"]["text"] == 1.0
