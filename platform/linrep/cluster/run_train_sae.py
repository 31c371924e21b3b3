"""The SAE stage: what it trains on and what it shows; its evaluation is a stage of its own. `linrep.cluster.stage` runs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from linrep import tracking
from linrep.cluster.inputs import harvested
from linrep.cluster.run_evaluate import evaluate_other, plan_evaluation
from linrep.cluster.stage import Counts, Outcome, Records, Shown, Step, run_stage
from linrep.errors import StoreError
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.sae.artefact import SaePlan, Saes, plan_saes
from linrep.sae.layer import layer_name
from linrep.sae.train import Metrics

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
        """Progress in steps of all layers; what a checkpoint spares shows as a jump of the first layer."""
        about = self.artefact.about
        return Counts("steps", "rows", len(about.layers) * about.steps, len(self.artefact.done()) * about.steps)

    def of(self, artefact: Saes) -> "SaeStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, plan=replace(self.plan, artefact=artefact))

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Train layer after layer, and log what the workers report."""
        from linrep.cluster.train_sae import train_on_ray

        about, batch = self.artefact.about, int(self.artefact.manifest.config["batch"])
        at: dict[int, int] = {}
        for event in train_on_ray([job for job in self.plan.jobs if layer_name(job.layer) in todo], self.pool):
            step = event.what.step if isinstance(event.what, Metrics) else about.steps
            new = step - at.get(event.layer, 0)
            if new > 0:
                at[event.layer] = step
                yield Step(new, new * batch)
            if isinstance(event.what, Metrics):
                where = f"layer{event.layer:02d}/{about.names[event.what.coder]}"
                run.metrics({f"{where}/{name}": value for name, value in event.what.values.items()}, event.what.step)

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
    stage = SaeStage(plan_saes(harvest.store, recipe.name, recipe.sae, workspace), recipe.pool)
    evaluation = plan_evaluation(recipe, workspace, harvest, stage.artefact)
    trained = run_stage(stage, workspace)
    evaluated = run_stage(replace(evaluation, left_out=tuple(trained.shown.lines)), workspace)
    return replace(evaluated, n_new=trained.n_new + evaluated.n_new)


def left_out(commit: UnitCommit) -> str:
    """What training a layer left out, with the reason; empty where it is nothing."""
    parts = []
    for modality, counts in commit.cost["rows"].items():
        for why, n in counts["left_out"].items():
            if n:
                first = f", the first is {counts['first_nonfinite']}" if why == "nonfinite" else ""
                parts.append(f"{n:,} {modality} rows {WHY[why]}{first}")
    return f"  layer {commit.cost['layer']}: left out of training: {'; '.join(parts)}" if parts else ""
