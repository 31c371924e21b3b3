"""A sharing job reads steering results of its own harvest; what it cannot use is one line that says what to do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from linrep import artefact
from linrep.cluster.sharing import share_plainly
from linrep.cluster.steered import read_steered
from linrep.errors import RecipeError
from linrep.places import place
from linrep.sharing.artefact import plan_results
from linrep.sharing.study import plan_study
from linrep.steer.artefact import STEERING, SteerAbout, plan_verdicts
from linrep.steer.config import SteerConfig
from linrep.store.tables import table_of, write_table
from schemas.steering import EFFECTS
from tests.sharing.planted import CONFIG, write_pairs
from tests.sharing.test_steered import ROWS, effect


def write_steering(
    workspace: Path, rows: list[dict], harvest: str = "0123456789", judges: tuple[str, ...] = ("exact-1",)
) -> None:
    """Steering results as far as they are read."""
    folder = place(workspace) / "steering" / "t-1"
    config = SteerConfig(directions=("class_mean", "random"))
    about = SteerAbout({}, [4], [["a", "b"]], 1, "none")
    runs = artefact.plan(
        STEERING, place(workspace), "t", decisive={}, parents={"harvest": harvest}, config=config.model_dump(mode="json"),
        units=[], about=about,
    )  # fmt: skip
    runs = replace(runs, place=folder, manifest=replace(runs.manifest, digest="5" * 10)).closing()
    runs.close()
    (folder / "judged" / "replies" / "x.json").write_json({})
    for judge in judges:
        verdicts = replace(plan_verdicts(runs, config).closing(), place=folder / "judged" / judge)
        write_table(verdicts.place, "effects.parquet", table_of(rows, EFFECTS))
        verdicts.close()


@pytest.fixture
def store(tmp_path):
    images, texts = np.random.default_rng(0).standard_normal((2, 60, 12))
    return write_pairs(tmp_path / "store", images, texts, np.arange(60) % 3)


def test_its_shares_are_rows_of_the_concept_level_that_name_it_as_a_parent(tmp_path, store):
    write_steering(tmp_path, [row | {"layer": row["layer"] and 0} for row in ROWS])
    found = read_steered("t-1", place(tmp_path), store, (0,))
    study = replace(plan_study(store, CONFIG), steered=found.measures)
    results = plan_results(place(tmp_path), "t", study, (), found.digest).begun()
    assert results.manifest.parents["steering"] == "5" * 10
    # Other effects are other results, though the steering artefact is called the same.
    others = replace(study, steered={0: found.measures[0][:1]})
    assert plan_results(place(tmp_path), "t", others, (), found.digest).manifest.digest != results.manifest.digest
    list(share_plainly(study, study.units, results))
    results.finish()
    frame = pl.DataFrame(pl.from_arrow(results.table()))
    own = frame.filter(pl.col("metric") == "turned_by_text_class_mean_at_image_2").row(0, named=True)
    assert (own["level"], own["layer"], own["value"], own["null"], own["n"]) == ("concept", 0, 0.5, 0.125, 30)
    assert own["parents"] == f"0123456789 {'5' * 10}"
    assert set(frame.filter(~pl.col("metric").str.starts_with("turned_by"))["parents"]) == {"0123456789"}


def test_results_that_cannot_be_used_are_refused_in_one_line(tmp_path, store):
    workspace = place(tmp_path)

    def refused(name: str, message: str) -> None:
        with pytest.raises(RecipeError, match=message) as raised:
            read_steered(name, workspace, store, (0, 2))
        assert "\n" not in str(raised.value)

    refused("latest", r"sharing\.steering: latest: .*steering holds no judged answers of the harvest 0123456789: run jobs/steer")
    refused("t-1", r"sharing\.steering: t-1 is not in .*steering, which holds nothing: run jobs/steer\.py first")
    write_steering(tmp_path, ROWS, harvest="another", judges=())
    refused("t-1", "is of the harvest another, this recipe's is 0123456789")
    write_steering(tmp_path, ROWS, judges=())
    refused("t-1", r"has no judged answers yet: run jobs/steer\.py")
    write_steering(tmp_path, ROWS)
    refused("t-1/chat-2", "has no answers read by chat-2 yet")
    refused("t-1", "steers at layers 4, none of which is compared")
    write_steering(tmp_path, [effect("class_mean", 0.5), effect("random", 0.1)])
    refused("t-1", r"has no direction from texts, only class_mean, random: run jobs/steer\.py with text_class_mean")
    write_steering(tmp_path, ROWS, judges=("exact-1", "chat-2"))
    refused("t-1", "was read by several judges: name one, as in t-1/chat-2; there are chat-2, exact-1")
    assert set(read_steered("t-1/exact-1", workspace, store, (4,)).measures) == {4}
