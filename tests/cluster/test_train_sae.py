"""SAEs as a job: Ray equals the plain path, nothing is done twice, others are examined, kills change nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import psutil
import pytest
import torch
import yaml

import linrep.store
from linrep import tracking
from linrep.cluster.evaluate_sae import ROOM_BYTES, Attribute, bytes_needed, find_truth
from linrep.cluster.run_train_sae import left_out, run_train_sae
from linrep.cluster.stage import Outcome
from linrep.cluster.train_sae import check_room, lanes_of, layers_at_once, train_on_ray
from linrep.corpora import Corpora
from linrep.errors import LinrepError, RecipeError
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.finish import complete_manifest
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.kind import UnitCommit
from linrep.places import place
from linrep.recipe import Recipe
from linrep.sae.artefact import plan_saes
from linrep.sae.formats import read as read_sae
from linrep.sae.formats.card import FILE as CARD
from linrep.sae.layer import train_layer
from linrep.sae.study import SaeConfig
from linrep.sae.train import Metrics
from linrep.store.commit import read_commits
from linrep.store.manifest import write_manifest
from linrep.store.tables import read_table
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from tests.conftest import write_corpora
from tests.sae.test_layer import CONFIG as PLANTED
from tests.sae.test_layer import job_of as planted_job
from tests.sae.test_layer import planted_store

ROOT = Path(__file__).parents[2]
POOL = Pool(tokens_per_batch=1500, threads=1)
HARVEST = HarvestConfig(layers=(0, 2), views=("pooled", "tokens"), chunk_size=16, tokens_per_sample=16)
SAE = SaeConfig.model_validate(
    {
        "layers": [2],
        "design": {
            "activation": {"kind": "topk", "k": 4},
            "expansion": 2,
            "aux": {"dead_after": 500},
            "adam": {"learning_rate": 0.01},
        },
        "grid": {"seed": [0, 1]},
        "rows": 100 * 32,
        "batch": 32,
        "checkpoint_every": 30,
        "data": {"shuffle_rows": 100},
        "evaluation": {"rows": 200, "texts": 2, "vectors": 2, "most_latents": 4, "samples": 12},
    }
)


@pytest.fixture(scope="module")
def split_corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """Half of everything held out, so that small corpora have something to examine on."""
    corpora = write_corpora(tmp_path_factory.mktemp("corpora"), n_images=24, n_texts=12, n_pairs=9)
    return corpora.model_copy(update={"splits": corpora.splits.model_copy(update={"val": 0.4, "test": 0.1})})


@pytest.fixture(scope="module")
def workspace(split_corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a complete harvest, made without Ray."""
    folder = tmp_path_factory.mktemp("workspace")
    harvest(split_corpora, random_vlm, folder)
    return folder


def harvest(corpora: Corpora, model: ModelConfig, folder: Path) -> None:
    """A complete harvest, in this process."""
    plan = plan_harvest("t", corpora, model, HARVEST, place(folder))
    harvester, preparer = Harvester(load(model, 2), HARVEST, plan.job.layers, 2000), Preparer.from_path(model)
    write_manifest(plan.place, plan.manifest)
    for chunk in plan.chunks:
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, preparer), plan.place, chunk.number)
    write_manifest(plan.place, complete_manifest(plan.place, read_commits(plan.place)))


@pytest.fixture
def fresh(workspace: Path, tmp_path: Path) -> Path:
    """A copy of it to write in."""
    return Path(shutil.copytree(workspace, tmp_path / "ws"))


def recipe_of(corpora: Corpora, model: ModelConfig, **changes: object) -> Recipe:
    sae = SaeConfig.model_validate({**SAE.model_dump(), **changes})
    return Recipe(name="t", corpora=corpora, model=model, harvest=HARVEST, sae=sae, pool=POOL)


def weights(folder: Path) -> dict[str, bytes]:
    """What training wrote, by name: SAEs and reports."""
    names = ("sae_weights.safetensors", "cfg.json", "training.parquet")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in names}


