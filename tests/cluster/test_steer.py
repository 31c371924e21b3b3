"""Steering on Ray: the same tables as without it, resumable, wrong input one clear line; judged again without running again."""

import contextlib
import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import linrep.store
from linrep.artefact import find
from linrep.chat import NoAnswer
from linrep.cluster.run_steer import find_directions, plan_steering, run_steer
from linrep.cluster.stage import Outcome
from linrep.cluster.steer import load_steerer, steer_chunks
from linrep.corpora import Corpora
from linrep.directions import read_directions, write_directions
from linrep.errors import LinrepError, ModelError, TooManySkipped
from linrep.harvest.config import Pool
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from linrep.recipe import Recipe
from linrep.records import write_record
from linrep.sae.controls import random_sae
from linrep.sae.formats import read as read_sae
from linrep.sae.formats import saelens
from linrep.steer.artefact import STEERING, Steering, read_parts
from linrep.steer.cells import cells
from linrep.steer.chunk import fetch, steer_chunk
from linrep.steer.config import Asking, Chat, Damage, Dose, Forced, Human, Question, SteerConfig, SteerSae, Words
from linrep.steer.plan import choose_layers, choose_pairs, held_out, plan_steer
from linrep.store.layout import MANIFEST
from linrep.store.read import Store
from linrep.vlm.config import ModelConfig
from tests.steering import HARVEST, directions, half_held_out, write_workspace

POOL = Pool(tokens_per_batch=1500, threads=1)
STEER = SteerConfig(
    pairs=(("tench", "church"), ("church", "tench")),
    images=2,
    directions=("class_mean", "random"),
    edits=("zero",),
    dose=Dose(strengths=(1.0, 3.0)),
    ask=Asking(
        questions=(Question(prompt="<image> what is it ?"),), choice="<image> a {first} or a {second} ?", max_new_tokens=2
    ),
    damage=Damage(texts=2, prompt="<image> see :"),
    insist=True,  # a model of random weights says nothing that could be read
    chunk_size=20,
)


