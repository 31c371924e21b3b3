"""The steering results that a sharing job reads, found in the workspace and checked against its harvest."""

from dataclasses import dataclass

from linrep.artefact import find
from linrep.errors import RecipeError
from linrep.places import Place
from linrep.sharing.intervals import Measure
from linrep.sharing.steered import FROM_TEXT, steered
from linrep.steer.artefact import STEERING, judged_of, verdicts_in
from linrep.store.read import Store

LATEST = "latest"
"""Stands for the steering results of the same harvest that were judged last."""


@dataclass(frozen=True)
class SteeringResult:
    """What a steering job found about directions from texts.

    Attributes:
        digest: Of the steering artefact.
        measures: By layer.
    """

    digest: str
    measures: dict[int, tuple[Measure, ...]]


def read_steered(name: str, workspace: Place, store: Store, layers: tuple[int, ...]) -> SteeringResult:
    """The effects of a steering job's directions from texts.

    Args:
        name: Folder of the artefact in the workspace's steering; where several judges read its answers, a slash and the judge's.
            Or `latest`.
        workspace: Where everything lies.
        store: The harvest that it must be of.
        layers: Layers that are compared.

    Raises:
        RecipeError: There is no such artefact, it is of another harvest or not complete, or no direction of it is from texts.
    """
    if name == LATEST:
        name = _latest(workspace, store)
    folder, _, judge = name.partition("/")
    here, where = workspace / STEERING.folder / folder, f"sharing.steering: {name}"
    runs = find(STEERING, here)
    if runs is None:
        there = ", ".join((workspace / STEERING.folder).names()) or "nothing"
        raise RecipeError(f"{where} is not in {workspace / STEERING.folder}, which holds {there}: run jobs/steer.py first")
    made_from = runs.manifest.parents.get("harvest")
    if made_from != store.manifest.digest:
        raise RecipeError(f"{where} is of the harvest {made_from}, this recipe's is {store.manifest.digest}: name one of its own")
    judged = {verdicts.place.name: verdicts for verdicts in verdicts_in(runs)}
    if not judged or (judge and judge not in judged):
        what = f"no answers read by {judge}" if judge else "no judged answers"
        raise RecipeError(f"{where} has {what} yet: run jobs/steer.py with its recipe to the end")
    if not judge and len(judged) > 1:
        names = sorted(judged)
        raise RecipeError(
            f"{where} was read by several judges: name one, as in {folder}/{names[0]}; there are {', '.join(names)}"
        )
    found = steered(judged[judge or next(iter(judged))].table("effects"))
    if not found:
        kinds = ", ".join(map(str, runs.manifest.config["directions"]))
        raise RecipeError(
            f"{where} has no direction from texts, only {kinds}: run jobs/steer.py with {FROM_TEXT}class_mean in steer.directions"
        )
    if not set(found) & set(layers):
        raise RecipeError(f"{where} steers at layers {', '.join(map(str, found))}, none of which is compared: see sharing.layers")
    return SteeringResult(runs.manifest.digest, found)


def _latest(workspace: Place, store: Store) -> str:
    """Folder and judge of the results of a harvest that were judged last."""
    found = [
        (verdicts.manifest.finished, f"{runs.place.name}/{verdicts.place.name}")
        for runs, verdicts in judged_of(workspace, store.manifest.digest)
    ]
    if not found:
        raise RecipeError(
            f"sharing.steering: latest: {workspace / 'steering'} holds no judged answers of the harvest {store.manifest.digest}: "
            "run jobs/steer.py with the same recipe first"
        )
    return max(found)[1]
