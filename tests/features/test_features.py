"""Everything that is said of a latent, against slow answers from the tokens themselves."""

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from linrep.encoder import Latents
from linrep.features.codes import encode_file
from linrep.features.examples import choose
from linrep.features.gather import LatentSums, gather, runs
from linrep.features.labels import BINS, Attribute, Histograms
from linrep.features.peaks import Peaks
from linrep.features.study import plan_study
from linrep.largest import Largest, draw_key, of_strength, strength_key
from linrep.places import place
from tests.features.planted import CLASSES, CONFIG, Identity, draw, found_plainly, identity, write_store

F, N = 12, 60
LABELS = np.arange(N) % 4


def planted() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Latent 0 fires on boats alone, 1 on trees and, weakly, on keys; 11 never; 10 on text alone; 9 on every image token."""
    images, texts = draw(N, F, 1), draw(N, F, 2)
    rng = np.random.default_rng(5)
    for i, x in enumerate(images):
        x[:, [0, 1, 10, 11]] = -1
        if LABELS[i] == 0:
            x[1, 0] = 1 + rng.random()
        if LABELS[i] in (1, 2):
            x[0, 1] = 3 + rng.random() if LABELS[i] == 1 else 1 + rng.random()
        x[:, 9] = 1 + rng.random(len(x))
    for x in texts:
        x[:, 11] = -1
    return images, texts


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("f")
    images, texts = planted()
    store = write_store(folder / "store", images, texts, LABELS)
    study = plan_study(store, CONFIG, latents=identity(F))
    return images, texts, study, found_plainly(folder / "w", study)


def frame(table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def own(found) -> pl.DataFrame:
    return frame(found[3].table()).filter(pl.col("sae") == "own").sort("latent")


def test_rates_are_those_of_the_tokens(found):
    images, texts, _, _ = found
    rows = own(found)
    for name, samples in (("image", images), ("text", texts)):
        z = np.maximum(np.concatenate(samples), 0)
        assert found[3].about.tokens[name] == len(z)
        np.testing.assert_allclose(rows[f"rate_{name}"], (z > 0).mean(0))
        np.testing.assert_allclose(rows[f"mean_{name}"], z.mean(0), rtol=1e-6)
        np.testing.assert_allclose(rows[f"std_{name}"], z.astype(float).std(0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(rows[f"max_{name}"], z.max(0))
        assert rows[f"samples_{name}"].to_list() == [sum((x[:, j] > 0).any() for x in samples) for j in range(F)]
    assert rows["modality_score"][0] > 0
    assert rows["modality_score"][10] == 0
    assert rows["modality_score"][11] is None


def test_top_examples_are_the_strongest_samples_each_once_with_ties_by_hash(found):
    images, texts, study, features = found
    ids = {name: i for i, name in enumerate(study.ids.to_pylist())}
    rows = frame(features.examples("own")).filter(pl.col("kind") == "top")
    for name, letter, samples in (("image", "i", images), ("text", "t", texts)):
        for j in range(F):
            best = [(-x[:, j].max(), study.known.rank[ids[f"{letter}{i}"]], f"{letter}{i}") for i, x in enumerate(samples)]
            expected = [(name, np.float32(-value)) for value, _, name in sorted(best)[:3] if value < 0]
            mine = rows.filter((pl.col("latent") == j) & (pl.col("modality") == name)).sort("rank")
            assert list(zip(mine["sample_id"], mine["activation"], strict=True)) == expected


def test_an_example_shows_where_the_latent_fires(found):
    images, texts, _, features = found
    rows = frame(features.examples("own"))
    assert rows.height > 100
    for row in rows.iter_rows(named=True):
        number = int(row["sample_id"][1:])
        if row["modality"] == "image":
            z = images[number][:, row["latent"]]
            at = np.flatnonzero(z > 0)
            assert row["positions"] == [1 + t for t in at]
            assert (row["rows"], row["cols"]) == ([t // 4 for t in at], [t % 4 for t in at])
            assert set(row["tiles"]) == {0}
            np.testing.assert_array_equal(row["activations"], z[at])
            assert (row["n_tokens"], row["position"]) == (len(z) + 1, 1 + z.argmax())
        else:
            z = texts[number][:, row["latent"]]
            peak = int(z.argmax())
            at = np.arange(max(0, peak - 2), min(len(z), peak + 3))
            assert row["positions"] == at.tolist()
            assert row["token_ids"] == (10 + at).tolist()
            np.testing.assert_array_equal(row["activations"], np.maximum(z[at], 0))
            assert (row["rows"], row["tiles"], row["n_tokens"]) == ([], [], len(z))
        assert (row["n_active"], row["n_held"]) == ((z > 0).sum(), len(z))


def test_a_map_of_too_many_patches_keeps_the_strongest(found, tmp_path):
    images, texts, _, _ = found
    store = write_store(tmp_path / "s", images, texts, LABELS)
    study = plan_study(store, CONFIG.model_copy(update={"patches": 2}), latents=identity(F))
    fewer = found_plainly(tmp_path / "w", study)
    for row in frame(fewer.examples("own", 9, 10)).filter(pl.col("modality") == "image").iter_rows(named=True):
        z = images[int(row["sample_id"][1:])][:, 9]
        assert row["positions"] == [1 + t for t in sorted(np.argsort(-z, kind="stable")[:2])]
        assert row["n_active"] == len(z)


def test_quantile_examples_come_from_their_part_of_the_samples(found):
    images, _, _, features = found
    rows = frame(features.examples("own")).filter((pl.col("kind") == "quantile") & (pl.col("modality") == "image"))
    for j in range(F - 2):
        # Two quantiles of at most twelve drawn samples: with no more than that they are the exact halves.
        firing = sorted(x[:, j].max() for x in images if (x[:, j] > 0).any())
        mine = rows.filter(pl.col("latent") == j)
        assert mine["sample_id"].n_unique() == mine.height == min(4, len(firing))
        low, high = (mine.filter(pl.col("quantile") == q)["activation"] for q in (0, 1))
        assert low.max() <= high.min()
        if len(firing) <= 12:
            middle = (len(firing) + 1) // 2
            assert low.max() <= firing[middle - 1]
            assert high.min() >= firing[middle]


def test_the_draw_is_fair():
    rng = np.random.default_rng(0)
    n, times = 200, np.zeros(200)
    value = (1 + rng.random(n)).astype(np.float32)
    for _ in range(400):
        kept = Largest(1, 20)
        kept.offer(np.zeros(n, np.int64), draw_key(value, rng.permutation(n)), np.arange(n, dtype=np.int32))
        times[kept.entries().position] += 1
    assert times.sum() == 400 * 20
    # Each sample is drawn in a tenth of the trials; the strong ones no more often than the weak ones.
    assert abs(np.corrcoef(times, value)[0, 1]) < 0.2
    assert 15 < times.min() < times.max() < 70


def test_the_largest_are_exact_in_any_order_and_over_any_parts():
    rng = np.random.default_rng(0)
    n, f, k = 5000, 7, 5
    latent = rng.integers(f, size=n)
    value = (np.round(rng.random(n), 2) + 0.01).astype(np.float32)
    rank = rng.permutation(n)
    key, where = strength_key(value, rank), np.arange(n, dtype=np.int32)
    kept = []
    for parts in (1, 3):
        order = rng.permutation(n)
        made = [Largest(f, k) for _ in range(parts)]
        for i, some in enumerate(np.array_split(order, 50)):
            made[i % parts].offer(latent[some], key[some], where[some])
            if i % 7 == 0:
                made[i % parts].entries()
        for other in made[1:]:
            made[0].merge(other)
        kept.append(made[0].entries())
    expected = [sorted((i for i in range(n) if latent[i] == j), key=lambda i: (-value[i], rank[i]))[:k] for j in range(f)]
    for own in kept:
        assert own.position.tolist() == [i for some in expected for i in some]
        np.testing.assert_array_equal(of_strength(own.key)[0], value[own.position])


def test_of_equal_keys_those_that_came_first_are_kept():
    """A latent may fire equally on many tokens of one image: which are its strongest must not depend on a sort's whims."""
    rng = np.random.default_rng(1)
    n, f, k = 3000, 3, 20
    latent, key = rng.integers(f, size=n), rng.integers(1, 4, n).astype(np.uint64)
    kept, where = Largest(f, k), np.arange(n, dtype=np.int32)
    for i, some in enumerate(np.array_split(where, 9)):
        kept.offer(latent[some], key[some], where[some])
        if i % 2:
            kept.entries()
    expected = [sorted(np.flatnonzero(latent == j), key=lambda i: (-int(key[i]), i))[:k] for j in range(f)]
    assert kept.entries().position.tolist() == [i for some in expected for i in some]


