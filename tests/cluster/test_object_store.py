"""A workspace in an object store: the same rows, resumable, one driver at a time."""

from dataclasses import replace
from pathlib import Path

import pyarrow.fs as pafs
import pytest

import linrep.store
from linrep.cluster import lock
from linrep.cluster.lock import sole_driver
from linrep.cluster.run_harvest import run_harvest
from linrep.contents.sources import WORLD, write_demo
from linrep.corpora import Corpora, ImageFolder, PairFiles, TextFiles
from linrep.demo.config import DemoWorld
from linrep.errors import WorkspaceBusy
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from tests.cluster.test_harvest import CONFIG, POOL, harvest_plainly, recipe_of
from tests.stores import assert_equal


@pytest.mark.usefixtures("local_ray")
def test_a_harvest_into_an_object_store_equals_one_on_disk(bucket, corpora, random_vlm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the MLflow database of a workspace that cannot hold one lies in the current folder
    plain = harvest_plainly(plan_harvest("t", corpora, random_vlm, CONFIG, place(tmp_path / "plain")))
    recipe = recipe_of(corpora, random_vlm, pool=POOL)
    first = run_harvest(recipe, place(bucket("ws")))
    assert first.n_new == 8
    assert_equal(first.artefact.store, plain)
    assert run_harvest(recipe, place(bucket("ws"))).n_new == 0
    assert linrep.store.open(bucket("ws")).select("pooled", 2).polars().height == len(plain.select("pooled", 2))
    assert (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_the_embedded_world_in_a_bucket_gives_the_rows_of_the_one_on_disk(bucket, random_vlm, tmp_path):
    demo = DemoWorld(n_images=6, n_texts=4)
    corpora = Corpora(
        images=ImageFolder(path="demo://images"),
        text=TextFiles(path="demo://text.jsonl"),
        pairs=PairFiles(path="demo://captions.jsonl"),
    )
    plans = [
        plan_harvest("t", corpora, random_vlm, CONFIG, place(where), demo) for where in (str(tmp_path / "ws"), bucket("demo"))
    ]
    here, there = (harvest_plainly(plan) for plan in plans)
    assert here.manifest.counts["n_samples"] == 6 + 4 + 2 * 6
    assert here.manifest.digest == there.manifest.digest
    assert_equal(here, there)


def test_a_world_whose_copy_was_cut_short_is_copied_again(tmp_path, monkeypatch):
    there = replace(place(tmp_path), local=False)  # as an object store: files are copied one by one
    real = pafs.copy_files

    def cut_short(source: str, target: str, *more: object) -> None:
        real(source, target, *more)
        (Path(target) / "text.jsonl").unlink()
        raise OSError("gone away")

    with monkeypatch.context() as patch:
        patch.setattr(pafs, "copy_files", cut_short)
        with pytest.raises(OSError, match="gone away"):
            write_demo(there, DemoWorld(n_images=2, n_texts=3))
    world = write_demo(there, DemoWorld(n_images=2, n_texts=3))
    assert len((world / "text.jsonl").read_bytes().splitlines()) == 3
    assert (world / WORLD).is_file()


def test_a_lease_keeps_the_second_driver_out_until_it_runs_out(bucket, monkeypatch):
    folder = place(bucket("leased"))
    with sole_driver(folder), pytest.raises(WorkspaceBusy, match="another driver"), sole_driver(folder):
        pass
    assert not (folder / lock.LOCK).is_file()
    with sole_driver(folder):  # given back
        pass
    (folder / lock.LOCK).write_json({"id": "x", "time": 0, "who": "a driver that died long ago"})
    with sole_driver(folder):
        pass
