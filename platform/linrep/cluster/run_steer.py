"""The steering stage: what it reads, what it runs, and who judges the answers. `linrep.cluster.stage` runs it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from linrep import tracking
from linrep.artefact import find
from linrep.cluster.given_saes import GivenSae, read_sae_for
from linrep.cluster.inputs import complete, harvested
from linrep.cluster.run_judge import VerdictStage, readable_answers
from linrep.cluster.run_probe import plan_probe
from linrep.cluster.sae_names import at_path
from linrep.cluster.stage import Counts, Outcome, Records, Shown, Step, run_stage
from linrep.contents.sources import located
from linrep.directions import read_directions
from linrep.errors import RecipeError, TooManySkipped
from linrep.explorer.dose import lens_figure
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.places import Place, place
from linrep.probe.artefact import DIRECTIONS
from linrep.recipe import Recipe
from linrep.steer.artefact import STEERING, Steering, counts_of, failed_runs, read_parts, reopen, units_by_table
from linrep.steer.config import SteerConfig, SteerSae
from linrep.steer.judges.choose import make_judge
from linrep.steer.judges.readable import READERS, names_of
from linrep.steer.judges.verdict import JobJudge
from linrep.steer.plan import SteerPlan, choose_layers, plan_steer, unedited
from linrep.steer.prompts import check_names, check_starts
from linrep.store.read import Store
from linrep.vlm.files import locate
from linrep.vlm.processor import load_processor


@dataclass(frozen=True)
class SteerStage:
    """Edited runs: forced choices, free answers, damage and the logit lens under every edit.

    Attributes:
        plan: What is run.
        config: The recipe's section.
        pool: Actors, GPUs and batch size.
        judge: Who will read the answers; asked to read the unedited ones before the runs are paid for.
    """

    plan: SteerPlan
    config: SteerConfig
    pool: Pool
    judge: JobJudge
    on_ray = True

    @property
    def artefact(self) -> Steering:
        """What it makes."""
        return self.plan.artefact

    @property
    def counts(self) -> Counts:
        """Progress in runs; speed in tokens."""
        done = set(self.artefact.done())
        return Counts("runs", "tokens", self.artefact.about.n_cells, sum(c.n_cells for c in self.plan.chunks if c.unit in done))

    def of(self, artefact: Steering) -> "SteerStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, plan=replace(self.plan, job=replace(self.plan.job, artefact=artefact)))

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Run chunks of cells.

        Raises:
            RecipeError: The judge can read none of the unedited answers.
            TooManySkipped: More runs fail than the recipe allows.
        """
        from linrep.cluster.steer import steer_chunks

        here, chunks = self.artefact, {chunk.unit: chunk for chunk in self.plan.chunks}
        begun_in = next((commit.cost["precision"] for commit in here.commits()), None)
        if begun_in is None and not self.config.insist and self.config.judge.kind in READERS:
            self._try_judge()
        failed = failed_runs(here)
        for commit in steer_chunks(self.plan.job, [chunks[unit] for unit in todo], self.pool, begun_in):
            failed += commit.cost["failed"]
            self._refuse(failed)
            yield Step(chunks[commit.unit].n_cells)
            yield commit

    def finish(self) -> dict[str, object]:
        """Put the tables together and add up the runs.

        Raises:
            TooManySkipped: More runs failed than the recipe allows.
        """
        self._refuse(failed_runs(self.artefact))
        self.artefact.finish(units_by_table(self.artefact.manifest.units))
        return {"counts": counts_of(self.artefact)}

    def show(self) -> Shown:
        """How much was run; what it comes to is the judge's to say."""
        counts = self.artefact.about.counts
        return Shown([f"{counts['n_done']:,} edited runs are done, {counts['n_failed']:,} failed."], [])

    def records(self) -> Records:
        """Counts, the runs' tables and the lens."""
        tables = {name: self.artefact.table(name) for name in STEERING.tables}
        figures = {"lens": lens_figure(tables["lens"])} if len(tables["lens"]) else {}
        return Records({name: float(n) for name, n in self.artefact.about.counts.items()}, tables, figures)

    def _try_judge(self) -> None:
        """Ask every image once without an edit, before the runs are paid for, and see whether the judge can read what is said.

        Raises:
            RecipeError: It can read nothing.
        """
        from linrep.cluster.steer import steer_chunks

        job, chunks = unedited(self.plan)
        left = set(job.artefact.todo())
        for _ in steer_chunks(job, [chunk for chunk in chunks if chunk.unit in left], self.pool) if left else ():
            pass
        answers, cells = (read_parts(job.artefact, name) for name in ("answers", "cells"))
        found = readable_answers(self.config, answers, cells, self.judge)
        if self.judge.waiting is not None:
            print(f"steer: the judge could not be tried before the runs: {self.judge.waiting}", file=sys.stderr, flush=True)
            return
        found.refuse()
        for line in (*self.artefact.manifest.notes, *found.lines()):
            print(f"steer: {line}", file=sys.stderr, flush=True)

    def _refuse(self, failed: Sequence[tuple[str, str]]) -> None:
        n_cells = self.artefact.about.n_cells
        n_allowed = int(self.pool.max_skipped * n_cells)
        if len(failed) > n_allowed:
            name, reason = failed[-1]
            raise TooManySkipped(
                f"{len(failed):,} runs failed, and pool.max_skipped allows {n_allowed:,} of {n_cells:,}; the latest is {name}: "
                f"{reason}. All are named in {self.artefact.place / 'commits'}. Raise pool.max_skipped to go on"
            )


