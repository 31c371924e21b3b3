"""Steering from recipe to tables: planned, locked, resumed, watched, judged, drawn and tracked."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from linrep import tracking
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.run_probe import plan_probe
from linrep.cluster.session import cluster
from linrep.config import digest
from linrep.directions import read_directions
from linrep.errors import StoreError, TooManySkipped
from linrep.harvest.plan import located, plan_harvest
from linrep.places import Place, place, remove_unfinished
from linrep.probe.artefact import DIRECTIONS, read_probe_manifest
from linrep.recipe import Recipe
from linrep.steer.chunk import read_tables
from linrep.steer.config import Chat, Exact, Forced, Human, SteerConfig, Words
from linrep.steer.effects import effects, judge_answers, matched
from linrep.steer.judges.chat import ChatJudge
from linrep.steer.judges.human import agreement, read_sheet, write_sheet
from linrep.steer.judges.readers import by_choice, by_parser, by_words
from linrep.steer.judges.verdict import Answer, Judge, Verdict
from linrep.steer.plan import SteerManifest, SteerPlan, plan_steer
from linrep.steer.summary import summary
from linrep.store.commit import Commit, read_commits
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now, read_manifest
from linrep.store.read import Store
from linrep.store.tables import read_table, write_table

RESULT = "result.json"
"""Written last: the runs are judged and tracked."""


@dataclass(frozen=True)
class SteerOutcome:
    """What a steering job did.

    Attributes:
        place: The artefact.
        judged: Where the tables of this judge lie.
        n_new: Chunks that this run did.
        tracking_uri: Where its MLflow run is.
        text: What came out, for reading.
        waiting: What people have to do before there are verdicts; None where nobody is waited for.
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
    plan, config = _plan(recipe, workspace), recipe.steer
    with sole_driver(plan.job.place):
        commits = read_commits(plan.job.place)
        if not (plan.job.place / MANIFEST).is_file():
            (plan.job.place / MANIFEST).write_json(asdict(plan.manifest))
        judged = plan.job.place / "judged" / f"{config.judge.kind}-{digest(config.judge, config.damage.matched)}"
        if len(commits) == plan.manifest.n_chunks and (judged / RESULT).is_file():
            text = (judged / "summary.txt").read_bytes().decode()
            return SteerOutcome(plan.job.place, judged, 0, tracking.tracking_uri(workspace), text)
        return _steer(recipe, config, workspace, plan, commits, judged)


def _plan(recipe: Recipe, workspace: Place) -> SteerPlan:
    config = recipe.steer
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo)
    manifest = harvest.place / MANIFEST
    if not manifest.is_file() or manifest.read_json()["status"] != "complete":
        raise StoreError(f"no complete harvest at {harvest.place}: run jobs/harvest.py with this recipe first")
    store = Store(harvest.place, read_manifest(harvest.place), read_commits(harvest.place))
    file = find_directions(recipe, workspace)
    found = read_directions(file)
    more = {} if config.sae is None else {"sae": digest(config.sae)}
    model = located(recipe.model)
    return plan_steer(recipe.name, config, store, harvest.job.corpora, harvest.chunks, model, file, found, workspace, more)


def find_directions(recipe: Recipe, workspace: Place) -> Place:
    """The file of directions: the one that the recipe names, else that of its probe job.

    Raises:
        LinrepError: The probes are not there, or not complete.
    """
    if recipe.steer.probes is not None:
        return place(recipe.steer.probes)
    probes = plan_probe(recipe, workspace).place
    manifest = read_probe_manifest(probes)
    if manifest is None or manifest.status != "complete":
        raise StoreError(f"no complete probes at {probes}: run jobs/probe.py with this recipe first")
    return probes / DIRECTIONS


def _steer(
    recipe: Recipe, config: SteerConfig, workspace: Place, plan: SteerPlan, commits: dict[int, Commit], judged: Place
) -> SteerOutcome:
    remove_unfinished(plan.job.place)
    todo = [chunk for chunk in plan.chunks if chunk.number not in commits]
    n_allowed = int(recipe.pool.max_skipped * plan.manifest.n_cells)
    name = f"steer {recipe.name}-{plan.manifest.digest} {config.judge.kind}"
    params = recipe.model_dump(mode="json")
    with tracking.run(workspace, "steer", name, digest(str(judged)), params, plan.manifest.parents) as run:
        run.tags({"linrep.steering": str(plan.job.place), "linrep.digest": plan.manifest.digest})
        if todo:
            with cluster():
                # Ray, and what it needs, is imported only where there is work.
                from linrep.cluster.steer import steer_chunks

                begun_in = next((commit.precision for commit in commits.values()), None)
                _watch(steer_chunks(plan.job, todo, recipe.pool, begun_in), commits, n_allowed, plan)
        _refuse(commits, n_allowed, plan)
        manifest = _complete(plan, commits)
        tables, extra, waiting = _judge(config, plan, commits, judged)
        text = summary(str(plan.job.place), manifest, tables["effects"], tables["matched"], extra)
        _write(judged, tables, text)
        _track(run, manifest, tables, text, extra)
    if waiting is None:
        # Last, after the run is closed: a driver killed before this line judges and tracks again when it resumes.
        (judged / RESULT).write_json({"judge": config.judge.model_dump(mode="json"), "finished": now(), **extra})
    return SteerOutcome(plan.job.place, judged, len(todo), run.uri, text, waiting)


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
    (plan.job.place / MANIFEST).write_json(asdict(manifest))
    return manifest


