"""A workspace in an object store: the same rows, resumable, one driver at a time."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from moto.s3.responses import S3Response
from werkzeug.datastructures import Headers

import linrep.store
from linrep.cluster import lease_file, lock
from linrep.cluster.lock import sole_driver
from linrep.cluster.run_harvest import run_harvest
from linrep.contents.sources import WORLD, write_demo
from linrep.corpora import Corpora, ImageFolder, PairFiles, TextFiles
from linrep.demo.config import DemoWorld
from linrep.errors import WorkspaceBusy
from linrep.harvest.plan import plan_harvest
from linrep.places import Place, place
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


@pytest.fixture(params=["conditions", "refuses them", "ignores them"])
def leased(request: pytest.FixtureRequest, bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder of a store that writes one object after another, with its conditions or without."""
    real, one_at_a_time = S3Response.put_object, threading.Lock()

    def put(self: S3Response) -> Any:
        names = [name for name in ("If-Match", "If-None-Match") if self.headers.get(name)]
        if names and request.param == "refuses them":
            return 501, {}, "<Error><Code>NotImplemented</Code><Message>no conditions</Message></Error>"
        if request.param == "ignores them":
            self.headers = Headers([(name, value) for name, value in self.headers.items() if name not in names])
        with one_at_a_time:
            return real(self)

    monkeypatch.setattr(S3Response, "put_object", put)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(lease_file, "SETTLE_SECONDS", 0.2)
    return place(bucket(f"leased-{request.param.replace(' ', '-')}"))


def test_a_lease_keeps_the_second_driver_out_until_it_runs_out(leased):
    with sole_driver(leased), pytest.raises(WorkspaceBusy, match="another driver"), sole_driver(leased):
        pass
    assert not (leased / lock.LOCK).is_file()
    with sole_driver(leased):  # given back
        pass
    (leased / lock.LOCK).write_json({"id": "x", "time": 0, "who": "a driver that died long ago"})
    with sole_driver(leased):
        assert (leased / lock.LOCK).read_json()["id"] != "x"
        time.sleep(0.5)  # renewed, and still ours
    assert not (leased / lock.LOCK).is_file()


@pytest.mark.parametrize("leased", ["conditions"], indirect=True)
@pytest.mark.parametrize("dead", [False, True])
def test_of_twenty_drivers_that_start_at_once_exactly_one_enters(leased, dead):
    if dead:
        (leased / lock.LOCK).write_json({"id": "x", "time": 0, "who": "a driver that died long ago"})
    start, entered, refused = threading.Barrier(20), [], []

    def drive(number: int) -> None:
        start.wait()
        try:
            with sole_driver(leased):
                entered.append(number)
                over.wait(60)
        except WorkspaceBusy as error:
            refused.append(str(error))

    over = threading.Event()
    threads = [threading.Thread(target=drive, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while len(entered) + len(refused) < 20 and time.monotonic() < until:
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 19)
