"""The SAE stage: what it trains on and what it shows; its evaluation is a stage of its own. `linrep.cluster.stage` runs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from linrep import tracking
from linrep.cluster.inputs import HarvestInput, harvested
from linrep.cluster.run_evaluate import evaluate_other, plan_evaluation
from linrep.cluster.stage import Counts, Outcome, Records, Shown, Step, run_stage
from linrep.errors import StoreError
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.sae.artefact import SaePlan, Saes, plan_saes
from linrep.sae.layer import LayerJob, layer_name
from linrep.sae.train import Metrics

MEASURES = ("loss", "fvu/image", "fvu/text", "l0/image", "l0/text", "dead", "error", "penalty", "auxiliary",
            "rows/image", "rows/text", "learning_rate")  # fmt: skip
"""What training reports, the most important first; a modality of which no rows are trained on has no measures."""
WHY = {"special": "of special tokens", "high_norm": "of high norm", "nonfinite": "that are not finite"}


@dataclass(frozen=True)
class SaeStage:
    """SAEs of some layers of a harvest.

    Attributes:
        plan: What is trained on what.
        pool: GPUs, CPUs and threads of a worker.
    """

    plan: SaePlan
    pool: Pool
    on_ray = True

    @property
    def artefact(self) -> Saes:
        """What it makes."""
        return self.plan.artefact

    @property
    def counts(self) -> Counts:
        """Progress in steps of all layers; what a checkpoint spares shows as a jump."""
        about = self.artefact.about
        return Counts("steps", "rows", len(about.layers) * about.steps, len(self.artefact.done()) * about.steps)

    def of(self, artefact: Saes) -> "SaeStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, plan=replace(self.plan, artefact=artefact))

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Train the layers, and log what the workers report: as many metrics as a page of charts takes."""
        from linrep.cluster.train_sae import train_on_ray

        about, batch = self.artefact.about, int(self.artefact.manifest.config["batch"])
        logged, at = frozenset(run.first(reported(self.plan.jobs))), dict[int, int]()
        for event in train_on_ray([job for job in self.plan.jobs if layer_name(job.layer) in todo], self.pool):
            step = event.what.step if isinstance(event.what, Metrics) else about.steps
            new = step - at.get(event.layer, 0)
            if new > 0:
                at[event.layer] = step
                yield Step(new, new * batch)
            if isinstance(event.what, Metrics):
                name, values = about.names[event.what.trainer], event.what.values
                named = {metric_name(event.layer, name, measure): value for measure, value in values.items()}
                run.metrics({metric: value for metric, value in named.items() if metric in logged}, event.what.step)

    def finish(self) -> dict[str, object]:
        """Make sure that every layer is there.

        Raises:
            StoreError: Commits of layers that were trained are gone.
        """
        if self.artefact.todo():
            raise StoreError(f"{self.artefact.place} lacks commits of layers that were trained: run the same command again")
        return {}

    def show(self) -> Shown:
        """What was trained, and what training left out."""
        about = self.artefact.about
        layers = ", ".join(map(str, about.layers))
        lines = [line for commit in self.artefact.commits() if (line := left_out(commit))]
        return Shown([f"{len(about.names)} SAEs a layer are trained at layers {layers}: {', '.join(about.names)}."], lines)

    def records(self) -> Records:
        """Nothing beside what was logged while it trained."""
        return Records()


def plan_train_sae(recipe: Recipe, workspace: Place, harvest: HarvestInput) -> SaeStage:
    """The SAEs of a recipe, planned; their evaluation is a stage of its own."""
    return SaeStage(plan_saes(harvest.store, recipe.name, recipe.sae, workspace), recipe.pool)


def run_train_sae(recipe: Recipe, workspace: Place, evaluate: str | None = None) -> Outcome:
    """Do what is missing of a recipe's SAEs and of their evaluation; nothing, if both are complete.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        evaluate: An SAE from elsewhere, in any format that is known: only evaluate that one.

    Returns:
        The evaluation; `n_new` counts layers that were trained and layers that were evaluated.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    harvest = harvested(recipe, workspace)
    if evaluate is not None:
        return run_stage(evaluate_other(recipe, workspace, harvest, evaluate), workspace)
    stage = plan_train_sae(recipe, workspace, harvest)
    evaluation = plan_evaluation(recipe, workspace, harvest, stage.artefact)
    trained = run_stage(stage, workspace)
    evaluated = run_stage(replace(evaluation, left_out=tuple(trained.shown.lines)), workspace)
    return replace(evaluated, n_new=trained.n_new + evaluated.n_new)


def metric_name(layer: int, sae: str, measure: str) -> str:
    """How MLflow names a measure of an SAE in training, whose steps are those of training."""
    return f"layer{layer:02d}/{sae}/{measure}"


def reported(jobs: Sequence[LayerJob]) -> list[str]:
    """Metrics that training all layers reports, the most important first: of all SAEs the loss, then of all the FVU, and so on.

    The plan alone decides it, so that a resumed run and an undisturbed one log the same. What is not logged is in
    `training.parquet` of each layer.

    Args:
        jobs: All that is planned, trained before or not.
    """
    return [
        metric_name(job.layer, name, measure)
        for measure in MEASURES
        for job in jobs
        if {"image": job.parts.n_image, "text": job.parts.n_text}.get(measure.partition("/")[2], 1)
        for name in job.config.designs()
    ]


def left_out(commit: UnitCommit) -> str:
    """What training a layer left out, with the reason; empty where it is nothing."""
    parts = []
    for modality, counts in commit.cost["rows"].items():
        for why, n in counts["left_out"].items():
            if n:
                first = f", the first is {counts['first_nonfinite']}" if why == "nonfinite" else ""
                parts.append(f"{n:,} {modality} rows {WHY[why]}{first}")
    return f"  layer {commit.cost['layer']}: left out of training: {'; '.join(parts)}" if parts else ""
