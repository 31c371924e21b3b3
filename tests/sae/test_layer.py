"""A layer's SAEs from a store: resumed equals uninterrupted bit for bit, raw activations rebuilt, grids, clear errors."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from linrep.errors import StoreError
from linrep.kind import UnitCommit
from linrep.places import PendingFile, place
from linrep.sae.config import Adam, AuxK, SaeDesign, TopK
from linrep.sae.evaluate import evaluate
from linrep.sae.formats import read as read_sae
from linrep.sae.layer import HISTORY, LayerJob, read_commit, train_layer
from linrep.sae.study import Grid, Rows, SaeConfig
from linrep.sae.train import Metrics
from linrep.sae.train import Rows as Batch
from linrep.store.mixture import find_sources, held_out, proportion
from linrep.store.read import Store
from linrep.store.stream import Share
from linrep.store.tables import read_table
from tests.sae.reference import planted
from tests.sae.test_train import Shared
from tests.store.planted_store import write_store

D = 16
CONFIG = SaeConfig(
    design=SaeDesign(activation=TopK(k=4), expansion=4, aux=AuxK(dead_after=2000), adam=Adam(learning_rate=3e-3)),
    rows=40 * 64, batch=64, data=Rows(shuffle_rows=200), checkpoint_every=7,
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return planted_store(tmp_path_factory.mktemp("store"))


def planted_store(folder: Path, layers: tuple[int, ...] = (2,), files: int = 6) -> Store:
    """Image and text rows that are sparse sums of the same directions; texts have three times the norm."""
    x, _ = planted(files * 300, D, 24, 3)
    images = [3 * part for part in np.split(x.numpy(), files)]
    texts = [9 * part[:100] for part in reversed(np.split(x.numpy(), files))]
    rows = {(layer, "image"): images for layer in layers} | {(layer, "text"): texts for layer in layers}
    return write_store(folder, rows, splits=("train",) * 4 + ("val",))


def job_of(store: Store, folder: Path, config: SaeConfig = CONFIG, layer: int = 2) -> LayerJob:
    sources = find_sources(store, layer, "train", config.data.special, config.data.high_norm)
    parts = proportion(
        sources, config.batch // config.workers, config.data.text_share, config.data.normalise == "modality", "the store"
    )
    return LayerJob(place(folder), layer, config, sources, parts, {"model_name": "planted"})


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "layer-002").rglob("*")) if p.is_file()}


class Killed(Exception):
    pass


def until(job: LayerJob, step: int) -> list[Metrics]:
    """Run up to a step and die there."""
    found = []
    run = train_layer(job)
    for event in run:
        if isinstance(event, Metrics):
            found.append(event)
            if event.step == step:
                run.close()
                break
    return found


def test_a_run_killed_twice_ends_in_the_same_bytes_as_an_uninterrupted_one(store, tmp_path):
    whole = list(train_layer(job_of(store, tmp_path / "whole")))
    job = job_of(store, tmp_path / "killed")
    early = until(job, 5)  # before the first checkpoint
    assert not job.checkpoint.is_file()
    late = until(job, 25)
    assert job.checkpoint.is_file()
    rest = list(train_layer(job))
    assert isinstance(rest[0], Metrics)
    assert rest[0].step == 22  # the checkpoint was of step 21
    assert early == whole[:5]
    assert late == whole[:25]
    assert rest[:-1] == whole[21:-1]
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "killed")
    assert len(files_of(tmp_path / "whole")) == 3
    assert not job.checkpoint.is_file()
    commit, expected = read_commit(job.place, 2), whole[-1]
    assert isinstance(commit, UnitCommit)
    assert isinstance(expected, UnitCommit)
    assert (commit.cost["rows"], commit.cost["steps"]) == (expected.cost["rows"], 40)
    assert commit.cost["product"] == "float32"


@pytest.mark.parametrize("normalise", ["layer", "modality"])
def test_saved_saes_take_raw_activations(store, tmp_path, normalise):
    """On rows of norm 3 sqrt(d) and 9 sqrt(d), which training never saw unscaled; the wrong scale would rebuild nothing."""
    data = CONFIG.data.model_copy(update={"normalise": normalise})
    config = SaeConfig.model_validate({**CONFIG.model_dump(), "data": data.model_dump(), "rows": 300 * 64})
    job = job_of(store, tmp_path, config)
    events = list(train_layer(job))
    rows = held_out(find_sources(store, 2, "val"), 1000)
    names = {"image": "topk-4-x4-s0", "text": "topk-4-x4-s0"}
    if normalise == "modality":
        names = {m: f"{name}-{m}" for m, name in names.items()}
    for modality in ("image", "text"):
        sae = read_sae(job.folder / names[modality])
        x = rows[modality]
        found = evaluate(sae, [Batch(x, torch.full((len(x),), modality == "text"))]).quality[modality]
        trained = [e.values[f"fvu/{modality}"] for e in events if isinstance(e, Metrics)][-1]
        assert found.fvu == pytest.approx(trained, abs=0.1)
        assert found.fvu < 0.35
        assert sae.about["input_scale"] == pytest.approx(
            1 / (6 if normalise == "layer" else 3 if modality == "image" else 9), rel=0.02
        )


def test_a_grid_trains_each_sae_as_if_alone(store, tmp_path):
    grid = SaeConfig.model_validate({**CONFIG.model_dump(), "grid": {"sparsity": [2, 4], "learning_rate": [1e-3, 3e-3]}})
    assert list(grid.designs()) == [
        "topk-2-x4-s0-lr0.001",
        "topk-2-x4-s0-lr0.003",
        "topk-4-x4-s0-lr0.001",
        "topk-4-x4-s0-lr0.003",
    ]
    list(train_layer(job_of(store, tmp_path / "grid", grid)))
    list(train_layer(job_of(store, tmp_path / "alone")))
    one = read_sae(place(tmp_path / "grid") / "layer-002/topk-4-x4-s0-lr0.003")
    other = read_sae(place(tmp_path / "alone") / "layer-002/topk-4-x4-s0")
    assert torch.equal(one.decoder, other.decoder)
    assert torch.equal(one.encoder, other.encoder)
    history = read_table(place(tmp_path / "grid") / "layer-002", f"{HISTORY}.parquet").to_pylist()
    assert {row["sae"] for row in history} == set(grid.designs())
    assert {row["step"] for row in history} == set(range(1, 41))


def test_two_workers_read_different_rows_and_end_with_the_same_weights(store, tmp_path):
    config = SaeConfig.model_validate({**CONFIG.model_dump(), "workers": 2})
    shared, events = Shared(2), [[], []]
    box: list[list] = [[], []]
    barrier = threading.Barrier(2, timeout=60)

    def run(rank: int) -> None:
        def gather(mine: object) -> list:
            box[rank] = [mine]
            barrier.wait()
            found = [box[0][0], box[1][0]]
            barrier.wait()
            return found

        job = job_of(store, tmp_path / str(rank), config)
        events[rank] = list(train_layer(job, Share(rank, 2), shared.worker(rank), gather=gather))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.values for e in events[0][:-1]] == [e.values for e in events[1]]  # the commit is the first worker's
    assert events[0][-1].cost["rows"]["image"]["rows"] >= 40 * 32
    assert not (tmp_path / "1").exists()  # rank 0 writes


def test_a_damaged_checkpoint_is_one_clear_line(store, tmp_path):
    """Of two states the older one serves; where none can be read, a line says which file and what to do."""
    job = job_of(store, tmp_path)
    until(job, 17)  # saved at 7 and 14
    assert job.checkpoint.read_json() == {"steps": [14, 7]}
    newest, older = Path(job.state_at(14).path), Path(job.state_at(7).path)
    newest.write_bytes(newest.read_bytes()[:1000])
    assert next(iter(train_layer(job))).step == 8
    for damage in (older.read_bytes()[:1000], b"", b"\x80\x02 no pickle", b"h\x05", b"."):
        older.write_bytes(damage)
        with pytest.raises(StoreError, match=r"layer-002.json is damaged .*: delete it") as error:
            list(train_layer(job))
        assert "\n" not in str(error.value)
    for damage in (b"", b"{}", b"[]", b'{"steps": []}', b'{"steps": ["7"]}', b"\xff"):
        Path(job.checkpoint.path).write_bytes(damage)
        with pytest.raises(StoreError, match=r"layer-002.json is damaged"):
            list(train_layer(job))


def test_a_failed_save_resumes_from_the_one_before(store, tmp_path, monkeypatch):
    """The disk fills while the second state is written, or while it is named: the first serves, and ends in the same bytes."""
    list(train_layer(job_of(store, tmp_path / "whole")))
    for n, failing in enumerate((".pt", ".json")):
        job = job_of(store, tmp_path / str(n))
        until(job, 8)  # saved at 7
        real = PendingFile.publish

        def full(file: PendingFile, failing: str = failing, real=real) -> None:
            if file.target.parent.name == "checkpoints" and file.target.name.endswith(failing):
                raise OSError(28, "No space left on device")
            real(file)

        with monkeypatch.context() as patch:
            patch.setattr(PendingFile, "publish", full)
            with pytest.raises(OSError, match="No space"):
                list(train_layer(job))
        assert job.checkpoint.read_json() == {"steps": [7]}
        assert next(iter(train_layer(job))).step == 8
        list(train_layer(job))
        assert files_of(tmp_path / "whole") == files_of(tmp_path / str(n))
        assert job.checkpoint.parent.names() == []


def test_a_group_that_cannot_be_read_is_one_clear_line(tmp_path):
    broken = planted_store(tmp_path / "other")  # planned while it was whole
    job = job_of(broken, tmp_path / "out")
    for file in (tmp_path / "other/tokens/layer=2/modality=text").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"modality=text/part-00000\d\.parquet is no whole parquet file"):
        list(train_layer(job))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 65, "workers": 2}, "must be a multiple of workers"),
        ({"grid": {"sparsity": [8, 8]}}, "names a value twice"),
        ({"grid": {"sparsity": [8.5]}}, "valid integer"),
        ({"data": {"text_share": 1.5}}, "less than or equal to 1"),
    ],
)
def test_wrong_sections_are_refused_by_name(change, message):
    with pytest.raises(ValidationError, match=message):
        SaeConfig.model_validate(change)


def test_cadence_and_evaluation_are_no_part_of_what_decides_weights():
    one = SaeConfig()
    other = SaeConfig.model_validate({"checkpoint_every": 3, "evaluation": {"rows": 5}})
    assert one.decisive() == other.decisive()
    assert one.decisive() != SaeConfig.model_validate({"rows": 5000, "grid": Grid(seed=(1,)).model_dump()}).decisive()
