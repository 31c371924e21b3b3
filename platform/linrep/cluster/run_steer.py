"""Steering from recipe to tables: planned, locked, resumed, watched, judged, drawn and tracked."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from linrep import tracking
from linrep.cluster.dictionaries import Known, read_sae_for
from linrep.cluster.inputs import complete
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.ready import check_services
from linrep.cluster.run_probe import plan_probe
from linrep.cluster.sae_names import at_path
from linrep.cluster.session import cluster
from linrep.cluster.stage import keep_figures
from linrep.cluster.steered import RESULT
from linrep.config import digest
from linrep.directions import read_directions
from linrep.errors import RecipeError, StoreError, TooManySkipped
from linrep.harvest.config import Pool
from linrep.harvest.plan import located, plan_harvest
from linrep.places import Place, place, remove_unfinished
from linrep.probe.artefact import DIRECTIONS
from linrep.recipe import Recipe
from linrep.records import read_object, write_record
from linrep.sae.origin import origin_lines
from linrep.steer.asked import check_names, check_starts
from linrep.steer.chunk import read_tables
from linrep.steer.config import SteerConfig, SteerDictionary
from linrep.steer.effects import effects, judge_answers, matched
from linrep.steer.judges.choose import make_judge
from linrep.steer.judges.readable import READERS, Readable, names_of, readable
from linrep.steer.judges.verdict import JobJudge
from linrep.steer.plan import (
    SteerChunk,
    SteerJob,
    SteerManifest,
    SteerPlan,
    choose_layers,
    plan_steer,
    read_steer_manifest,
    unedited,
)
from linrep.steer.summary import summary
from linrep.store.commit import Commit, read_commits
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now
from linrep.store.read import Store, read_store
from linrep.store.tables import write_table
from linrep.vlm.files import locate
from linrep.vlm.processor import load_processor


@dataclass(frozen=True)
class SteerOutcome:
    """What a steering job did.

    Attributes:
        place: The artefact.
        judged: Where the tables of this judge lie.
        n_new: Chunks that this run did.
        tracking_uri: Where its MLflow run is.
        text: What came out, for reading.
        waiting: What must happen before the verdicts are final; None where they are.
    """

    place: Place
    judged: Place
    n_new: int
    tracking_uri: str
    text: str
    waiting: str | None = None


def run_steer(recipe: Recipe, workspace: Place) -> SteerOutcome:
    """Do what is missing of a steering job; nothing, if it is complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    plan, config = plan_steering(recipe, workspace), recipe.steer
    judged = plan.job.place / "judged" / f"{config.judge.kind}-{digest(config.judge, config.damage.matched)}"
    judge = make_judge(config.judge, plan.job.place / "judged" / "replies", plan.names)
    if not (plan.job.place / MANIFEST).is_file():
        judge.check()
        _check_prompts(plan, config)
    check_services(workspace, plan.job.place)
    with sole_driver(plan.job.place):
        commits = read_commits(plan.job.place, plan.manifest.n_chunks)
        if len(commits) == plan.manifest.n_chunks and _is_final(judged, judge):
            text = (judged / "summary.txt").read_bytes().decode()
            return SteerOutcome(plan.job.place, judged, 0, tracking.tracking_uri(workspace), text)
        if not config.insist and len(commits) < plan.manifest.n_chunks:
            names_of(plan.manifest.pairs).refuse()
        judge.check()
        begun = read_steer_manifest(plan.job.place)
        if begun is None:
            write_record(plan.job.place / MANIFEST, plan.manifest)
        else:
            plan = replace(plan, manifest=replace(plan.manifest, created=begun.created))
        return _steer(recipe, workspace, plan, commits, judged, judge)


def _check_prompts(plan: SteerPlan, config: SteerConfig) -> None:
    folder, _ = locate(plan.job.model)
    tokenizer = load_processor(folder).tokenizer
    check_starts(tokenizer, config)
    check_names(tokenizer, config.ask, plan.manifest.pairs)


def _is_final(judged: Place, judge: JobJudge) -> bool:
    """Whether verdicts are there, and what they were read from is still the same."""
    file = judged / RESULT
    again = "delete it and run jobs/steer.py with the same recipe again: it judges the answers anew"
    return file.is_file() and read_object(file, again).get("source") == judge.source


def plan_steering(recipe: Recipe, workspace: Place) -> SteerPlan:
    """Work out a steering job; starts no cluster.

    Raises:
        LinrepError: The harvest or the probes are missing, or the steer section asks for what is not there.
    """
    config = recipe.steer
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, begun=True)
    store = read_store(harvest.place) if (harvest.place / MANIFEST).is_file() else None
    if store is None or store.manifest.status != "complete":
        raise StoreError(f"no complete harvest at {harvest.place}: run jobs/harvest.py with this recipe first")
    file = find_directions(recipe, workspace)
    found = read_directions(file)
    layers = choose_layers(config, found, store.manifest.model["n_layers"])
    if config.sae is not None:
        config = config.model_copy(update={"sae": at_path(config.sae, recipe, store, workspace, "steer.sae")})
    known = None if config.sae is None else _dictionary(config.sae, layers, store)
    more = {} if known is None else {"sae": known.sae.digest}
    model = located(recipe.model)
    plan = plan_steer(recipe.name, config, store, harvest.job.corpora, harvest.chunks, model, file, found, workspace, more)
    return plan if known is None else replace(plan, manifest=replace(plan.manifest, saes=[known.origin]))


