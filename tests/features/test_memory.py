"""Memory says in how many passes latents come, and nothing else: no number, no name; and it does not grow with the values."""

import tracemalloc

import numpy as np
import polars as pl

from linrep.cluster.features import find_plainly
from linrep.features.artefact import as_begun, finish, open_features, plan_artefact
from linrep.features.labels import BINS, Attribute, Histograms
from linrep.features.study import plan_study
from linrep.kind import UnitCommit
from linrep.places import place
from tests.features.planted import CONFIG, draw, found_plainly, identity, write_store


def test_scoring_a_thousand_values_takes_little_beside_their_counts():
    f, v, each = 64, 1000, 20
    names = tuple(f"v{i}" for i in range(v))
    histograms = Histograms(f, [Attribute("class", names, np.repeat(np.arange(v), each))])
    histograms.samples[:] = each // 2
    histograms.top[:] = 1000
    histograms.counts[:, 3, :, BINS - 1] = each // 2  # every latent fires on all samples of value 3, and on no other
    histograms.sums[:, 3] = 1.0
    tracemalloc.start()
    found = histograms.scores(0, 10, np.full(f, each))
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
    studies = [plan_study(store, CONFIG.model_copy(update={"memory_gb": gb}), latents=identity(f)) for gb in (1e-5, 0.25)]
    tight, wide = (plan_artefact(place(tmp_path / "a"), "t", study, {"sae-0": "a"}) for study in studies)
    assert tight.manifest.digest == wide.manifest.digest
    assert len(tight.about.runs) > len(wide.about.runs) == 2
    begun = tight.begun()
    list(find_plainly(studies[0], [*begun.todo()[:2], *list(begun.about.runs)[:2]], begun))
    assert len(begun.done()) == 4
    # The same place, now with room for all latents at once.
    again = wide.begun()
    assert again.manifest.units == tight.manifest.units
    study = as_begun(studies[1], again.about)
    assert study.units == studies[0].units
    left = again.todo()
    assert {event.unit for event in find_plainly(study, left, again) if isinstance(event, UnitCommit)} == set(left)
    again.closing(**finish(again)).close()
    one, other = open_features(again.place), found_plainly(tmp_path / "b", studies[1])
    assert pl.DataFrame(pl.from_arrow(one.examples("own"))).equals(pl.DataFrame(pl.from_arrow(other.examples("own"))))
    assert one.table("labels").equals(other.table("labels"))