@pytest.fixture(scope="module")
def one_thread():
    """Sums of floats depend on the number of threads."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def plainly(workspace: Path, folder: Path, config: SaeConfig = SAE) -> dict[str, bytes]:
    """The same training in this process, without Ray."""
    store = linrep.store.open(str(workspace))
    plan = plan_saes(store, "t", config, place(folder))
    for job in plan.jobs:
        list(train_layer(job))
    return weights(Path(plan.artefact.place.path))


def saes_of(outcome: Outcome) -> Path:
    """Where the SAEs lie that were evaluated."""
    return Path(outcome.artefact.place.path).parent.parent


def test_ray_equals_the_plain_path_and_a_second_run_does_nothing(
    split_corpora, random_vlm, fresh, tmp_path, one_thread, local_ray, capfd
):
    recipe = recipe_of(split_corpora, random_vlm)
    outcome = run_train_sae(recipe, place(fresh))
    assert outcome.n_new == 1 + 1  # a layer trained, and evaluated
    said = capfd.readouterr().err
    assert all(line.startswith(("sae: ", "evaluate: ")) for line in said.splitlines()), said
    here = saes_of(outcome)
    assert weights(here) == plainly(fresh, tmp_path / "plain")
    assert not list((here / "checkpoints").glob("*.pt"))

    names = ["topk-4-x2-s0", "topk-4-x2-s1"]
    quality = outcome.artefact.table("quality").to_pylist()
    found = {(row["sae"], row["measure"], row["modality"]): row for row in quality}
    for name in names:
        for modality in ("image", "text", "both"):
            assert 0 < found[name, "fvu", modality]["value"] < found[name, "fvu", modality]["control"] < 1.5
        for where in ("image", "text", "both"):
            assert found[name, "n_replaced", where]["value"] > 0
            assert found[name, "kl_zero", where]["control"] is None
            for by in ("spliced", "resample", "mean", "zero"):
                nats = found[name, f"kl_{by}", where]
                assert nats["note"] is None
                assert 0 <= nats["low"] <= nats["value"] <= nats["high"]
        assert found[name, "n_rows", "text"]["value"] > 10
        card = (here / "layer-002" / name / CARD).read_text()
        assert "random directions" in card
        assert (here / "layer-002" / name / "sparsity.safetensors").is_file()
        assert read_sae(here / "layer-002" / name).about["hook_name"] == "blocks.1.hook_resid_post"
    assert found[names[1], f"stability/{names[0]}", "both"]["value"] > found[names[1], f"stability/{names[0]}", "both"]["control"]
    truth = outcome.artefact.table("truth").to_pylist()
    assert {(row["attribute"], row["class_name"]) for row in truth} == {("class", "tench"), ("class", "church")}

    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["parents"]["harvest"] == linrep.store.open(str(fresh)).manifest.digest
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=outcome.uri)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    ((training,), (evaluation,)) = (
        client.search_runs([experiment], f"tags.`linrep.stage` = '{stage}'") for stage in ("sae", "evaluate")
    )
    history = client.get_metric_history(training.info.run_id, f"layer02/{names[0]}/fvu/image")
    assert [point.step for point in history] == list(range(1, 101))
    (bar,) = client.get_metric_history(evaluation.info.run_id, f"fvu/image_{names[0]}_layer02")
    assert bar.value == found[names[0], "fvu", "image"]["value"]
    assert "figures" in {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert evaluation.data.tags["linrep.parent.sae"] == manifest["digest"]
    models = {model.name: model for model in client.search_logged_models([experiment])}
    assert models.keys() == {f"{name}-layer-2" for name in names}
    one = models[f"{names[0]}-layer-2"]
    assert {key: one.params[key] for key in ("architecture", "sparsity", "layer")} == {
        "architecture": "topk", "sparsity": "4", "layer": "2",
    }  # fmt: skip
    assert {m.key: m.value for m in one.metrics}["fvu_image"] == found[names[0], "fvu", "image"]["value"]

    before = {p: p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file() and p.name != "driver.lock"}
    again = run_train_sae(recipe, place(fresh))
    assert (again.n_new, again.text) == (0, outcome.text)
    assert {p: p.stat().st_mtime_ns for p in before} == before

    # Examined anew, as an SAE from elsewhere, it has the same quality.
    other = run_train_sae(recipe, place(fresh), evaluate=str(here / "layer-002" / names[0]))
    assert other.n_new == 1
    theirs = {(r["measure"], r["modality"]): r["value"] for r in other.artefact.table("quality").to_pylist()}
    assert theirs["fvu", "image"] == pytest.approx(found[names[0], "fvu", "image"]["value"], rel=1e-4)
    assert theirs["ce_spliced", "both"] == pytest.approx(found[names[0], "ce_spliced", "both"]["value"], rel=1e-4)

    # With another k in its settings the same weights are another SAE, and are examined anew.
    # A copy: in its own layer, it would not be as it was written.
    settings = Path(shutil.copytree(here / "layer-002" / names[0], tmp_path / "changed" / names[0])) / "cfg.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "k": 2}))
    sparser = run_train_sae(recipe, place(fresh), evaluate=str(settings.parent))
    assert (sparser.n_new, sparser.artefact.place == other.artefact.place) == (1, False)


def test_wrong_input_is_one_clear_line_before_any_cluster_starts(split_corpora, random_vlm, fresh, tmp_path):
    def refused(message: str, where: Path = fresh, evaluate: str | None = None, **changes: object) -> None:
        with pytest.raises(LinrepError, match=message) as error:
            run_train_sae(recipe_of(split_corpora, random_vlm, **changes), place(where), evaluate)
        assert "\n" not in str(error.value)

    refused("no layer 1 in .*: it has 0, 2", layers=[1])
    refused("there is no harvest of this recipe", where=tmp_path / "empty")
    refused("no SAE at", evaluate=str(tmp_path))
    refused("topk-9999-x2-s0 has k 9999, but expansion 2 of .* latents", grid={"sparsity": [4, 9999]})
    (store,) = (fresh / "harvests").iterdir()
    file = next((store / "tokens/layer=2/modality=text").iterdir())
    file.write_bytes(file.read_bytes()[:-20])
    refused("part-0000.* is no whole parquet file")


def test_no_text_rows_while_a_share_is_asked_for_is_one_clear_line(random_vlm, split_corpora, tmp_path):
    images = split_corpora.model_copy(update={"text": None, "pairs": None})
    harvest(images, random_vlm, tmp_path)
    with pytest.raises(LinrepError, match=r"layer 2 of .* holds no text rows .* set the text share to 0"):
        run_train_sae(recipe_of(images, random_vlm), place(tmp_path))


def test_no_held_out_rows_are_one_clear_line_before_training(random_vlm, split_corpora, tmp_path):
    none = split_corpora.model_copy(update={"splits": split_corpora.splits.model_copy(update={"val": 0.0, "test": 0.1})})
    harvest(none, random_vlm, tmp_path)
    with pytest.raises(RecipeError, match=r"holds no rows of the validation split.*raise corpora\.splits\.val") as error:
        run_train_sae(recipe_of(none, random_vlm), place(tmp_path))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "saes").glob("*/manifest.json"))


def commit_of(rows: dict) -> UnitCommit:
    return UnitCommit("layer-002", 0.0, 0, {}, {"layer": 2, "rows": rows})


def test_everything_that_training_left_out_is_told_with_its_reason():
    rows = {
        "image": {"rows": 9, "left_out": {"special": 0, "high_norm": 1200, "nonfinite": 2}, "first_nonfinite": "row 3 of part-0"},
        "text": {"rows": 9, "left_out": {"special": 7, "high_norm": 0, "nonfinite": 0}, "first_nonfinite": None},
    }
    assert left_out(commit_of(rows)) == (
        "  layer 2: left out of training: 1,200 image rows of high norm; 2 image rows that are not finite, the first is row 3 of "
        "part-0; 7 text rows of special tokens"
    )
    nothing = {"image": {"rows": 9, "left_out": {"special": 0, "high_norm": 0, "nonfinite": 0}, "first_nonfinite": None}}
    assert left_out(commit_of(nothing)) == ""


def test_a_test_asks_for_the_memory_that_it_takes():
    """Encoder and decoder of an SAE and its control: 4 * f * d floats; two modalities' rows, twice."""
    config = SAE.evaluation.model_copy(update={"rows": 1000})
    needed = bytes_needed(4096, [32768, 65536], config)
    assert needed == 4 * (32768 + 65536) * 4096 * 4 + 4 * 1000 * 4096 * 4 + ROOM_BYTES