def _dictionary(sae: SteerDictionary, layers: Sequence[int], store: Store) -> Known:
    """A dictionary, if it fits the plan.

    Raises:
        RecipeError: Its layer is not steered at, or it is of another layer, model or width.
        FormatError: There is no dictionary where one should be.
    """
    if sae.layer not in layers:
        raise RecipeError(f"steer.sae.layer: layer {sae.layer} is not steered at, only {', '.join(map(str, layers))}")
    return read_sae_for(sae, store, "steer.sae")


def find_directions(recipe: Recipe, workspace: Place) -> Place:
    """The file of directions: the one that the recipe names, else that of its probe job.

    Raises:
        LinrepError: The probes are not there, or not complete.
    """
    if recipe.steer.probes is not None:
        return place(recipe.steer.probes)
    return complete(plan_probe(recipe, workspace).artefact).place / DIRECTIONS


def _steer(
    recipe: Recipe, workspace: Place, plan: SteerPlan, commits: dict[int, Commit], judged: Place, judge: JobJudge
) -> SteerOutcome:
    config = recipe.steer
    remove_unfinished(plan.job.place)
    todo = [chunk for chunk in plan.chunks if chunk.number not in commits]
    n_allowed = int(recipe.pool.max_skipped * plan.manifest.n_cells)
    name = f"steer {recipe.name}-{plan.manifest.digest} {config.judge.kind}"
    params = recipe.model_dump(mode="json")
    if todo:
        _check_prompts(plan, config)
    with tracking.run(workspace, "steer", name, tracking.key_of(workspace, judged), params, plan.manifest.parents) as run:
        run.tags({"linrep.steering": tracking.inside(workspace, plan.job.place), "linrep.digest": plan.manifest.digest})
        if todo:
            with cluster():
                # Ray, and what it needs, is imported only where there is work.
                from linrep.cluster.steer import steer_chunks

                begun_in = next((commit.precision for commit in commits.values()), None)
                if not commits and not config.insist and config.judge.kind in READERS:
                    _try_judge(steer_chunks, recipe, plan, judge)
                _watch(steer_chunks(plan.job, todo, recipe.pool, begun_in), commits, n_allowed, plan)
        _refuse(commits, n_allowed, plan)
        manifest = _complete(plan, commits)
        source = judge.source
        tables, extra = _judge(config, plan, commits, judge)
        read = _readable(config, tables["verdicts"])
        text = summary(
            plan.job.place.within(workspace), manifest, tables["cells"], tables["effects"], tables["matched"], extra, read
        )
        text += "".join(f"{line}\n" for line in (*plan.kept_apart, *origin_lines(manifest.saes)))
        _write(judged, tables, text)
        _track(run, judged, manifest, tables, text, extra)
    if judge.waiting is None:
        # Last, after the run is closed: a driver killed before this line judges and tracks again when it resumes.
        made = {"judge": config.judge.model_dump(mode="json"), "source": source, "finished": now()}
        (judged / RESULT).write_json({**made, **extra})
    return SteerOutcome(plan.job.place, judged, len(todo), run.uri, text, judge.waiting)


def _try_judge(
    steer_chunks: Callable[[SteerJob, Sequence[SteerChunk], Pool], Iterable[Commit]],
    recipe: Recipe,
    plan: SteerPlan,
    judge: JobJudge,
) -> None:
    """Ask every image once without an edit, before the runs are paid for, and see whether the judge can read what is said.

    Raises:
        RecipeError: It can read nothing.
    """
    job, chunks = unedited(plan)
    done = read_commits(job.place)
    left = [chunk for chunk in chunks if chunk.number not in done]
    if left:
        done |= {commit.chunk: commit for commit in steer_chunks(job, left, recipe.pool)}
    answers, cells = (read_tables(job.place, done, name) for name in ("answers", "cells"))
    found = _readable(recipe.steer, judge_answers(answers, cells, recipe.steer, judge))
    if judge.waiting is not None:
        print(f"steer: the judge could not be tried before the runs: {judge.waiting}", file=sys.stderr, flush=True)
        return
    found.refuse()
    for line in (*plan.manifest.notes, *found.lines()):
        print(f"steer: {line}", file=sys.stderr, flush=True)


def _readable(config: SteerConfig, verdicts: pa.Table) -> Readable:
    questions = [question.prompt.replace("<image>", "").strip() for question in config.ask.questions]
    return readable(config.judge.kind, verdicts.to_pylist(), questions)


