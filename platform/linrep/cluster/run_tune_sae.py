"""The search stage: what it searches, what it recommends and what it shows. `linrep.cluster.stage` runs it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import polars as pl
import yaml

from linrep import tracking
from linrep.cluster.commands import read_parquet
from linrep.cluster.inputs import harvested
from linrep.cluster.stage import Counts, Outcome, Records, Shown, Step, run_stage
from linrep.config import digest
from linrep.errors import TrainingFailed
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.records import read_object
from linrep.sae.candidates import finished, front_table, recommendations, trials_table
from linrep.sae.front import Recommendation
from linrep.sae.pack import Trial
from linrep.sae.search import Whole
from linrep.sae.trials import read_trials, read_waiting
from linrep.sae.tuning import REPORT, Tune, TunePlan, largest_cost, plan_tune, recommended
from linrep.store.summary import apart_lines
from linrep.store.tables import write_table

RECIPE = "recommended.yaml"
"""The recipe that trains the recommended SAE in full."""


@dataclass(frozen=True)
class TuneStage:
    """A search for the sparsity and width of SAEs.

    Attributes:
        plan: What is searched on what.
        recipe: The experiment.
    """

    plan: TunePlan
    recipe: Recipe
    on_ray = True

    @property
    def artefact(self) -> Tune:
        """What it makes."""
        return self.plan.artefact

    @property
    def counts(self) -> Counts:
        """Progress in rows, over all candidates."""
        plan = self.plan
        total = largest_cost(plan) or plan.tune.budget or getattr(plan.tune.search, "trials", 1) * plan.full_rows
        return Counts("rows", "rows", total, _spent(plan))

    def of(self, artefact: Tune) -> "TuneStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, plan=replace(self.plan, artefact=artefact))

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Train candidates round after round; each is logged as a run below the search's.

        Raises:
            TrainingFailed: No candidate was trained to its end.
        """
        from linrep.cluster.tune_sae import search_on_ray

        plan, at = self.plan, 0
        for trial in read_trials(plan.place).values():  # a driver that was killed may not have logged the last ones
            self._log(run, trial)
        for event in search_on_ray(plan, self.recipe.pool):
            if isinstance(event, Trial):
                self._log(run, event)
            elif event > at:
                yield Step(event - at, event - at)
                at = event
        trials = read_trials(plan.place)
        self._mark_front(run, trials, _recommended(plan, trials))
        for unit in todo:
            yield plan.artefact.write(unit, {}, 0.0, 0, {"rows": _spent(plan), "candidates": len(trials)})

    def finish(self) -> dict[str, object]:
        """Write the tables, what is recommended for each layer, and the recipe for it."""
        plan, trials = self.plan, read_trials(self.plan.place)
        found = _recommended(plan, trials)
        names = {one.name for one in found.values()}
        for name, table in (("trials", trials_table(trials)), ("front", front_table(trials, names))):
            write_table(plan.place, f"{name}.parquet", table)
        (plan.place / REPORT).write_json({str(layer): asdict(one) for layer, one in found.items()})
        # A recipe trains one SAE: that of the first layer; the report has those of the others.
        first = next(iter(found.values()))
        (plan.place / RECIPE).write_bytes(_recipe_for(self.recipe, plan, first.name).encode())
        return {}

    def show(self) -> Shown:
        """The front of each layer, and which SAE to take."""
        from linrep.explorer.fronts import search_headline, search_lines

        plan = self.plan
        front, trials = (self.artefact.table(name) for name in ("front", "trials"))
        report = read_object(plan.place / REPORT, self.artefact.kind.repair)
        reasons = {int(layer): f"{one['name']}: {one['reason']}" for layer, one in report.items()}
        lines = search_lines(front, trials, _spent(plan), largest_cost(plan), reasons)
        return Shown(
            headline=search_headline(front),
            lines=[*lines, *apart_lines(plan.store.manifest, plan.layers)],
            next=[("table", read_parquet(plan.place / "front.parquet"))],
        )

    def records(self) -> Records:
        """How many candidates there were, the recommended ones as curves over layers, fronts and the recipe."""
        from linrep.explorer.fronts import front_figures

        place, tables = self.plan.place, {name: self.artefact.table(name) for name in ("front", "trials")}
        texts = {name: (place / name).read_bytes().decode() for name in (RECIPE, REPORT)}
        trials, front = (pl.DataFrame(pl.from_arrow(tables[name])) for name in ("trials", "front"))
        taken = front.filter("recommended")
        curves: dict[str, float | Mapping[int, float]] = {
            f"{measure}_{modality}": dict(taken.filter(pl.col("modality") == modality).select("layer", measure).iter_rows())
            for measure in ("fvu", "l0")
            for modality in taken["modality"].unique(maintain_order=True)
        }
        counts = {f"n_{status}": float((trials["status"] == status).sum()) for status in ("finished", "stopped", "failed")}
        figures = front_figures(tables["front"], tables["trials"])
        return Records({**curves, **counts, "rows": float(trials["rows"].sum())}, tables, figures, texts)

    def _log(self, run: tracking.Run, trial: Trial) -> tracking.Run:
        """A candidate as a run below: what separates it from others, its measures over rows, where it comes from."""
        head = self.artefact.manifest
        tags = {
            "linrep.harvest": head.parents["harvest"],
            "linrep.recipe": digest(self.recipe),
            "linrep.search": head.digest,
            "linrep.architecture": str(trial.values["architecture"]),
            "linrep.layer": str(trial.values["layer"]),
            "linrep.status": trial.status,
            **({"linrep.reason": trial.reason} if trial.reason else {}),
        }
        metrics = measures_of(trial, scored_once=isinstance(self.recipe.tune.stop, Whole))
        params = {**trial.values, "bracket": trial.bracket, "status": trial.status}
        return run.child("trial", trial.name, digest(run.id, trial.name), params, tags, metrics, trial.status == "failed")

    def _mark_front(self, run: tracking.Run, trials: Mapping[str, Trial], found: Mapping[int, Recommendation]) -> None:
        """Tag the candidates that lie on a front, and keep their SAEs; a search that went on may push one off."""
        run.tags({f"linrep.recommended.layer{layer:02d}": one.name for layer, one in found.items()})
        rows = front_table(trials, set()).to_pylist()
        on_front = {row["candidate"] for row in rows if row["on_front"]}
        for trial in finished(trials):
            child = self._log(run, trial)
            child.tags({"linrep.front": str(trial.name in on_front).lower()})
            for ending in ("", "-image", "-text") if trial.name in on_front else ():
                folder = self.plan.place / "saes" / f"{trial.name}{ending}"
                if folder.is_folder():
                    child.folder(folder, f"sae{ending}")


