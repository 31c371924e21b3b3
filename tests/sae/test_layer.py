"""A layer's SAEs from a store: resumed equals uninterrupted bit for bit, raw activations rebuilt, grids, clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bench.workers_in_threads import Member, together
from linrep.errors import StoreError
from linrep.kind import UnitCommit
from linrep.places import PendingFile, place
from linrep.sae.config import Adam, AuxK, Gated, JumpReLU, SaeDesign, TopK
from linrep.sae.evaluate import evaluate
from linrep.sae.formats import read as read_sae
from linrep.sae.formats import saelens
from linrep.sae.layer import HISTORY, LayerJob, read_commit, train_layer
from linrep.sae.study import Grid, Rows, SaeConfig
from linrep.sae.train import Metrics, Trainer
from linrep.sae.train import Rows as Batch
from linrep.store.mixture import find_sources, held_out, proportion
from linrep.store.read import Store
from linrep.store.tables import read_table
from tests.sae.reference import planted
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
    parts = proportion(sources, config.batch, config.data.text_share, config.data.normalise == "modality", "the store")
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
    assert not job.states.index.is_file()
    late = until(job, 25)
    assert job.states.index.is_file()
    rest = list(train_layer(job))
    assert isinstance(rest[0], Metrics)
    assert rest[0].step == 22  # the checkpoint was of step 21
    assert early == whole[:5]
    assert late == whole[:25]
    assert rest[:-1] == whole[21:-1]
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "killed")
    assert len(files_of(tmp_path / "whole")) == 3
    assert not job.states.index.is_file()
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


def over(n: int, job: LayerJob, until: int | None = None) -> list[list[Metrics | UnitCommit]]:
    """Train with several workers, or kill all of them after a step."""

    def work(worker: Member) -> list[Metrics | UnitCommit]:
        found = []
        for event in (run := train_layer(job, worker)):
            found.append(event)
            if isinstance(event, Metrics) and event.step == until:
                run.close()
                break
        return found

    return together(n, work)


def assert_like(folder: Path, expected: Path) -> None:
    """Two layers' SAEs, to a hundred-thousandth; what is written beside the weights is the same."""
    (mine, theirs) = (read_sae(place(f) / "layer-002/topk-4-x4-s0") for f in (folder, expected))
    for name in ("encoder", "b_enc", "decoder", "b_dec"):
        torch.testing.assert_close(getattr(mine, name), getattr(theirs, name), rtol=0, atol=1e-5)
    assert (folder / "layer-002/topk-4-x4-s0/cfg.json").read_bytes() == (
        expected / "layer-002/topk-4-x4-s0/cfg.json"
    ).read_bytes()


def test_two_workers_write_the_saes_of_one(store, tmp_path):
    one = list(train_layer(job_of(store, tmp_path / "one")))
    first, second = over(2, job_of(store, tmp_path / "two"))
    assert [e.values for e in first[:-1]] == [e.values for e in second]  # the commit is the first worker's
    assert_like(tmp_path / "two", tmp_path / "one")
    for mine, theirs in zip(second, one, strict=False):
        assert mine.values == pytest.approx(theirs.values, rel=1e-4, abs=1e-6)
    assert {**first[-1].cost, "sums": 0, "workers": 0} == {**one[-1].cost, "sums": 0, "workers": 0}
    assert (first[-1].cost["workers"], one[-1].cost["workers"]) == ([2], [1])
    assert (tmp_path / "two/checkpoints").is_dir()
    assert not list((tmp_path / "two/checkpoints").iterdir())


@pytest.mark.parametrize("numbers", [(2, 2), (2, 1), (1, 3), (3, 2)])
def test_a_killed_run_goes_on_with_another_number_of_workers(store, tmp_path, numbers):
    before, after = numbers
    list(train_layer(job_of(store, tmp_path / "whole")))
    job = job_of(store, tmp_path / "killed")
    over(before, job, until=17)  # saved at 7 and 14
    assert job.states.saved() == [(14, before), (7, before)]
    events = over(after, job)[0]
    assert events[0].step == 15
    assert_like(tmp_path / "killed", tmp_path / "whole")
    assert events[-1].cost["workers"] == ([before, after] if before != after else [before])
    assert job.states.folder.names() == []