def _watch(new: Iterable[Commit], commits: dict[int, Commit], n_allowed: int, plan: SteerPlan) -> None:
    sizes = {chunk.number: chunk.n_cells for chunk in plan.chunks}
    with Progress("steer", plan.manifest.n_cells, sum(sizes[number] for number in commits), unit="runs") as progress:
        for commit in new:
            commits[commit.chunk] = commit
            progress.add(sizes[commit.chunk], commit.n_tokens)
            _refuse(commits, n_allowed, plan)


def _refuse(commits: dict[int, Commit], n_allowed: int, plan: SteerPlan) -> None:
    failed = [pair for commit in commits.values() for pair in commit.skipped]
    if len(failed) > n_allowed:
        name, reason = failed[-1]
        raise TooManySkipped(
            f"{len(failed):,} runs failed, and pool.max_skipped allows {n_allowed:,} of {plan.manifest.n_cells:,}; "
            f"the latest is {name}: {reason}. All are named in {plan.job.place / 'commits'}. Raise pool.max_skipped to go on"
        )


def _complete(plan: SteerPlan, commits: dict[int, Commit]) -> SteerManifest:
    counts = {
        "n_cells": plan.manifest.n_cells,
        "n_done": sum(commit.n_samples for commit in commits.values()),
        "n_failed": sum(len(commit.skipped) for commit in commits.values()),
        "n_tokens": sum(commit.n_tokens for commit in commits.values()),
    }
    manifest = replace(plan.manifest, status="complete", counts=counts, finished=now())
    write_record(plan.job.place / MANIFEST, manifest)
    return manifest


def _judge(
    config: SteerConfig, plan: SteerPlan, commits: dict[int, Commit], judge: JobJudge
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The tables, and what else there is to say."""
    cells, answers, damage, lens = (read_tables(plan.job.place, commits, name) for name in ("cells", "answers", "damage", "lens"))
    verdicts = judge_answers(answers, cells, config, judge)
    tables = {
        "verdicts": verdicts,
        "effects": effects(cells, verdicts, damage, config),
        "matched": matched(cells, damage, config),
        "cells": cells,
        "damage": damage,
        "lens": lens,
    }
    return tables, judge.extra


def _write(judged: Place, tables: dict[str, pa.Table], text: str) -> None:
    for name in ("verdicts", "effects", "matched"):
        write_table(judged, f"{name}.parquet", tables[name])
    (judged / "summary.txt").write_bytes(text.encode())


def _track(
    run: tracking.Run, here: Place, manifest: SteerManifest, tables: dict[str, pa.Table], text: str, extra: dict[str, Any]
) -> None:
    shown = tables["effects"]
    run.metrics({name: float(value) for name, value in manifest.counts.items()} | metrics(shown))
    for name in ("effects", "matched", "cells", "verdicts", "damage", "lens"):
        if len(tables[name]):
            run.table(f"tables/{name}", tables[name])
    run.json(asdict(manifest), MANIFEST)
    run.text(text, "summary.txt")
    if extra:
        run.json(json.loads(json.dumps(extra)), "judge.json")
    _draw(run, here, shown, tables["lens"])


def _draw(run: tracking.Run, here: Place, shown: pa.Table, lens: pa.Table) -> None:
    from linrep.explorer.dose import dose_figure, edits_figure, harm_figure, layer_figure, lens_figure

    def keep(name: str, figure: Any) -> None:
        run.figure(f"figures/{name}.png", keep_figures(here, name, figure))

    measures = set(shown["measure"].to_pylist())
    sites = list(dict.fromkeys(site for site in shown["site"].to_pylist() if site is not None))
    for measure, meaning in (("p_target", "p(target)"), ("turned", "share turned"), ("damage", "damage, nats a token")):
        if measure in measures:
            keep(f"layers_{measure}", layer_figure(shown, measure, meaning))
            for site in sites:
                keep(f"dose_{measure}_{site}", dose_figure(shown, measure, meaning, site))
    if any(edit not in ("none", "add") for edit in shown["edit"].to_pylist()):
        for measure, meaning in (("p_target", "p(target)"), ("left", "share that leaves"), ("damage", "damage, nats a token")):
            if measure in measures:
                keep(f"edits_{measure}", edits_figure(shown, measure, meaning))
    if "damage" in measures:
        for site in sites:
            keep(f"harm_{site}", harm_figure(shown, site))
    if len(lens):
        keep("lens", lens_figure(lens))


def metrics(shown: pa.Table) -> dict[str, float]:
    """The effects at the largest strength as metrics, named by measure, direction, site and layer, so that runs compare."""
    rows = [row for row in shown.to_pylist() if row["edit"] == "add" and row["measure"] in ("p_target", "turned", "damage")]
    strongest = max((row["strength"] for row in rows), default=0.0)
    return {
        f"{row['measure']}_{row['direction']}_{row['site']}_layer{row['layer']:02d}": row["value"]
        for row in rows
        if row["strength"] == strongest
    }