def measures_of(trial: Trial, scored_once: bool) -> list[tuple[int, dict[str, float]]]:
    """What MLflow draws of a candidate: curves over rows, and at step 0 what there is once, whose bars compare candidates.

    Args:
        trial: The candidate.
        scored_once: Whether the search stops no candidate, so that each is scored at its end only. In one that does, a candidate
            that was stopped at its first rung has curves of one point, beside those of the candidates that went on.

    Returns:
        Rows, and measures by name.
    """
    curves = [(int(r["rows"]), {f"train/{name}": value for name, value in r.items() if name != "rows"}) for r in trial.reports]
    scores = [({name: value for name, value in s.items() if name != "rows"}, int(s["rows"])) for s in trial.scores]
    control = {f"control/{name}": value for name, value in (trial.control or {}).items()}
    at_end = {**control, "rows": float(trial.rows), "seconds": trial.seconds}
    return [*curves, *((0 if scored_once else rows, score) for score, rows in scores), (0, at_end)]


def plan_search(recipe: Recipe, workspace: Place) -> TuneStage:
    """Work out a search; starts no cluster.

    Raises:
        LinrepError: The recipe's harvest is missing or not complete, or the space holds something impossible.
    """
    store = harvested(recipe, workspace).store
    return TuneStage(plan_tune(store, recipe.name, recipe.tune, recipe.sae, workspace), recipe)


def run_tune_sae(recipe: Recipe, workspace: Place) -> Outcome:
    """Do what is missing of a recipe's search; nothing, if it is complete and its budget was not changed.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return run_stage(plan_search(recipe, workspace), workspace)


def _spent(plan: TunePlan) -> int:
    """Rows that candidates were trained on so far."""
    return sum(trial.rows for trial in [*read_trials(plan.place).values(), *read_waiting(plan.place).values()])


def _recommended(plan: TunePlan, trials: Mapping[str, Trial]) -> dict[int, Recommendation]:
    """The candidate to take, by layer.

    Raises:
        TrainingFailed: There is none: no candidate was trained to its end, or none has a finite FVU.
    """
    found = recommendations(trials, plan.layers)
    if not found:
        why = "all that were have no finite FVU" if finished(trials) else "the budget was spent before"
        reason = next((trial.reason for trial in trials.values() if trial.reason), why)
        raise TrainingFailed(f"no candidate of {plan.place} was trained to its end: {reason}")
    return found


def _recipe_for(recipe: Recipe, plan: TunePlan, name: str) -> str:
    """The recipe that trains a candidate in full."""
    values = recipe.model_copy(update={"sae": recommended(plan, name)}).model_dump(mode="json")
    head = f"# Trains {name}, recommended by the search {plan.place.name}, in full: jobs/train_sae.py --config FILE\n"
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