def test_all_workers_go_on_from_the_state_that_all_can_read(store, tmp_path):
    list(train_layer(job_of(store, tmp_path / "whole")))
    job = job_of(store, tmp_path / "killed")
    over(2, job, until=17)
    newest = Path(job.states.file(14, 1, 2).path)
    newest.write_bytes(newest.read_bytes()[:1000])
    assert over(2, job)[0][0].step == 8
    assert_like(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("activation", [TopK(k=4), JumpReLU(), Gated()], ids=lambda a: a.kind)
def test_a_file_of_all_workers_is_the_file_of_one(activation, n, tmp_path, monkeypatch):
    """65 latents, whose shards differ by one; pieces of three rows."""
    monkeypatch.setattr("linrep.sae.formats.over_workers.PIECE_BYTES", 3 * 65 * 4)
    config = SaeDesign(activation=activation, expansion=65 / D, decoder="weighted", center="zero")  # no sums: the same bits
    sample = planted(64, D, 24, 3)[0]
    saelens.write(place(tmp_path / "one"), Trainer.begin(config, sample, 1).sae().unscaled(2.0))

    def work(worker: Member) -> None:
        sae = Trainer.begin(config, sample, 1, workers=worker).sae().unscaled(2.0)
        saelens.write(place(tmp_path / "all"), sae, workers=worker)

    together(n, work)
    for name in saelens.FILES:
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_damaged_checkpoint_is_one_clear_line(store, tmp_path):
    """Of two states the older one serves; where none can be read, a line says which file and what to do."""
    job = job_of(store, tmp_path)
    until(job, 17)  # saved at 7 and 14
    assert job.states.index.read_json() == {"saved": [[14, 1], [7, 1]]}
    newest, older = Path(job.states.file(14).path), Path(job.states.file(7).path)
    newest.write_bytes(newest.read_bytes()[:1000])
    assert next(iter(train_layer(job))).step == 8
    for damage in (older.read_bytes()[:1000], b"", b"\x80\x02 no pickle", b"h\x05", b"."):
        older.write_bytes(damage)
        with pytest.raises(StoreError, match=r"layer-002.json is damaged .*: delete it") as error:
            list(train_layer(job))
        assert "\n" not in str(error.value)
    for damage in (b"", b"{}", b"[]", b'{"saved": []}', b'{"saved": [7]}', b'{"saved": [["7", 1]]}', b"\xff"):
        Path(job.states.index.path).write_bytes(damage)
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
        assert job.states.index.read_json() == {"saved": [[7, 1]]}
        assert next(iter(train_layer(job))).step == 8
        list(train_layer(job))
        assert files_of(tmp_path / "whole") == files_of(tmp_path / str(n))
        assert job.states.index.parent.names() == []


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
        ({"batch": 1}, "greater than or equal to 2"),
        ({"grid": {"sparsity": [8, 8]}}, "names a value twice"),
        ({"grid": {"sparsity": [8.5]}}, "valid integer"),
        ({"data": {"text_share": 1.5}}, "less than or equal to 1"),
    ],
)
def test_wrong_sections_are_refused_by_name(change, message):
    with pytest.raises(ValidationError, match=message):
        SaeConfig.model_validate(change)


def test_cadence_workers_and_evaluation_are_no_part_of_what_decides_weights():
    one = SaeConfig()
    other = SaeConfig.model_validate({"checkpoint_every": 3, "evaluation": {"rows": 5}})
    assert one.decisive() == other.decisive()
    assert one.decisive() == SaeConfig.model_validate({"workers": 4}).decisive()
    assert one.decisive() != SaeConfig.model_validate({"rows": 5000, "grid": Grid(seed=(1,)).model_dump()}).decisive()