def test_as_many_layers_at_once_as_there_is_room_for():
    """A worker without a GPU uses all cores of its node, unless it is told how many."""
    cpu, gpu = Pool(cpus=0.5), Pool(cpus=2)
    assert layers_at_once(1, 0.0, cpu, {"CPU": 64.0}, nodes=1) == 1
    assert layers_at_once(2, 0.0, cpu, {"CPU": 64.0}, nodes=7) == 3
    assert layers_at_once(1, 0.0, cpu.model_copy(update={"threads": 1}), {"CPU": 2.0}, nodes=1) == 4
    assert layers_at_once(4, 1.0, gpu, {"CPU": 256.0, "GPU": 16.0}, nodes=2) == 4
    assert layers_at_once(4, 1.0, gpu, {"CPU": 16.0, "GPU": 16.0}, nodes=2) == 2
    assert layers_at_once(32, 1.0, gpu, {"CPU": 16.0, "GPU": 16.0}, nodes=2) == 1  # which waits for nodes
    assert lanes_of("abcdefg", 3) == [list("adg"), list("be"), list("cf")]
    assert lanes_of("ab", 5) == [["a"], ["b"]]


def test_workers_that_do_not_fit_are_refused_and_not_waited_for():
    check_room(2, 0.0, Pool(cpus=0.5), {"CPU": 1.0})
    check_room(64, 1.0, Pool(), None)
    with pytest.raises(RecipeError, match=r"3 workers of 0\.5 CPUs need 1\.5, there are 1"):
        check_room(3, 0.0, Pool(cpus=0.5), {"CPU": 1.0})
    with pytest.raises(RecipeError, match=r"2 workers of 1 GPUs need 2, there are 1"):
        check_room(2, 1.0, Pool(cpus=0.5), {"CPU": 8.0, "GPU": 1.0})