@pytest.fixture(scope="module")
def split_corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    return half_held_out(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def workspace(split_corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workspace(tmp_path_factory.mktemp("workspace"), "t", split_corpora, random_vlm)


@pytest.fixture
def fresh(workspace: Path, tmp_path: Path) -> Path:
    """A copy of it to write in."""
    return Path(shutil.copytree(workspace, tmp_path / "ws"))


@pytest.fixture
def recipe(split_corpora: Corpora, random_vlm: ModelConfig, fresh: Path) -> Recipe:
    return recipe_of(split_corpora, random_vlm, fresh)


def recipe_of(corpora: Corpora, model: ModelConfig, workspace: Path, **changes: object) -> Recipe:
    steer = STEER.model_copy(update={"probes": str(workspace / "directions.safetensors"), **changes})
    return Recipe(name="t", corpora=corpora, model=model, harvest=HARVEST, steer=steer, pool=POOL)


def plan_of(recipe: Recipe, workspace: Path):
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, place(workspace))
    store = linrep.store.open(str(harvest.place))
    file = find_directions(recipe, place(workspace))
    return plan_steer(
        "t", recipe.steer, store, harvest.job.corpora, harvest.chunks, recipe.model, file, read_directions(file), place(workspace)
    )


def contents(runs: Steering) -> dict[str, list[dict]]:
    tables = {name: read_parts(runs, name).to_pylist() for name in ("cells", "answers", "damage", "lens")}
    return {name: [{k: _rounded(v) for k, v in row.items()} for row in rows] for name, rows in tables.items()}


def runs_of(outcome: Outcome) -> Steering:
    """The edited runs that verdicts are of."""
    found = find(STEERING, place(Path(outcome.artefact.place.path).parent.parent))
    assert found is not None
    return found


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's chunks are run in this process, without Ray: what is tested is the job, not its actors."""

    def steer_chunks(job, chunks, pool, begun_in=None):
        steerer = load_steerer(job, pool, begun_in, device="cpu")
        for chunk in chunks:
            yield steer_chunk(steerer, chunk, job)

    monkeypatch.setattr("linrep.cluster.steer.steer_chunks", steer_chunks)
    monkeypatch.setattr("linrep.cluster.stage.cluster", contextlib.nullcontext)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, which take longer than all else."""
    monkeypatch.setattr("linrep.cluster.run_judge._figures", lambda _: {})
    monkeypatch.setattr("linrep.cluster.stage.keep_figures", lambda *_: None)
    monkeypatch.setattr("linrep.tracking.Run.figure", lambda *_: None)


@pytest.mark.usefixtures("local_ray")
def test_the_ray_path_gives_the_rows_of_the_plain_path(recipe, fresh, tmp_path):
    plan = plan_of(recipe, fresh)
    assert plan.artefact.manifest.units == [chunk.unit for chunk in plan.chunks]
    commits = {commit.unit: commit for commit in steer_chunks(plan.job, plan.chunks, POOL)}
    assert sorted(commits) == sorted(plan.artefact.done()) == sorted(plan.artefact.manifest.units)
    assert all(commit.cost["failed"] == [] for commit in commits.values())
    plain = replace(plan.job, artefact=replace(plan.artefact, place=place(tmp_path / "plain")))
    steerer = load_steerer(plain, POOL, device="cpu")
    for chunk in plan.chunks:
        steer_chunk(steerer, chunk, plain)
    found, wanted = contents(plan.artefact), contents(plain.artefact)
    assert found == wanted
    assert {name: len(rows) for name, rows in found.items()} == {
        # unedited, and 2 sites x 2 layers x (2 directions x 2 strengths + 1 edit and its control), for 2 pairs x 2 images
        "cells": 4 * (1 + 2 * 2 * (2 * 2 + 2)),
        "answers": 4 * (1 + 2 * 2 * (2 * 2 + 2)),
        "damage": 4 * (1 + 2 * 2 * (2 * 2 + 2)),
        "lens": 4 * 2,
    }
    held = {sample["sample_id"] for sample in linrep.store.open(str(fresh)).samples().to_pylist() if sample["split"] != "train"}
    assert {row["sample_id"] for row in found["cells"]} <= held


@pytest.mark.usefixtures("plainly", "undrawn")
def test_a_second_run_does_only_what_is_missing_and_another_judge_runs_nothing_again(recipe, fresh):
    first = run_steer(recipe, place(fresh))
    runs = runs_of(first)
    whole, n_units = contents(runs), len(runs.manifest.units)
    assert first.n_new == n_units + 1  # all chunks, and the judge
    for artefact in (runs, first.artefact):
        write_record(artefact.place / MANIFEST, replace(artefact.manifest, created="2001-01-01"))  # long before what follows
    again = run_steer(recipe, place(fresh))
    assert (again.n_new, again.text) == (0, first.text)
    for lost in (0, 3):
        (Path(runs.place.path) / f"commits/{runs.manifest.units[lost]}.json").unlink()
    write_record(runs.place / MANIFEST, replace(runs.manifest, created="2001-01-01", status="running"))
    resumed = run_steer(recipe, place(fresh))
    assert resumed.n_new == 2
    assert contents(runs) == whole
    assert resumed.text == first.text
    assert runs_of(first).manifest.created == resumed.artefact.manifest.created == "2001-01-01"
    other = recipe.model_copy(update={"steer": recipe.steer.model_copy(update={"judge": Forced()})})
    judged = run_steer(other, place(fresh))
    assert judged.n_new == 1  # the judge alone
    assert runs_of(judged) == runs_of(first)
    assert judged.artefact.place.path != first.artefact.place.path
    assert runs_of(first).manifest.created == "2001-01-01"


@pytest.mark.usefixtures("plainly")
def test_a_run_in_mlflow_holds_parents_tables_figures_and_metrics(recipe, fresh):
    from mlflow import MlflowClient

    outcome = run_steer(recipe, place(fresh))
    client = MlflowClient(outcome.uri)
    (experiment,) = client.search_experiments(filter_string="name = 'line-of-sight'")
    run, judge = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.start_time)
    harvest = linrep.store.open(str(fresh)).manifest
    for one in (run, judge):
        assert one.info.status == "FINISHED"
        assert one.data.tags["linrep.parent.harvest"] == harvest.digest
        assert one.data.tags["linrep.parent.model"] == harvest.model["digest"]
        assert "linrep.parent.probes" in one.data.tags
    assert judge.data.tags["linrep.parent.steer"] == runs_of(outcome).manifest.digest
    assert run.data.params["steer.images"] == "2"
    assert run.data.metrics["n_done"] == runs_of(outcome).about.counts["n_done"] > 0
    curve = client.get_metric_history(judge.info.run_id, "p_target/class_mean_image")
    assert [point.step for point in curve] == [0, 2]
    assert all(0 <= point.value <= 1 for point in curve)
    tables = {a.path for one in (run, judge) for a in client.list_artifacts(one.info.run_id, "tables")}
    assert tables >= {"tables/effects.csv", "tables/verdicts.parquet", "tables/cells.parquet", "tables/lens.csv"}
    figures = {a.path for one in (run, judge) for a in client.list_artifacts(one.info.run_id, "figures")}
    assert {
        "figures/layers_p_target.png",
        "figures/dose_damage_last.png",
        "figures/harm_image.png",
        "figures/lens.png",
    } <= figures


@pytest.mark.slow
@pytest.mark.usefixtures("plainly", "undrawn")
def test_people_judge_between_two_runs_of_the_same_command(split_corpora, random_vlm, fresh):
    sheet = fresh / "sheet.csv"
    write_directions(fresh / "directions.safetensors", directions(names=("boat", "church", "house", "tench")), {})
    asked = recipe_of(
        split_corpora, random_vlm, fresh,
        judge=Human(sheet=str(sheet), max_answers=5), pairs=(("tench", "house"), ("church", "boat")),
    )  # fmt: skip

    def fill_in(n, choice):
        with sheet.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0].keys())
            writer.writeheader()
            writer.writerows([{**row, "choice": choice, "sensible": "no"} if i < n else row for i, row in enumerate(rows)])

    waiting = run_steer(asked, place(fresh))
    assert waiting.shown.waiting is not None
    rows = list(csv.DictReader(sheet.open()))
    assert len(rows) == 5
    for n in (0, 3):  # the same command again, too early: nothing is final
        fill_in(n, "none")
        early = run_steer(asked, place(fresh))
        assert early.shown.waiting is not None
        assert f"{5 - n} of 5 rows" in early.shown.waiting
    fill_in(5, "none")
    done = run_steer(asked, place(fresh))
    assert done.shown.waiting is None
    assert done.n_new == 1
    assert "agreement_with_words: n 5" in done.text
    finished = done.artefact.place / MANIFEST
    before = finished.read_bytes()
    assert run_steer(asked, place(fresh)).text == done.text
    assert finished.read_bytes() == before  # nothing was judged again
    fill_in(5, "mix")  # somebody thinks better of it
    again = run_steer(asked, place(fresh))
    verdicts = again.artefact.table("verdicts").to_pylist()
    assert {row["score"] for row in verdicts if row["error"] is None} == {0.5}


@pytest.mark.slow
@pytest.mark.usefixtures("plainly", "undrawn")
def test_a_server_that_was_away_is_asked_again_by_the_same_command(recipe, fresh, monkeypatch):
    asked, away = [], [True]

    def ask(self, messages, read, **settings):
        asked.append(messages[0]["content"])
        return NoAnswer("status 503", away=True) if away[0] else read('{"score": -1, "coherence": 1}')

    monkeypatch.setattr("linrep.chat.ChatClient.check", lambda self: None)
    monkeypatch.setattr("linrep.chat.ChatClient.ask", ask)
    chat = recipe.model_copy(update={"steer": recipe.steer.model_copy(update={"judge": Chat(url="http://judge/v1", model="m")})})
    first = run_steer(chat, place(fresh))
    assert first.shown.waiting is not None
    assert "away or too busy (status 503): run the same command again" in first.shown.waiting
    n, away[0] = len(asked), False
    second = run_steer(chat, place(fresh))
    assert second.shown.waiting is None
    assert len(asked) == 2 * n
    verdicts = second.artefact.table("verdicts").to_pylist()
    assert {row["score"] for row in verdicts} == {-1}
    run_steer(chat, place(fresh))
    assert len(asked) == 2 * n  # final now


def test_a_worker_leaves_alone_what_the_harvest_keeps_apart_unless_the_recipe_says_otherwise(recipe, fresh):
    plan = plan_of(recipe, fresh)
    store = linrep.store.open(str(plan_harvest("t", recipe.corpora, recipe.model, recipe.harvest, place(fresh)).place))
    assert plan.job.limits
    for layer in plan.job.layers:
        assert plan.job.limits[layer].image == store.limit("tokens", layer, "image") < float("inf")
        assert plan.job.limits[layer].last == store.limit("last", layer, "image")
    assert load_steerer(plan.job, POOL, device="cpu").limits == plan.job.limits
    all_edited = plan_of(recipe.model_copy(update={"steer": recipe.steer.model_copy(update={"edit_high_norm": True})}), fresh)
    assert all_edited.job.limits == {}
    assert all_edited.artefact.manifest.digest != plan.artefact.manifest.digest


def test_an_sae_trained_anew_at_the_same_path_is_another_job(recipe, fresh):
    config = recipe.steer.model_copy(
        update={"sae": SteerSae(path=str(fresh / "sae"), layer=2), "directions": ("class_mean", "random", "sae_sparse")}
    )
    with_sae = recipe.model_copy(update={"steer": config})
    digests = []
    for seed in (0, 1, 0):
        shutil.rmtree(fresh / "sae", ignore_errors=True)
        write_sae(fresh / "sae", 32, seed)
        plan = plan_steering(with_sae, place(fresh))
        digests.append(plan.artefact.manifest.digest)
        assert plan.artefact.manifest.parents["sae"] == read_sae(str(fresh / "sae")).digest == plan.job.sae_digest
    assert digests[0] == digests[2] != digests[1]
    assert any(cell.direction == "sae_sparse" and cell.layer == 2 for cell in cells(config, plan.job.layers))
    write_sae(fresh / "sae", 32, 5)
    with pytest.raises(ModelError, match="differs between nodes"):
        load_steerer(plan.job, POOL, device="cpu")


def write_sae(folder: Path, width: int, seed: int = 0) -> None:
    """Random directions as a saved SAE."""
    sample = torch.randn(64, width, generator=torch.Generator().manual_seed(seed))
    saelens.write(place(folder), random_sae(sample, 48, 4, seed))


def test_two_classes_of_one_name_are_called_as_the_probes_call_them(split_corpora, random_vlm, fresh, tmp_path):
    folder = Path(shutil.copytree(Path(split_corpora.images.path).parent, tmp_path / "cranes"))
    (folder / "images/classes.json").write_text('{"n01": "crane", "n02": "crane"}')
    cranes = half_held_out(folder)
    (folder / "images/classes.json").write_text('{"n01": "crane", "n02": "crane"}')
    workspace = write_workspace(tmp_path / "cranes_ws", "t", cranes, random_vlm)
    images, _, _ = held_out(linrep.store.open(str(workspace)))
    assert sorted(images) == ["crane (0)", "crane (1)"]
    names = ("crane (0)", "crane (1)", "boat")
    write_directions(workspace / "directions.safetensors", directions(names=names), {})
    plan = plan_of(recipe_of(cranes, random_vlm, workspace, pairs=(("crane (0)", "boat"),)), workspace)
    items = [item for chunk in plan.chunks if chunk.task != "damage" for item in chunk.items]
    assert items
    assert {getattr(fetch(item, plan.job.corpora), "class_name", None) for item in items} == {"crane (0)"}
    same = recipe_of(cranes, random_vlm, workspace, pairs=(("crane (0)", "crane (1)"),))
    with pytest.raises(LinrepError, match=r"crane \(0\) and crane \(1\) are called the same"):
        plan_of(same, workspace)
    drawn = plan_of(recipe_of(cranes, random_vlm, workspace, pairs=2), workspace).artefact.about.pairs
    assert all("boat" in pair for pair in drawn)


def test_of_many_layers_some_are_taken_evenly_with_both_ends():
    found = directions(layers=tuple(range(33)))
    assert choose_layers(STEER.model_copy(update={"max_layers": 7}), found, 32) == (0, 5, 11, 16, 21, 27, 32)
    assert choose_layers(STEER.model_copy(update={"max_layers": 40}), found, 32) == tuple(range(33))


def test_every_class_is_drawn_once_as_source_and_once_as_target_before_any_is_again():
    names = ("a", "b", "c")
    images = {name: [] for name in names}
    pairs = choose_pairs(STEER.model_copy(update={"pairs": 6}), names, images)
    for many, n in ((names, len(names) * (len(names) - 1)), ([f"kind {i}" for i in range(9)], 24)):
        drawn = choose_pairs(STEER.model_copy(update={"pairs": None}), many, {name: [] for name in many})
        assert len(set(drawn)) == n
    for first in (pairs[:3], pairs[3:]):
        assert sorted(source for source, _ in first) == sorted(target for _, target in first) == ["a", "b", "c"]
    assert len(set(pairs)) == 6


@pytest.mark.parametrize("field", ["ask.questions.0.prompt", "ask.choice", "damage.prompt"])
def test_a_prompt_with_two_start_tokens_is_refused_before_anything_is_made(split_corpora, random_vlm, fresh, field, monkeypatch):
    ask, damage, twice = STEER.ask, STEER.damage, "<s><image> b"
    match field.partition(".")[0], field.rpartition(".")[2]:
        case "ask", "prompt":
            ask = ask.model_copy(update={"questions": (Question(prompt=twice), *ask.questions)})
        case "ask", "choice":
            ask = ask.model_copy(update={"choice": twice})
        case _:
            damage = damage.model_copy(update={"prompt": twice, "texts": 2})
    monkeypatch.setattr("linrep.cluster.stage.cluster", lambda: pytest.fail("a cluster was started"))
    before = sorted(fresh.rglob("*"))
    with pytest.raises(LinrepError, match=rf"^steer\.{field} begins with two start tokens: .*'<s>'") as caught:
        run_steer(recipe_of(split_corpora, random_vlm, fresh, ask=ask, damage=damage), place(fresh))
    assert "\n" not in str(caught.value)
    assert sorted(fresh.rglob("*")) == before


def test_wrong_input_is_one_clear_line_before_any_cluster_starts(split_corpora, random_vlm, fresh):
    def fails(match: str, **changes: object) -> None:
        with pytest.raises(LinrepError, match=match) as caught:
            run_steer(recipe_of(split_corpora, random_vlm, fresh, **changes), place(fresh))
        assert "\n" not in str(caught.value)

    fails(r"there is no pair tench to whale: no class 'whale' among church, tench", pairs=(("tench", "whale"),))
    fails(r"layer 7 does not exist, the model has layers 0\.\.4", layers=(0, 7))
    fails(r"no directions of layer 3", layers=(0, 3))
    fails(r"no directions of kind 'lda'", directions=("lda",))
    fails(r"no directions at .*nowhere", probes=str(fresh / "nowhere"))
    melting = STEER.ask.model_copy(update={"choice": "<image> b", "answer": "oat {name}"})  # boat is one token
    fails(r"steer\.ask: the answer 'oat \{name\}' with 'tench' does not continue the prompt", ask=melting)
    fails(r"a four-way sheet needs four classes, there are 2", judge=Human(sheet=str(fresh / "s.csv")))
    nobody = Chat(url="http://127.0.0.1:9/v1", model="m", timeout=2)
    fails(r"no judge answers at http://127\.0\.0\.1:9/v1", judge=nobody)
    write_directions(fresh / "foreign", directions(), {"harvest": "0123456789"})
    fails(r"come from the harvest 0123456789, this recipe's is .*another model's", probes=str(fresh / "foreign"))
    for file, width in (("wide", 16), ("fits", 32)):
        write_sae(fresh / file, width)
    fails(r"steer\.sae\.layer: layer 1 is not steered at, only 0, 2", sae=SteerSae(path=str(fresh / "fits"), layer=1))
    fails(r"steer\.sae: .*wide is for width 16, the store has 32", sae=SteerSae(path=str(fresh / "wide"), layer=2))
    fails(r"nothing-there", sae=SteerSae(path=str(fresh / "nothing-there"), layer=2))
    fails(r"3 pairs of 2 classes, there are only 2", pairs=3)
    for file, made, match in (
        ("narrow", directions(width=16), r"width 16, the model's stream 32: they were made from another model"),
        ("single", directions(names=("tench",)), r"steering needs two classes, the directions hold 1: tench"),
    ):
        write_directions(fresh / file, made, {})
        fails(match, probes=str(fresh / file))
    unharvested = recipe_of(split_corpora, random_vlm, fresh)
    unharvested = unharvested.model_copy(update={"harvest": HARVEST.model_copy(update={"seed": 5})})
    with pytest.raises(LinrepError, match=r"no harvest of this recipe in .*run jobs/harvest.py with the same recipe first"):
        run_steer(unharvested, place(fresh))
    unprobed = recipe_of(split_corpora, random_vlm, fresh, probes=None)
    unprobed = unprobed.model_copy(update={"probe": unprobed.probe.model_copy(update={"min_per_class": 1})})
    with pytest.raises(
        LinrepError, match=r"there are no probes of this recipe at .*: run jobs/probe.py with the same recipe first"
    ):
        run_steer(unprobed, place(fresh))


def test_the_digest_names_what_decides_the_runs_and_not_who_judges_them(recipe, fresh):
    def digest(**changes: object) -> str:
        return plan_of(
            recipe.model_copy(update={"steer": recipe.steer.model_copy(update=changes)}), fresh
        ).artefact.manifest.digest

    base = digest()
    assert digest(judge=Words()) == digest(judge=Human(sheet="s.csv")) == base
    assert digest(layers=(0, 2)) == digest(layers="all") == base
    changes = {
        "images": 1,
        "directions": ("class_mean",),
        "edits": (),
        "dose": Dose(strengths=(1.0,)),
        "seed": 1,
        "chunk_size": 21,
    }
    assert len({base, *(digest(**{k: v}) for k, v in changes.items())}) == 1 + len(changes)
    write_directions(fresh / "directions.safetensors", directions(layers=(0, 2)), {"changed": "parents"})
    assert digest() != base


def test_pairs_are_drawn_without_repeats_and_every_chunk_stays_within_its_size(recipe, fresh):
    plan = plan_of(recipe.model_copy(update={"steer": recipe.steer.model_copy(update={"pairs": 2})}), fresh)
    assert sorted(plan.artefact.about.pairs) == [["church", "tench"], ["tench", "church"]]
    assert all(chunk.n_cells <= 20 or len(chunk.items) == 1 for chunk in plan.chunks)
    assert [chunk.number for chunk in plan.chunks] == list(range(len(plan.chunks)))
    assert {chunk.task for chunk in plan.chunks} == {"answers", "damage", "lens"}
    assert plan.artefact.about.damage_texts == "captions"
    assert isinstance(linrep.store.open(str(fresh)), Store)


@pytest.mark.slow
@pytest.mark.usefixtures("plainly", "undrawn")
def test_too_many_failed_runs_end_the_job_and_say_why(recipe, fresh):
    boundless = Dose(strengths=(3e38,))  # the edited stream overflows
    recipe = recipe.model_copy(update={"steer": recipe.steer.model_copy(update={"dose": boundless})})
    with pytest.raises(TooManySkipped, match=r"runs failed, and pool\.max_skipped allows .*FloatingPointError"):
        run_steer(recipe, place(fresh))
    lenient = recipe.model_copy(update={"pool": POOL.model_copy(update={"max_skipped": 1.0})})
    outcome = run_steer(lenient, place(fresh))
    rows = contents(runs_of(outcome))["cells"]
    assert all(row["error"] is None for row in rows if row["edit"] in ("none", "zero"))
    failed = [row for row in rows if row["error"] is not None]
    assert failed
    assert all("not finite" in row["error"] and row["p_target"] is None for row in failed)


def test_recipes_hold_the_section(tmp_path):
    shown = yaml.safe_load((Path(__file__).parents[2] / "recipes/demo.yaml").read_text())
    assert SteerConfig.model_validate(shown["steer"]).judge.kind == "exact"


@pytest.mark.slow
@pytest.mark.usefixtures("plainly", "undrawn")
def test_a_judge_that_can_read_nothing_stops_the_job_before_the_runs(recipe, fresh, capsys):
    strict = recipe.model_copy(update={"steer": recipe.steer.model_copy(update={"insist": False})})
    with pytest.raises(
        LinrepError, match=r"judge words finds the class in none of 4 unedited answers: .*Nothing was run\. Ask oth"
    ) as e:
        run_steer(strict, place(fresh))
    assert "\n" not in str(e.value)
    (folder,) = (fresh / "steering").iterdir()
    assert not (folder / "commits").exists()
    insisted = run_steer(recipe, place(fresh))  # the same artefact
    assert Path(runs_of(insisted).place.path) == folder
    assert "measure  CHANGED to the probability of the target" in insisted.text
    assert "judge words finds the class in 0 of 4 unedited answers (0%)" in insisted.text


@pytest.mark.slow
@pytest.mark.usefixtures("plainly", "undrawn")
def test_a_judge_that_can_read_is_tried_once_and_says_how_much(recipe, fresh, monkeypatch, capsys):
    monkeypatch.setattr("linrep.steer.passes.decode", lambda vlm, said: ["a Tench."] * len(said))
    strict = recipe.model_copy(update={"steer": recipe.steer.model_copy(update={"insist": False})})
    outcome = run_steer(strict, place(fresh))
    for text in (outcome.text, capsys.readouterr().err):
        assert "judge words finds the class in 2 of 4 unedited answers (50%)" in text
        assert "no unedited answer names 1 of the source classes: 'church'" in text
    assert "measure  share of answers turned" in outcome.text
