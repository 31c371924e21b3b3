"""The harvest on Ray: the same rows as without it, resumable, honest about what it skips."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import linrep.store
from linrep.cluster import harvest as on_ray
from linrep.cluster.actors import actor_counts
from linrep.cluster.harvest import Parcel, Reservation, harvest_chunks, parts_at_once, read_part, reserve
from linrep.cluster.lock import sole_driver
from linrep.cluster.run_harvest import reading, run_harvest
from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.errors import LinrepError, ModelError, RecipeError, TooManySkipped, WorkspaceBusy
from linrep.harvest import parcels
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.extend import Extension
from linrep.harvest.finish import complete_manifest
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import Job, Plan, plan_harvest
from linrep.harvest.take import ChunkWork
from linrep.places import place
from linrep.recipe import Recipe
from linrep.store import Store
from linrep.store.commit import Commit, read_commits
from linrep.store.manifest import write_manifest
from linrep.store.packs import packs_in
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from tests.conftest import encoded_image, write_corpora
from tests.stores import assert_equal, files_in

CONFIG = HarvestConfig(layers=(0, 2), tokens_per_sample=7, chunk_size=8)
POOL = Pool(tokens_per_batch=400, threads=1, max_skipped=0)


def recipe_of(corpora: Corpora, model: ModelConfig, config: HarvestConfig = CONFIG, pool: Pool = POOL) -> Recipe:
    return Recipe(name="t", corpora=corpora, model=model, harvest=config, pool=pool)


def harvest_plainly(plan: Plan) -> Store:
    """The whole harvest in this process, without Ray."""
    preparer = Preparer.from_path(plan.job.model)
    harvester = Harvester(load(plan.job.model, max(plan.job.layers)), plan.job.config, plan.job.layers, POOL.tokens_per_batch)
    write_manifest(plan.place, plan.manifest)
    for chunk in plan.chunks:
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, preparer), plan.place, chunk.number)
    write_manifest(plan.place, complete_manifest(plan.place, read_commits(plan.place)))
    return linrep.store.open(plan.place.uri)


def whole(plan: Plan) -> list[ChunkWork]:
    """All chunks, of which all is computed."""
    return Extension().works(plan.manifest, plan.chunks, {})


@pytest.fixture(scope="module")
def plain(corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return harvest_plainly(plan_harvest("t", corpora, random_vlm, CONFIG, place(tmp_path_factory.mktemp("plain"))))


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_the_ray_path_gives_the_rows_of_the_plain_path(corpora, random_vlm, plain, tmp_path):
    outcome = run_harvest(recipe_of(corpora, random_vlm), place(tmp_path))
    assert outcome.n_new == len(outcome.artefact.store.commits) == 3 + 3 + 2
    assert outcome.artefact.store.complete
    assert len(outcome.artefact.store.samples()) == 57
    assert_equal(outcome.artefact.store, plain)
    assert outcome.artefact.store.manifest.digest == plain.manifest.digest
    assert outcome.artefact.store.manifest.statistics == plain.manifest.statistics


class InSmallParcels(on_ray.ChunkHarvester):
    """An actor whose chunks of eight are read in parts of three records and parcels of one sample; a reader dies on the way."""

    def __init__(self, *args: object) -> None:
        parcels.PART_RECORDS, on_ray.read_part = 3, read_in_small_parcels
        super().__init__(*args)  # pyright: ignore[reportArgumentType]


def read_in_small_parcels(job: Job, part: Chunk) -> Iterator[Parcel | LinrepError]:
    parcels.PARCEL_BYTES = 1
    died = Path(job.place.path) / "died"
    for i, parcel in enumerate(read_part(job, part)):
        if i == 2 and not died.exists():
            died.touch()
            os._exit(1)
        yield parcel


@pytest.mark.usefixtures("local_ray")
def test_rows_do_not_depend_on_parts_and_parcels_nor_on_a_reader_that_is_lost_in_the_middle(
    corpora, random_vlm, plain, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_ray, "ChunkHarvester", InSmallParcels)
    store = run_harvest(recipe_of(corpora, random_vlm), place(tmp_path)).artefact.store
    assert (Path(store.place.path) / "died").exists()
    assert_equal(store, plain)


@pytest.mark.usefixtures("local_ray")
def test_extended_on_ray_by_a_layer_and_a_corpus_it_has_the_rows_of_the_plain_path(corpora, random_vlm, plain, tmp_path):
    less = recipe_of(corpora.model_copy(update={"text": None}), random_vlm, CONFIG.model_copy(update={"layers": (0,)}))
    first = run_harvest(less, place(tmp_path)).artefact.store
    second = run_harvest(recipe_of(corpora, random_vlm), place(tmp_path)).artefact.store
    assert_equal(second, plain)
    assert second.manifest.statistics == plain.manifest.statistics
    taken = {chunk: sum(part.files for part in commit.taken) for chunk, commit in second.commits.items()}
    # Of images and pairs, those of layer 0; of texts, which stand between, nothing. Images and pairs have special tokens.
    assert [bool(taken[chunk]) for chunk in range(8)] == [True] * 3 + [False] * 3 + [True] * 2
    assert {part.harvest for commit in second.commits.values() for part in commit.taken} == {first.place.name}
    fewer = recipe_of(corpora.model_copy(update={"pairs": None}), random_vlm, CONFIG.model_copy(update={"views": ("last",)}))
    assert run_harvest(fewer, place(tmp_path)).n_new == 6
    assert linrep.store.open(str(first.place)).verify().whole


@pytest.mark.usefixtures("local_ray")
def test_a_second_run_does_only_what_is_missing(corpora, random_vlm, plain, tmp_path, monkeypatch):
    """With packs, which a harvest of more chunks has: they are written on the way, and dropped where a commit is gone."""
    monkeypatch.setattr("linrep.cluster.run_harvest.FEWEST", 1)
    monkeypatch.setattr("linrep.cluster.run_harvest.EVERY", 3)
    recipe = recipe_of(corpora, random_vlm)
    store = run_harvest(recipe, place(tmp_path)).artefact.store
    again = run_harvest(recipe, place(tmp_path))
    assert again.n_new == 0
    folder = Path(store.place.path)
    assert packs_in(store.place) == [0]
    for lost in (2, 5):
        (folder / f"commits/{lost:06d}.json").unlink()
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace('"complete"', '"running"'))
    resumed = run_harvest(recipe, place(tmp_path))
    assert resumed.n_new == 2
    assert_equal(resumed.artefact.store, plain)
    assert packs_in(store.place) == [0]
    assert linrep.store.open(str(folder)).verify().whole
    assert_equal(linrep.store.open(str(folder)), plain)


@pytest.mark.usefixtures("local_ray")
def test_a_corrupt_image_is_skipped_and_named(random_vlm, tmp_path):
    corpora = write_corpora(tmp_path / "corpora", n_pairs=3)
    bad = tmp_path / "corpora/images/n01/p005.JPEG"
    bad.write_bytes(encoded_image(5)[:300])
    (tmp_path / "corpora/images/n02/p006.JPEG").write_bytes(b"no image at all")
    pool = POOL.model_copy(update={"max_skipped": 0.05})
    store = run_harvest(recipe_of(corpora, random_vlm, pool=pool), place(tmp_path / "ws")).artefact.store
    skipped = dict(pair for commit in store.commits.values() for pair in commit.skipped)
    assert skipped.keys() == {"images/n01/p005.JPEG", "images/n02/p006.JPEG"}
    assert "truncated" in skipped["images/n01/p005.JPEG"]
    assert store.manifest.counts["n_skipped"] == 2
    assert store.manifest.counts["n_samples"] == 22 + 17 + 6 - 2
    rows = {row["sample_id"]: row for row in store.samples().to_pylist()}
    assert rows["images/n01/p005.JPEG"]["error"] == skipped["images/n01/p005.JPEG"]
    assert "images/n01/p005.JPEG" not in store.select("pooled", 0).table(["sample_id"])["sample_id"].to_pylist()


@pytest.mark.usefixtures("local_ray")
def test_too_many_skipped_samples_end_the_job_and_raising_the_limit_lets_it_go_on(random_vlm, tmp_path):
    corpora = write_corpora(tmp_path / "corpora", n_pairs=0, n_texts=3)
    corpora = corpora.model_copy(update={"pairs": None})
    for i in (1, 3, 5):
        (tmp_path / f"corpora/images/n01/p{i:03d}.JPEG").write_bytes(b"")
    workspace = place(tmp_path / "ws")
    strict = recipe_of(corpora, random_vlm, pool=POOL.model_copy(update={"max_skipped": 0.05}))
    for _ in range(2):  # and again when it is started again
        with pytest.raises(TooManySkipped, match=r"pool\.max_skipped allows 1 of 25.*images/n01/p00"):
            run_harvest(strict, workspace)
    lenient = recipe_of(corpora, random_vlm, pool=POOL.model_copy(update={"max_skipped": 0.5}))
    assert run_harvest(lenient, workspace).artefact.store.manifest.counts["n_skipped"] == 3


def test_the_second_driver_says_so_and_leaves(corpora, random_vlm, tmp_path):
    recipe = recipe_of(corpora, random_vlm)
    plan = plan_harvest(recipe.name, corpora, random_vlm, CONFIG, place(tmp_path))
    with sole_driver(plan.place), pytest.raises(WorkspaceBusy, match=r"another driver \(process \d+ on .*\) is writing"):
        run_harvest(recipe, place(tmp_path))
    assert files_in(plan.place) == {"driver.lock"}


@pytest.mark.usefixtures("local_ray")
def test_two_drivers_that_plan_at_once_do_the_work_once(corpora, random_vlm, tmp_path, monkeypatch):
    """Planning makes nothing that the other could be kept from: whoever comes to the lock second finds the rows."""
    recipe, others = recipe_of(corpora, random_vlm), []

    def plan_while_another_runs(*asked: object, **more: object) -> Plan:
        monkeypatch.undo()
        plan = plan_harvest(*asked, **more)  # pyright: ignore[reportArgumentType]
        others.append(run_harvest(recipe, place(tmp_path)))
        return plan

    monkeypatch.setattr("linrep.cluster.run_harvest.plan_harvest", plan_while_another_runs)
    mine = run_harvest(recipe, place(tmp_path))
    assert [other.n_new for other in others] == [8]
    assert mine.n_new == 0


@pytest.mark.usefixtures("local_ray")
def test_a_worker_refuses_a_model_that_differs_from_the_planned_one(corpora, random_vlm, tmp_path):
    import dataclasses

    plan = plan_harvest("t", corpora, random_vlm, CONFIG, place(tmp_path))
    job = dataclasses.replace(plan.job, model_digest="another")
    with pytest.raises(ModelError, match="differs between nodes"):
        list(harvest_chunks(job, whole(plan)[:1], POOL))


def test_the_digest_names_what_decides_the_rows_and_nothing_else(corpora, random_vlm, tmp_path):
    def digest(config: HarvestConfig, name: str = "a") -> str:
        return plan_harvest("t", corpora, random_vlm, config, place(tmp_path / name)).manifest.digest

    base = digest(CONFIG)
    assert digest(CONFIG, "elsewhere") == base
    everything = CONFIG.model_copy(update={"layers": "all"})
    assert digest(everything) == digest(CONFIG.model_copy(update={"layers": (0, 1, 2, 3, 4)}))
    changes = {"layers": (0, 1), "views": ("last",), "dtype": "float32", "image_size": (56, 56), "chunk_size": 9, "seed": 1}
    assert len({base, *(digest(CONFIG.model_copy(update={k: v})) for k, v in changes.items())}) == 1 + len(changes)


def test_a_run_in_mlflow_holds_recipe_digests_metrics_and_manifest(corpora, random_vlm, local_ray, tmp_path):
    from mlflow import MlflowClient

    recipe = recipe_of(corpora, random_vlm)
    outcome = run_harvest(recipe, place(tmp_path))
    client = MlflowClient(outcome.uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "line-of-sight"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["harvest.chunk_size"] == "8"
    assert run.data.params["corpora.splits.val"] == "0.1"
    assert run.data.tags["linrep.digest"] == outcome.artefact.store.manifest.digest
    assert run.data.tags["linrep.parent.model"] == outcome.artefact.store.manifest.model["digest"]
    assert run.data.tags["linrep.parent.corpora"] == outcome.artefact.store.manifest.corpora["digest"]
    assert run.data.metrics["n_samples"] == 57
    spent = {name: value for name, value in run.data.metrics.items() if name.startswith("time_")}
    assert set(spent) == {f"time_{work}" for work in ("read", "decode", "prepare", "forward", "copy", "write", "wait")}
    assert min(spent.values()) >= 0
    assert spent["time_forward"] + spent["time_wait"] == pytest.approx(1)
    assert spent["time_decode"] > 0
    assert spent["time_write"] > 0
    curve = client.get_metric_history(run.info.run_id, "norm_p50_image")
    assert {point.step for point in curve} == set(outcome.artefact.store.manifest.layers)
    assert all(point.value > 0 for point in curve)
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"manifest.json", "summary.txt"}
    local = client.download_artifacts(run.info.run_id, "manifest.json", str(tmp_path))
    assert yaml.safe_load(Path(local).read_text())["digest"] == outcome.artefact.store.manifest.digest


def test_actors_that_nobody_can_count_are_refused():
    assert actor_counts(Pool(), 0.0, 0.0) == (1, 1)
    assert actor_counts(Pool(), 0.5, 2.0) == (4, 4)
    assert actor_counts(Pool(actors=(2, 8)), 1.0, 0.0) == (2, 8)
    with pytest.raises(RecipeError, match=r"the cluster has 0 GPUs now: set pool\.actors"):
        actor_counts(Pool(), 1.0, 0.0)


def test_memory_is_reserved_for_what_is_on_its_way_and_not_for_chunks():
    mb = 10**6
    there = {"CPU": 2.0, "memory": 600.0 * mb}
    # Two parcels of 64 MB; two windows of 192 MB and a record more.
    assert reserve(Pool(), 1, 2 * mb, 128 * mb, there) == Reservation(1.0, 128 * mb, 2 * 128 * mb)
    for chunk in (1024 * mb, 4096 * mb):
        assert reserve(Pool(), 1, 2 * mb, chunk, there) == Reservation(1.0, 128 * mb, 2 * 194 * mb)
    assert reserve(Pool(cpus=0.75), 2, mb, 8 * mb, there) == Reservation(0.5, 8 * mb, 2 * 8 * mb)
    assert reserve(Pool(), 1, 0, 0, there) == Reservation(1.0, 0, 0)  # texts
    assert reserve(Pool(), 99, 2 * mb, 1024 * mb, None) == Reservation(1.0, 128 * mb, 388 * mb)  # other nodes will come
    with pytest.raises(RecipeError, match=r"2 actors and a reader need 904.0 MB .* has 600.0 MB here: lower pool.actors"):
        reserve(Pool(), 2, 2 * mb, 1024 * mb, there)


def test_as_many_parts_are_read_at_once_as_there_are_cpus_and_room_for():
    mb = 10**6
    there = {"CPU": 18.0, "object_store_memory": 10_000.0 * mb}
    assert parts_at_once(Pool(), 2, mb, there, False) == 5  # 17 CPUs for two chunks of each of two actors
    assert parts_at_once(Pool(), 2, mb, {**there, "CPU": 2.0}, False) == 2  # one is read while one is taken
    assert parts_at_once(Pool(), 1, mb, {**there, "CPU": 64.0}, False) == 8
    # Half the store has room for three parts of 64 records for each of four chunks.
    assert parts_at_once(Pool(), 2, 6 * mb, there, False) == 3
    assert parts_at_once(Pool(), 2, 6 * mb, there, True) == 5  # where each node has a store of its own


def test_no_chunk_holds_more_than_was_reserved_for_it(corpora, random_vlm, tmp_path):
    preparer = Preparer.from_path(random_vlm)
    for image_size in (None, (56, 56)):
        plan = plan_harvest("t", corpora, random_vlm, CONFIG.model_copy(update={"image_size": image_size}), place(tmp_path))
        preparer.image_size = image_size
        held = [
            [s.pixels.nbytes for s in prepare_chunk(chunk, corpora, preparer) if s.pixels is not None] for chunk in plan.chunks
        ]
        assert 0 < max(map(sum, held)) <= plan.job.chunk_bytes
        assert 0 < max(max(own, default=0) for own in held) <= plan.job.record_bytes
        if image_size is not None:  # all images alike: the bound is reached
            assert max(map(sum, held)) == plan.job.chunk_bytes
            assert max(max(own, default=0) for own in held) == plan.job.record_bytes
    text = corpora.model_copy(update={"images": None, "pairs": None})
    texts = plan_harvest("t", text, random_vlm, CONFIG, place(tmp_path)).job
    assert texts.chunk_bytes == texts.record_bytes == 0


@pytest.mark.usefixtures("local_ray")
def test_actors_that_leave_no_cpu_for_reading_are_refused_at_once(corpora, random_vlm, tmp_path):
    plan = plan_harvest("t", corpora, random_vlm, CONFIG, place(tmp_path))
    with pytest.raises(RecipeError, match="leave no CPU for reading"):
        list(harvest_chunks(plan.job, whole(plan)[:1], POOL.model_copy(update={"actors": (8, 8), "cpus": 1.0})))


def test_the_reading_hint_of_a_store_of_texts_alone_reads_rows(corpora, random_vlm, tmp_path):
    texts = corpora.model_copy(update={"images": None, "pairs": None})
    plan = plan_harvest("t", texts, random_vlm, CONFIG.model_copy(update={"views": ("last",)}), place(tmp_path))
    store = harvest_plainly(plan)
    hint = reading(store)
    assert hint == 'select("last", layer=2, modality="text").torch()'
    assert len(eval(f"store.{hint}", {"store": store})) == 17


@pytest.mark.usefixtures("local_ray")
def test_a_driver_that_dies_before_the_last_line_leaves_nothing_out_of_mlflow(corpora, random_vlm, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    from linrep import tracking

    recipe = recipe_of(corpora, random_vlm)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking.Run, "metrics", die)
        with pytest.raises(KeyboardInterrupt):
            run_harvest(recipe, place(tmp_path))
    outcome = run_harvest(recipe, place(tmp_path))
    client = MlflowClient(outcome.uri)
    (run,) = client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["n_samples"] == 57
    assert outcome.artefact.store.manifest.status == "complete"


@pytest.mark.usefixtures("local_ray")
def test_a_store_is_not_continued_in_another_precision(corpora, random_vlm, tmp_path):
    plan = plan_harvest("t", corpora, random_vlm, CONFIG, place(tmp_path))
    (commit,) = harvest_chunks(plan.job, whole(plan)[:1], POOL)
    assert isinstance(commit, Commit)
    assert commit.precision == "float32"
    with pytest.raises(RecipeError, match=r"begun in bfloat16.*set pool\.precision to bfloat16"):
        list(harvest_chunks(plan.job, whole(plan)[1:2], POOL, begun_in="bfloat16"))


def test_a_disk_that_fails_once_is_tried_again_and_one_that_stays_away_is_one_line(monkeypatch):
    from linrep.cluster import fan_out
    from linrep.errors import ServiceError

    monkeypatch.setattr(fan_out, "PAUSES", (0.0, 0.0))
    left = [OSError("not now"), OSError("not now")]

    def flaky() -> str:
        if left:
            raise left.pop()
        return "read"

    def gone() -> str:
        raise OSError("gone for good")

    assert fan_out.or_error(flaky) == "read"
    outcome = fan_out.or_error(gone)
    assert isinstance(outcome, ServiceError)
    assert "failed 3 times, at last with: gone for good" in str(outcome)
