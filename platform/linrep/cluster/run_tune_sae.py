"""A search from recipe to recommendation: planned, locked, searched, resumed, watched, and told to MLflow as it goes."""

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import yaml

from linrep import tracking
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.ready import check_services
from linrep.cluster.session import cluster
from linrep.cluster.stage import keep_figures
from linrep.config import digest
from linrep.errors import TrainingFailed
from linrep.harvest.plan import plan_harvest
from linrep.places import Place, remove_unfinished
from linrep.recipe import Recipe
from linrep.records import field_of, read_object
from linrep.sae.front import Point, Recommendation, front, recommend
from linrep.sae.pack import Trial, choice
from linrep.sae.tuning import REPORT, TunePlan, largest_cost, plan_tune, read_trials, read_waiting, recommended
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now
from linrep.store.read import open as open_store
from linrep.store.summary import apart_lines
from linrep.store.tables import table_of, write_table
from schemas.tuning import FRONT, TRIALS

RECIPE, SUMMARY = "recommended.yaml", "summary.txt"


@dataclass(frozen=True)
class TuneOutcome:
    """What a job did.

    Attributes:
        place: The artefact.
        n_new: Candidates that this run brought to an end.
        tracking_uri: Where its MLflow runs are.
        recipe: The recipe that trains the recommended dictionary in full.
        text: What came out, for reading.
    """

    place: Place
    n_new: int
    tracking_uri: str
    recipe: Place
    text: str