def test_truth_takes_images_only_and_keeps_the_halves_apart():
    import numpy as np

    role = ["image", "image", "text", "image", "image", ""]
    found = find_truth(
        "abcdef", role, [True, False, True, True, False, True], [Attribute("a", ("x",), np.array([0, 0, 0, -1, 0, 0]))], 9
    )
    assert found is not None
    assert (found.choose, found.score) == ((0,), (1, 4))
    assert find_truth("ab", ["image"] * 2, [True, True], [Attribute("a", ("x",), np.array([0, 0]))], 9) is None


@pytest.mark.slow
def test_two_workers_on_ray_equal_one_alone(split_corpora, random_vlm, fresh, tmp_path, one_thread, local_ray):
    """Two processes with half of the latents each; the plain path has all. Both find the same artefact's name."""
    recipe = recipe_of(split_corpora, random_vlm, workers=2)
    outcome = run_train_sae(recipe, place(fresh))
    saes = place(saes_of(outcome))
    plan = plan_saes(linrep.store.open(str(fresh)), "t", recipe.sae, place(tmp_path / "plain"))
    events = list(train_layer(plan.jobs[0]))
    assert plan.artefact.place.name == saes.name
    for name in recipe.sae.designs():
        mine, theirs = (read_sae(Path(w.path) / "layer-002" / name) for w in (saes, plan.artefact.place))
        torch.testing.assert_close(mine.decoder, theirs.decoder, rtol=0, atol=1e-5)
        torch.testing.assert_close(mine.encoder, theirs.encoder, rtol=0, atol=1e-5)
    plain = [e.values["fvu/text"] for e in events if isinstance(e, Metrics)]
    rows = read_table(saes / "layer-002", "training.parquet").to_pylist()
    logged = {(r["step"], r["sae"]): r["value"] for r in rows if r["measure"] == "fvu/text"}
    assert list(logged.values()) == pytest.approx(plain, rel=1e-4)
    (commit,) = (json.loads(p.read_text()) for p in (Path(saes.path) / "commits").glob("*.json"))
    assert commit["cost"]["workers"] == [2]


