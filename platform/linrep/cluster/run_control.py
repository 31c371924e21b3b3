"""The control from recipe to its harvest and SAEs: other stages' jobs, on another model."""

from dataclasses import dataclass

from linrep.cluster.control import control_recipe, make_control
from linrep.cluster.inputs import harvested, planned_harvest
from linrep.cluster.run_harvest import run_harvest
from linrep.cluster.run_train_sae import plan_train_sae
from linrep.cluster.stage import run_stage
from linrep.places import Place
from linrep.recipe import Recipe


@dataclass(frozen=True)
class ControlOutcome:
    """What the job did.

    Attributes:
        lines: What to print.
        n_new: Chunks harvested and layers trained in this run.
        place: The control's harvest.
    """

    lines: tuple[str, ...]
    n_new: int
    place: Place


def run_control(recipe: Recipe, workspace: Place) -> ControlOutcome:
    """Do what is missing of a recipe's control.

    The SAEs of the control are those of the recipe where sharing compares them (`sharing.own`); otherwise none is trained.

    Raises:
        LinrepError: The recipe's own harvest was not begun, or something else that the user can mend.
    """
    planned_harvest(recipe, workspace)  # a control of nothing is refused before anything is made
    model = make_control(recipe, workspace)
    control = control_recipe(recipe, workspace)
    harvest = run_harvest(control, workspace)
    lines, n_new = [f"Untrained model  {model}", f"Its harvest      {harvest.artefact.place}"], harvest.n_new
    if recipe.sharing.own is not None:
        # Only trained: sharing compares what latents do, and asks nothing of how well the control's SAEs rebuild it.
        trained = run_stage(plan_train_sae(control, workspace, harvested(control, workspace)), workspace)
        n_new += trained.n_new
        lines.append(f"Its SAEs         {trained.artefact.place}")
    state = "Nothing to do: the control is complete." if not n_new else "The control is complete."
    return ControlOutcome((state, "", *lines), n_new, harvest.artefact.place)