def run_tune_sae(recipe: Recipe, workspace: Place) -> TuneOutcome:
    """Do what is missing of a recipe's search; nothing, if it is complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, begun=True)
    plan = plan_tune(open_store(str(harvest.place)), recipe.name, recipe.tune, recipe.sae, workspace)
    check_services(workspace, plan.place)
    with sole_driver(plan.place):
        manifest = _begun(plan) or _manifest(recipe, plan, workspace)
        spent = manifest["tune"].get("budget") == plan.tune.budget  # one that was raised goes on with the same search
        if manifest["status"] == "complete" and spent:
            text = (plan.place / SUMMARY).read_bytes().decode()
            return TuneOutcome(plan.place, 0, tracking.uri_of(workspace, plan.place), plan.place / RECIPE, text)
        manifest |= {"tune": plan.tune.model_dump(mode="json"), "status": "running", "finished": ""}
        (plan.place / MANIFEST).write_json(manifest)
        return _run(recipe, workspace, plan, manifest)


def _begun(plan: TunePlan) -> dict[str, Any] | None:
    file, again = (
        plan.place / MANIFEST,
        "delete it and run jobs/tune_sae.py with the same recipe again: what is committed is kept",
    )
    if not file.is_file():
        return None
    manifest = read_object(file, again)
    for name, kind in (("tune", dict), ("sae", dict), ("parents", dict), ("status", str), ("created", str)):
        field_of(manifest, name, kind, file, again)
    return manifest


def _manifest(recipe: Recipe, plan: TunePlan, workspace: Place) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "digest": plan.digest,
        "parents": {"harvest": plan.store.manifest.digest},
        "store": plan.store.place.within(workspace),
        "tune": plan.tune.model_dump(mode="json"),
        "sae": plan.sae.model_dump(mode="json"),
        "layers": list(plan.layers),
        "status": "running",
        "created": now(),
        "finished": "",
    }


def _run(recipe: Recipe, workspace: Place, plan: TunePlan, manifest: dict[str, Any]) -> TuneOutcome:
    remove_unfinished(plan.place)
    before = read_trials(plan.place)
    name = f"tune {plan.place.name}"
    params = {"name": recipe.name, "tune": manifest["tune"], "sae": manifest["sae"]}
    with tracking.run(workspace, "tune", name, tracking.key_of(workspace, plan.place), params, manifest["parents"]) as run:
        run.tags({"linrep.tune": tracking.inside(workspace, plan.place), "linrep.digest": plan.digest})
        for trial in before.values():  # a driver that was killed may not have told the last ones
            _tell(run, plan, recipe, trial)
        _search(recipe, plan, run, before)
        trials = read_trials(plan.place)
        text = _finish(recipe, run, plan, trials)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    (plan.place / MANIFEST).write_json({**manifest, "status": "complete", "finished": now()})
    return TuneOutcome(plan.place, len(trials) - len(before), run.uri, plan.place / RECIPE, text)


def _search(recipe: Recipe, plan: TunePlan, run: tracking.Run, before: dict[str, Trial]) -> None:
    total = largest_cost(plan) or plan.tune.budget or getattr(plan.tune.search, "trials", 1) * plan.full_rows
    spent = sum(trial.rows for trial in [*before.values(), *read_waiting(plan.place).values()])
    with Progress("tune", total, spent, unit="rows", rate="rows") as progress, cluster():
        # Ray is imported only where there is work: a finished search says so at once.
        from linrep.cluster.tune_sae import search_on_ray

        at = 0
        for event in search_on_ray(plan, recipe.pool):
            if isinstance(event, Trial):
                _tell(run, plan, recipe, event)
            elif event > at:
                progress.add(event - at, event - at)
                at = event


def _tell(run: tracking.Run, plan: TunePlan, recipe: Recipe, trial: Trial) -> tracking.Run:
    """A candidate as a child run: what tells it from others, its measures over rows, where it comes from."""
    params = {**trial.values, "bracket": trial.bracket, "status": trial.status}
    tags = {
        "linrep.harvest": plan.store.manifest.digest,
        "linrep.recipe": digest(recipe),
        "linrep.search": plan.digest,
        "linrep.architecture": str(trial.values["architecture"]),
        "linrep.layer": str(trial.values["layer"]),
        "linrep.status": trial.status,
        **({"linrep.reason": trial.reason} if trial.reason else {}),
    }
    metrics = [(int(r["rows"]), {f"train/{n}": v for n, v in r.items() if n != "rows"}) for r in trial.reports]
    metrics += [(int(s["rows"]), {n: v for n, v in s.items() if n != "rows"}) for s in trial.scores]
    if trial.control is not None:
        metrics.append((trial.rows, {f"control/{name}": value for name, value in trial.control.items()}))
    metrics.append((trial.rows, {"rows": float(trial.rows), "seconds": trial.seconds}))
    return run.child("trial", trial.name, digest(run.id, trial.name), params, tags, metrics, trial.status == "failed")


def _finish(recipe: Recipe, run: tracking.Run, plan: TunePlan, trials: dict[str, Trial]) -> str:
    """Fronts, recommendation, the recipe for it; written and tracked."""
    from linrep.explorer.fronts import front_figures, search_lines

    finished = [trial for trial in trials.values() if trial.status == "finished"]
    if not finished:
        reason = next((trial.reason for trial in trials.values() if trial.reason), "the budget was spent before")
        raise TrainingFailed(f"no candidate of {plan.place} was trained to its end: {reason}")
    chosen = {layer: _recommend([t for t in finished if t.values["layer"] == layer]) for layer in plan.layers}
    known = {layer: one for layer, one in chosen.items() if one is not None}
    tables = {"trials": trials_table(trials), "front": front_table(finished, {one.name for one in known.values()})}
    for name, table in tables.items():
        write_table(plan.place, f"{name}.parquet", table)
        run.table(f"tables/{name}", table)
    rows = sum(trial.rows for trial in trials.values())
    reasons = {layer: f"{one.name}: {one.reason}" for layer, one in known.items()}
    lines = search_lines(tables["front"], tables["trials"], rows, largest_cost(plan), reasons)
    text = "\n".join([*lines, *apart_lines(plan.store.manifest, plan.layers)])
    (plan.place / SUMMARY).write_bytes(text.encode())
    run.text(text, SUMMARY)
    told = {str(layer): asdict(one) for layer, one in known.items()}
    (plan.place / REPORT).write_json(told)
    run.json(told, REPORT)
    # One dictionary is trained by one recipe: that of the first layer; the others differ as recommendation.json says.
    first = next(iter(known.values()))
    recipe_text = _recipe_for(recipe, plan, first.name)
    (plan.place / RECIPE).write_bytes(recipe_text.encode())
    run.text(recipe_text, RECIPE)
    for name, figure in front_figures(tables["front"], tables["trials"]).items():
        run.figure(f"figures/{name}.png", keep_figures(plan.place, name, figure))
    counts = {f"n_{s}": float(sum(t.status == s for t in trials.values())) for s in ("finished", "stopped", "failed")}
    run.metrics({**counts, "rows": float(rows)})
    run.tags({f"linrep.recommended.layer{layer:02d}": one.name for layer, one in known.items()})
    on_front = {row["candidate"] for row in tables["front"].to_pylist() if row["on_front"]}
    for trial in finished:
        child = _tell(run, plan, recipe, trial)
        child.tags({"linrep.front": str(trial.name in on_front).lower()})  # a search that went on may push one off
        if trial.name in on_front:
            _keep_coder(child, plan, trial)
    return text


def _recommend(finished: list[Trial]) -> Recommendation | None:
    return recommend([Point(trial.name, trial.last["l0"], choice(trial.last)) for trial in finished])


def _keep_coder(child: tracking.Run, plan: TunePlan, trial: Trial) -> None:
    for ending in ("", "-image", "-text"):
        folder = plan.place / "coders" / f"{trial.name}{ending}"
        if folder.is_folder():
            child.folder(folder, f"sae{ending}")


def _recipe_for(recipe: Recipe, plan: TunePlan, name: str) -> str:
    """The recipe that trains a candidate in full."""
    values = recipe.model_copy(update={"sae": recommended(plan, name)}).model_dump(mode="json")
    head = f"# Trains {name}, recommended by the search {plan.place.name}, in full: jobs/train_sae.py --config FILE\n"
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _columns(trial: Trial) -> dict[str, Any]:
    names = ("layer", "architecture", "sparsity", "width", "learning_rate", "text_share")
    return {"candidate": trial.name, **{name: trial.values[name] for name in names}}


def trials_table(trials: dict[str, Trial]) -> pa.Table:
    """Every candidate, a row each."""
    rows: list[dict[str, object]] = [
        {
            **_columns(trial), "status": trial.status, "reason": trial.reason, "bracket": trial.bracket, "rows": trial.rows,
            "fvu": trial.last.get("fvu"), "l0": trial.last.get("l0"), "seconds": trial.seconds,
        }
        for trial in trials.values()
    ]  # fmt: skip
    return table_of(rows, TRIALS)


def front_table(finished: list[Trial], chosen: set[str]) -> pa.Table:
    """Finished candidates, a row for each and modality, with the fronts of each layer and modality marked."""
    rows: list[dict[str, object]] = []
    for layer in sorted({trial.values["layer"] for trial in finished}):
        here = [trial for trial in finished if trial.values["layer"] == layer]
        for modality in ("image", "text", "mean"):
            ending = "" if modality == "mean" else f"_{modality}"
            have = [trial for trial in here if f"fvu{ending}" in trial.last]
            best = {p.name for p in front([Point(t.name, t.last[f"l0{ending}"], choice(t.last, ending)) for t in have])}
            for trial in have:
                found = trial.last
                rows.append({
                    **_columns(trial), "modality": modality, "l0": found[f"l0{ending}"], "fvu": found[f"fvu{ending}"],
                    "fvu_choice": choice(found, ending),
                    "fvu_low": found.get(f"fvu{ending}_low"), "fvu_high": found.get(f"fvu{ending}_high"),
                    "control": (trial.control or {}).get(f"fvu{ending}"), "on_front": trial.name in best,
                    "recommended": trial.name in chosen,
                })  # fmt: skip
    return table_of(rows, FRONT)
