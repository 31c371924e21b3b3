"""The steering results that a sharing job reads, found in the workspace and checked against its harvest."""

from dataclasses import dataclass

from linrep.errors import RecipeError
from linrep.places import Place
from linrep.records import field_of, read_object
from linrep.sharing.intervals import Measure
from linrep.sharing.steered import FROM_TEXT, steered
from linrep.store.layout import MANIFEST
from linrep.store.read import Store
from linrep.store.tables import read_table
from schemas.steering import EFFECTS, VERSION

RESULT = "result.json"
"""Written last by a steering job: its runs are judged and tracked, and no verdict is waited for."""


AGAIN = "delete it and run jobs/steer.py with its recipe again: what is committed is kept"
LATEST = "latest"
"""Stands for the steering results of the same harvest that were judged last."""


@dataclass(frozen=True)
class Steered:
    """What a steering job found about directions from texts.

    Attributes:
        digest: Of the steering artefact.
        measures: By layer.
    """

    digest: str
    measures: dict[int, tuple[Measure, ...]]


def read_steered(name: str, workspace: Place, store: Store, layers: tuple[int, ...]) -> Steered:
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
    here, where = workspace / "steering" / folder, f"sharing.steering: {name}"
    if not (here / MANIFEST).is_file():
        there = ", ".join((workspace / "steering").names()) or "nothing"
        raise RecipeError(f"{where} is not in {workspace / 'steering'}, which holds {there}: run jobs/steer.py first")
    manifest = read_object(here / MANIFEST, AGAIN)
    if manifest.get("schema_version") != VERSION:
        raise RecipeError(f"{where} is not of schema version {VERSION}: run jobs/steer.py again")
    made_from = field_of(manifest, "parents", dict, here / MANIFEST, AGAIN).get("harvest")
    own_digest = field_of(manifest, "digest", str, here / MANIFEST, AGAIN)
    if made_from != store.manifest.digest:
        raise RecipeError(f"{where} is of the harvest {made_from}, this recipe's is {store.manifest.digest}: name one of its own")
    judges = [own for own in (here / "judged").names() if (here / "judged" / own / RESULT).is_file()]
    if not judges or (judge and judge not in judges):
        what = f"no answers read by {judge}" if judge else "no judged answers"
        raise RecipeError(f"{where} has {what} yet: run jobs/steer.py with its recipe to the end")
    if not judge and len(judges) > 1:
        raise RecipeError(
            f"{where} was read by several judges: name one, as in {folder}/{judges[0]}; there are {', '.join(judges)}"
        )
    read_by = here / "judged" / (judge or judges[0])
    found = steered(
        read_table(read_by, "effects.parquet", repair=f"delete {read_by} and run jobs/steer.py again", schema=EFFECTS)
    )
    if not found:
        kinds = ", ".join(map(str, field_of(manifest, "config", dict, here / MANIFEST, AGAIN).get("directions", ())))
        raise RecipeError(
            f"{where} has no direction from texts, only {kinds}: run jobs/steer.py with {FROM_TEXT}class_mean in steer.directions"
        )
    if not set(found) & set(layers):
        raise RecipeError(f"{where} steers at layers {', '.join(map(str, found))}, none of which is compared: see sharing.layers")
    return Steered(own_digest, found)


def _latest(workspace: Place, store: Store) -> str:
    """Folder and judge of the results of a harvest that were judged last."""
    found = []
    for folder in (workspace / "steering").names():
        here = workspace / "steering" / folder
        if not (here / MANIFEST).is_file():
            continue
        made_from = read_object(here / MANIFEST, AGAIN).get("parents")
        if not isinstance(made_from, dict) or made_from.get("harvest") != store.manifest.digest:
            continue
        for judge in (here / "judged").names():
            if (here / "judged" / judge / RESULT).is_file():
                found.append((str(read_object(here / "judged" / judge / RESULT, AGAIN).get("finished", "")), f"{folder}/{judge}"))
    if not found:
        raise RecipeError(
            f"sharing.steering: latest: {workspace / 'steering'} holds no judged answers of the harvest {store.manifest.digest}: "
            "run jobs/steer.py with the same recipe first"
        )
    return max(found)[1]