def test_best_values_and_f1_are_those_of_named_thresholds(found):
    images, _, study, features = found
    labels = frame(features.table("labels")).filter((pl.col("sae") == "own") & (pl.col("modality") == "image"))
    ids = {name: i for i, name in enumerate(study.ids.to_pylist())}
    half = np.array([study.known.half[ids[f"i{i}"]] for i in range(N)])
    most = np.maximum(np.array([x.max(0) for x in images]), 0)
    assert labels.height == 10
    for row in labels.iter_rows(named=True):
        z = most[:, row["latent"]]
        says = z >= row["threshold"] if row["threshold"] > 0 else z > 0
        true = CLASSES.index(row["value"]) == LABELS
        assert row["f1_chosen"] == pytest.approx(f1_score(true[half == 0], says[half == 0]))
        assert row["f1"] == pytest.approx(f1_score(true[half == 1], says[half == 1], zero_division=0))
        exact = roc_auc_score(true[half == 1], z[half == 1])
        assert abs(row["auroc"] - exact) <= row["auroc_error"] + 1e-12
        # No threshold at all does better, for any value, than the bins' edges allow: an eighth of a factor of two apart.
        best = max(f1_score((c == LABELS)[half == 0], (z >= t)[half == 0]) for c in range(4) for t in np.unique(z[z > 0]))
        assert row["f1_chosen"] <= best + 1e-12
        assert row["f1_chosen"] > best - 0.08
        assert row["n"] == (true & (half == 1)).sum()
    first = {row["latent"]: row for row in labels.iter_rows(named=True)}
    assert (first[0]["value"], first[0]["f1"], first[0]["auroc"], first[0]["entropy"]) == ("boat", 1.0, 1.0, 0.0)
    assert (first[1]["value"], first[1]["f1"]) == ("tree", 1.0)
    assert first[1]["threshold"] == 2
    assert first[9]["entropy"] > 0.99
    weights = np.array([most[c == LABELS, 1].mean() for c in range(4)])
    weights = weights[weights > 0] / weights.sum()
    assert first[1]["entropy"] == pytest.approx(-(weights * np.log(weights)).sum() / np.log(4))
    best = own(found)
    assert best["best_attribute"].to_list() == ["class"] * 10 + [None] * 2
    assert best["best_value"][0] == "boat"
    assert best["f1"][1] == 1.0