def run_steer(recipe: Recipe, workspace: Place) -> Outcome:
    """Do what is missing of a recipe's steering: the edited runs, and the judge's verdicts on them.

    Returns:
        The verdicts; `n_new` counts chunks that were run, and one more where answers were judged.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    plan, config = plan_steering(recipe, workspace), recipe.steer
    runs = find(STEERING, plan.artefact.place)
    judge = make_judge(config.judge, plan.artefact.place / "judged" / "replies", plan.names)
    verdicts = VerdictStage.planned(plan, config, judge)
    there = find(verdicts.artefact.kind, verdicts.artefact.place)
    final = there is not None and there.complete and there.about.source == judge.source
    if not final:
        judge.check()
    if runs is None:
        _check_prompts(plan, config)
    if (runs is None or not runs.complete) and not config.insist:
        names_of([(source, target) for source, target in plan.artefact.about.pairs]).refuse()
    ran = run_stage(SteerStage(plan, config, recipe.pool, judge), workspace)
    if there is not None and there.complete and (ran.n_new or not final):
        reopen(there)
    outcome = run_stage(verdicts.on(ran.artefact), workspace)
    return replace(outcome, n_new=ran.n_new + (not final))


def _check_prompts(plan: SteerPlan, config: SteerConfig) -> None:
    folder, _ = locate(plan.job.model)
    tokenizer = load_processor(folder).tokenizer
    check_starts(tokenizer, config)
    check_names(tokenizer, config.ask, [(source, target) for source, target in plan.artefact.about.pairs])


def plan_steering(recipe: Recipe, workspace: Place) -> SteerPlan:
    """Work out the edited runs of a recipe; starts no cluster.

    Raises:
        LinrepError: The harvest or the probes are missing, or the steer section asks for what is not there.
    """
    config, harvest = recipe.steer, harvested(recipe, workspace)
    store = harvest.store
    file = find_directions(recipe, workspace)
    found = read_directions(file)
    layers = choose_layers(config, found, store.manifest.model["n_layers"])
    if config.sae is not None:
        config = config.model_copy(update={"sae": at_path(config.sae, recipe, store, workspace, "steer.sae")})
    known = None if config.sae is None else _sae(config.sae, layers, store)
    sae = None if known is None else (known.sae.digest, known.origin)
    corpora, chunks = harvest.plan.job.corpora, harvest.plan.chunks
    return plan_steer(recipe.name, config, store, corpora, chunks, located(recipe.model), file, found, workspace, sae)


def _sae(sae: SteerSae, layers: Sequence[int], store: Store) -> GivenSae:
    """An SAE, if it fits the plan.

    Raises:
        RecipeError: Its layer is not steered at, or it is of another layer, model or width.
        FormatError: There is no SAE where one should be.
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
    if recipe.probe.site != "residual":
        raise RecipeError(
            f"steer: edits act on the residual stream, and this recipe's probes are of the site {recipe.probe.site}: "
            "leave out probe.site, or name directions in steer.probes"
        )
    return complete(plan_probe(recipe, workspace).artefact).place / DIRECTIONS