def _judge(
    config: SteerConfig, plan: SteerPlan, commits: dict[int, Commit], judged: Place
) -> tuple[dict[str, pa.Table], dict[str, Any], str | None]:
    """The tables, what else there is to say, and what people have to do first, if anything."""
    cells, answers, damage, lens = (read_tables(plan.job.place, commits, name) for name in ("cells", "answers", "damage", "lens"))
    extra: dict[str, Any] = {}
    waiting = None
    judge: Judge
    match config.judge:
        case Words():
            judge = by_words
        case Exact():
            judge = by_parser
        case Forced():
            judge = by_choice
        case Chat():
            judge = ChatJudge(config.judge, plan.job.place / "judged" / "replies")
        case Human():
            judge = _People(config.judge, plan.job.classes, extra)
    verdicts = judge_answers(answers, cells, config, judge)
    if isinstance(judge, ChatJudge):
        extra["usage"] = asdict(judge.usage)
    if isinstance(judge, _People) and judge.written is not None:
        waiting = f"{judge.written} answers are on {config.judge.sheet}: fill in choice and sensible, then run the same command"  # pyright: ignore[reportAttributeAccessIssue]
    tables = {
        "verdicts": verdicts,
        "effects": effects(cells, verdicts, damage, config),
        "matched": matched(cells, damage, config),
        "cells": cells,
        "damage": damage,
        "lens": lens,
    }
    return tables, extra, waiting


@dataclass
class _People:
    """People as a judge: writes their sheet the first time, reads it when it is there."""

    config: Human
    classes: tuple[str, ...]
    extra: dict[str, Any]
    written: int | None = None

    def __call__(self, answers: Sequence[Answer]) -> list[Verdict]:
        file = place(self.config.sheet)
        if not file.is_file():
            self.written = write_sheet(answers, self.classes, file, self.config.max_answers)
            return [Verdict(error="nobody has judged it yet") for _ in answers]
        found = read_sheet(file, answers, self.classes)
        # What the rules would have said of the same answers, to see how far they can be trusted.
        asked = [answer for answer in answers if answer.key in found]
        rules = {answer.key: verdict for answer, verdict in zip(asked, by_words(asked), strict=True)}
        self.extra["agreement_with_words"] = {k: _plain(v) for k, v in asdict(agreement(found, rules)).items()}
        return [found.get(answer.key, Verdict(error="not on the sheet")) for answer in answers]


def _plain(value: float) -> float | None:
    return value if value == value else None  # NaN, which JSON lacks


def _write(judged: Place, tables: dict[str, pa.Table], text: str) -> None:
    for name in ("verdicts", "effects", "matched"):
        write_table(judged, f"{name}.parquet", tables[name])
    (judged / "summary.txt").write_bytes(text.encode())


def _track(run: tracking.Run, manifest: SteerManifest, tables: dict[str, pa.Table], text: str, extra: dict[str, Any]) -> None:
    shown = tables["effects"]
    run.metrics({name: float(value) for name, value in manifest.counts.items()} | metrics(shown))
    for name in ("effects", "matched", "cells", "verdicts", "damage", "lens"):
        if len(tables[name]):
            run.table(f"tables/{name}", tables[name])
    run.json(asdict(manifest), MANIFEST)
    run.text(text, "summary.txt")
    if extra:
        run.json(json.loads(json.dumps(extra)), "judge.json")
    _draw(run, shown, tables["lens"])


def _draw(run: tracking.Run, shown: pa.Table, lens: pa.Table) -> None:
    from linrep.explorer.dose import dose_figure, harm_figure, layer_figure, lens_figure

    measures = set(shown["measure"].to_pylist())
    sites = list(dict.fromkeys(site for site in shown["site"].to_pylist() if site is not None))
    for measure, meaning in (("p_target", "p(target)"), ("turned", "share turned"), ("damage", "damage, nats a token")):
        if measure in measures:
            run.figure(f"figures/layers_{measure}.png", layer_figure(shown, measure, meaning))
            for site in sites:
                run.figure(f"figures/dose_{measure}_{site}.png", dose_figure(shown, measure, meaning, site))
    if "damage" in measures:
        for site in sites:
            run.figure(f"figures/harm_{site}.png", harm_figure(shown, site))
    if len(lens):
        run.figure("figures/lens.png", lens_figure(lens))


def metrics(shown: pa.Table) -> dict[str, float]:
    """The effects at the largest strength as metrics, named by measure, direction, site and layer, so that runs compare."""
    rows = [row for row in shown.to_pylist() if row["edit"] == "add" and row["measure"] in ("p_target", "turned", "damage")]
    strongest = max((row["strength"] for row in rows), default=0.0)
    return {
        f"{row['measure']}_{row['direction']}_{row['site']}_layer{row['layer']:02d}": row["value"]
        for row in rows
        if row["strength"] == strongest
    }


def read_results(judged: Place, name: str) -> pa.Table:
    """A table of a judged job: verdicts, effects or matched."""
    return read_table(judged, f"{name}.parquet")
