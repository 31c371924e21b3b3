"""Memory says in how many passes latents come, and nothing else: no number, no name; and it does not grow with the values."""

import tracemalloc

import numpy as np
import polars as pl

from linrep.cluster.features import find_plainly
from linrep.features.artefact import open_features, write_features_manifest
from linrep.features.labels import BINS, Attribute, Histograms
from linrep.features.plan import plan_artefact, resumed
from linrep.features.study import plan_study
from linrep.features.units import committed, finish
from linrep.places import place
from tests.features.planted import CONFIG, draw, identity, write_store


def test_scoring_a_thousand_values_takes_little_beside_their_counts():
    f, v, each = 64, 1000, 20
    names = tuple(f"v{i}" for i in range(v))
    told = Histograms(f, [Attribute("class", names, np.repeat(np.arange(v), each))])
    told.samples[:] = each // 2
    told.top[:] = 1000
    told.counts[:, 3, :, BINS - 1] = each // 2  # every latent fires on all samples of value 3, and on no other
    told.sums[:, 3] = 1.0
    tracemalloc.start()
    found = told.told(0, 10, np.full(f, each))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The counts of all latents at once as float64, v x 2 x BINS of 8 bytes, would be 66 MB, and scoring holds several such.
    assert peak < 66e6
    assert set(found.value.tolist()) == {3}
    assert set(found.f1.tolist()) == {1.0}
    assert set(found.auroc.tolist()) == {1.0}


def test_memory_decides_no_digest_and_a_study_goes_on_in_the_runs_that_it_began_with(tmp_path):
    f, n = 8, 30
    store = write_store(tmp_path / "store", draw(n, f, 1), draw(n, f, 2), np.arange(n) % 4)
    tight, wide = (
        plan_artefact(
            place(tmp_path / name), "t", plan_study(store, CONFIG.model_copy(update={"memory_gb": gb}), latents=identity(f)), {}
        )
        for name, gb in (("a", 1e-5), ("b", 0.25))
    )
    assert tight.manifest.digest == wide.manifest.digest
    assert len(tight.study.units) > len(wide.study.units) == 2
    write_features_manifest(tight.place, tight.manifest)
    list(find_plainly(tight.study, tight.study.units[:2], tight.place))
    done = committed(tight.place)
    assert len(done) == 2
    # The same place, now with room for all latents at once.
    again = plan_artefact(place(tmp_path / "a"), "t", wide.study, {})
    again = resumed(again, tight.manifest)
    assert again.place == tight.place
    assert again.study.units == tight.study.units
    left = [unit for unit in again.study.units if unit.name not in done]
    assert {commit.unit for commit in find_plainly(again.study, left, again.place)} == {unit.name for unit in left}
    write_features_manifest(again.place, finish(again))
    list(find_plainly(wide.study, wide.study.units, wide.place))
    write_features_manifest(wide.place, finish(wide))
    one, other = open_features(again.place), open_features(wide.place)
    assert pl.DataFrame(pl.from_arrow(one.examples("own"))).equals(pl.DataFrame(pl.from_arrow(other.examples("own"))))
    assert one.table("labels").equals(other.table("labels"))