def histograms(value: np.ndarray, order: np.ndarray, parts: int) -> Histograms:
    codes = np.arange(len(value)) % 2
    half = (np.arange(len(value)) // 2) % 2
    attributes = [Attribute("a", ("x", "y"), codes)]
    made = [Histograms(1, attributes) for _ in range(parts)]
    for i, some in enumerate(np.array_split(order, 13)):
        fires = some[value[some] > 0]
        nothing = np.zeros(len(fires), np.int32)
        made[i % parts].add(Peaks(fires, nothing.astype(np.int64), value[fires], nothing), some, attributes, half)
    for other in made[1:]:
        made[0].merge(other)
    return made[0]


def test_histograms_are_the_same_in_any_order_and_over_any_parts():
    rng = np.random.default_rng(1)
    value = np.exp(rng.normal(0, 2.5, 400)).astype(np.float32) * (rng.random(400) < 0.7)
    rising = histograms(value, np.argsort(value), 1)
    for order, parts in ((np.argsort(-value), 1), (rng.permutation(400), 1), (rng.permutation(400), 4)):
        other = histograms(value, order, parts)
        np.testing.assert_array_equal(rising.counts, other.counts)
        np.testing.assert_array_equal(rising.top, other.top)
        np.testing.assert_allclose(rising.sums, other.sums)
    # Counted one by one: what shares the bits of sign, exponent and three more, down from the largest, shares a bin.
    at = (value.view(np.uint32) >> 20).astype(int)
    place = np.maximum(BINS - 1 - (at.max() - at), 0)
    for i in np.flatnonzero(value > 0)[:50]:
        x, h = i % 2, (i // 2) % 2
        same = (value > 0) & (np.arange(400) % 2 == x) & ((np.arange(400) // 2) % 2 == h) & (place == place[i])
        assert rising.counts[0, x, h, place[i]] == same.sum()
    assert rising.samples.sum() == 400


def test_runs_of_latents_and_parts_change_nothing(found, tmp_path):
    images, texts, _, features = found
    tiny = CONFIG.model_copy(update={"memory_gb": 8e-6})
    store = write_store(tmp_path / "s", images, texts, LABELS, chunk=7)
    other = plan_study(store, tiny, latents=identity(F))
    assert len(other.units) > 6
    assert [r for u in other.units if not u.control for r in range(*u.run)] == list(range(F))
    split = found_plainly(tmp_path / "w", other)
    for one, two in ((features.table(name), split.table(name)) for name in ("features", "labels")):
        a, b = frame(one), frame(two)
        keys = [c for c in ("sae", "latent", "modality", "attribute") if c in a.columns]
        a, b = a.sort(keys), b.sort(keys)
        exact = [c for c, kind in a.schema.items() if not kind.is_float()]
        assert a.select(exact).equals(b.select(exact))
        for c in set(a.columns) - set(exact):
            np.testing.assert_allclose(a[c].fill_null(-9), b[c].fill_null(-9), rtol=1e-12)
    assert frame(features.examples("own")).equals(frame(split.examples("own")))
    assert frame(split.examples("own", 4, 6)).equals(frame(features.examples("own")).filter(pl.col("latent").is_in([4, 5])))


def test_codes_are_written_once(found, tmp_path):
    _, _, study, _ = found
    unit = study.units[0]
    modality, file = study.parts(unit)[0][0]
    target = place(tmp_path) / "codes/part-000000.parquet"
    args = (study.store, file, study.wanted[modality], identity(F)[0][0].sae, target)
    assert encode_file(*args) > 0
    assert encode_file(*args) == 0


def test_texts_are_encoded_by_what_is_there_for_texts(tmp_path):
    class Backwards(Identity):
        def encode(self, x):
            return x.flip(1).relu()

    store = write_store(tmp_path / "store", draw(40, F, 1), draw(40, F, 2), np.arange(40) % 4)
    tables = []
    for i, of_texts in enumerate((None, Backwards(F))):
        latents = ((Latents("own", Identity(F), torch.eye(F), of_texts), identity(F)[0][1]),)
        found = found_plainly(tmp_path / f"w{i}", plan_study(store, CONFIG, latents=latents))
        tables.append(frame(found.table("features")).filter(pl.col("sae") == "own").sort("latent"))
    plain, backwards = tables
    assert plain["rate_image"].equals(backwards["rate_image"])
    assert plain["rate_text"].to_list() == backwards["rate_text"].to_list()[::-1]
    assert plain["rate_text"].n_unique() > 1


def test_memory_of_a_run_is_what_was_asked_for(found):
    _, _, study, _ = found
    for memory in (1e-5, 1e-4, 1.0):
        own = runs(1000, study.known, CONFIG.model_copy(update={"memory_gb": memory}))
        assert own[0][0] == 0
        assert own[-1][1] == 1000
    import pickle

    empty = LatentSums(1000, study.known, CONFIG)
    from linrep.features.gather import bytes_per_latent

    assert len(pickle.dumps(empty)) == pytest.approx(1000 * bytes_per_latent(study.known, CONFIG), rel=0.2)


def test_no_sample_and_no_latent_is_told_twice(found):
    for modality in ("image", "text"):
        rows = frame(found[3].examples("own")).filter(pl.col("modality") == modality)
        for kind in ("top", "quantile"):
            some = rows.filter(pl.col("kind") == kind)
            assert some.select("latent", "sample_id").n_unique() == some.height
    assert choose(gather([], (0, F), found[2].known, CONFIG), found[2].known, CONFIG)["image"].latent.size == 0


def test_random_directions_stand_beside(found):
    rows = frame(found[3].table())
    assert rows.filter(pl.col("sae") == "own/random").height == F
    assert torch.equal(found[2].latents[0][1].decoder, torch.eye(F).roll(1, 0))