@pytest.mark.slow
def test_three_layers_begin_within_one_start_up_of_each_other(tmp_path, one_thread, local_ray):
    """All report before any is done, and the weights are those of one after another."""
    config = PLANTED.model_copy(update={"rows": 12000 * 64, "checkpoint_every": 10**6})
    store = planted_store(tmp_path / "store", layers=(0, 1, 2))
    jobs = [planted_job(store, tmp_path / "at once", config, layer) for layer in (0, 1, 2)]
    start, first, done = time.monotonic(), {}, []
    for event in train_on_ray(jobs, Pool(cpus=0.2, gpus=0, threads=1)):
        first.setdefault(event.layer, time.monotonic() - start)
        if isinstance(event.what, UnitCommit):
            done.append(event.layer)
            assert len(first) == 3
    assert sorted(done) == [0, 1, 2]
    assert max(first.values()) - min(first.values()) < min(first.values())
    list(train_layer(planted_job(store, tmp_path / "alone", config, 1)))
    written = [(tmp_path / name / "layer-001/topk-4-x4-s0/sae_weights.safetensors").read_bytes() for name in ("at once", "alone")]
    assert written[0] == written[1]


def job_of(recipe: Recipe, folder: Path) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return [sys.executable, "jobs/train_sae.py", "--config", str(path), "--workspace", str(folder / "ws")]


def workers_of(driver: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in driver.children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def start(command: list[str], log: IO[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def wait_for_checkpoint(job: subprocess.Popen, workspace: Path, log: Path) -> None:
    end = time.monotonic() + 900
    while not list((workspace / "saes").glob("*/checkpoints/layer-002.json")):
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_killed_process_changes_no_weight(victim, split_corpora, random_vlm, fresh, tmp_path, one_thread):
    """SIGKILL after a checkpoint: a worker is started again within the job, a driver by the same command."""
    steps = 4000
    recipe = recipe_of(split_corpora, random_vlm, rows=steps * 32, checkpoint_every=100)
    command = job_of(recipe, tmp_path)
    with (tmp_path / "log").open("w") as log:
        job = start(command, log)
        wait_for_checkpoint(job, fresh, tmp_path / "log")
        driver = psutil.Process(job.pid)
        processes = driver.children(recursive=True)
        victims = workers_of(driver) if victim == "worker" else [driver]
        assert victims
        for process in victims:
            process.send_signal(signal.SIGKILL)
        if victim == "driver":
            job.wait(60)
            psutil.wait_procs(processes, timeout=60)
            assert not list((fresh / "saes").glob("*/commits/layer-002.json"))
            job = start(command, log)
        assert job.wait(900) == 0, (tmp_path / "log").read_text()
    (here,) = (fresh / "saes").iterdir()
    assert weights(here) == plainly(fresh, tmp_path / "plain", recipe.sae)
    (commit,) = (json.loads(p.read_text()) for p in (here / "commits").glob("*.json"))
    assert commit["cost"]["steps"] == steps


@pytest.mark.slow
def test_one_of_two_workers_killed_in_the_middle_of_a_sum_changes_no_weight(
    split_corpora, random_vlm, workspace, tmp_path, one_thread
):
    """The other waits in an all-reduce for it; both begin again at the checkpoint. A sum of two has one order: same bytes."""
    recipe = recipe_of(split_corpora, random_vlm, rows=2000 * 32, checkpoint_every=100, workers=2)
    ended = []
    for name in ("killed", "whole"):
        folder = Path(shutil.copytree(workspace, tmp_path / name / "ws"))
        log_path = tmp_path / name / "log"
        with log_path.open("w") as log:
            job = start(job_of(recipe, tmp_path / name), log)
            if name == "killed":
                wait_for_checkpoint(job, folder, log_path)
                one, _ = workers_of(psutil.Process(job.pid))
                one.send_signal(signal.SIGKILL)
                assert not list((folder / "saes").glob("*/commits/layer-002.json"))
            assert job.wait(900) == 0, log_path.read_text()
        (here,) = (folder / "saes").iterdir()
        (commit,) = (json.loads(p.read_text()) for p in (here / "commits").glob("*.json"))
        assert commit["cost"]["steps"] == 2000
        ended.append(weights(here))
    assert ended[0] == ended[1]
    assert len(ended[0]) == 2 * 2 + 1
