"""What a workspace holds: its complete results by stage, and where they came from. Opened, not read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linrep import artefact
from linrep.artefact import Artefact
from linrep.errors import StoreError
from linrep.features.artefact import FEATURES_KIND, Features, readable
from linrep.interpret.artefact import INTERPRETATIONS_KIND
from linrep.kind import Kind
from linrep.places import Place
from linrep.probe.artefact import PROBES_KIND
from linrep.records import MANIFEST, SUMMARY
from linrep.regions.artefact import REGIONS_KIND
from linrep.sae.artefact import EVALUATIONS, SAES
from linrep.sae.tuning import TUNES
from linrep.sharing.artefact import SHARING_KIND
from linrep.steer.artefact import STEERING, VERDICTS_KIND
from linrep.store.read import Store, read_store

KINDS: tuple[Kind[Any], ...] = (
    REGIONS_KIND,
    PROBES_KIND,
    STEERING,
    SAES,
    EVALUATIONS,
    TUNES,
    SHARING_KIND,
    FEATURES_KIND,
    INTERPRETATIONS_KIND,
)
"""The stages whose results are artefacts, in the order in which the pages list them."""


@dataclass(frozen=True)
class Results:
    """The complete results of a workspace.

    Attributes:
        workspace: Where everything lies.
        harvests: Activation stores by digest.
        artefacts: The other results by stage; verdicts of judges stand under `judge`, evaluations under
            `evaluate`, whether of SAEs that were trained here or of others.
        damaged: What could not be opened, and why.
    """

    workspace: Place
    harvests: Mapping[str, Store]
    artefacts: Mapping[str, list[Artefact[Any]]]
    damaged: list[str] = field(default_factory=list)

    @property
    def features(self) -> list[Features]:
        """Features, as a reader sees them."""
        return [readable(one) for one in self.artefacts["features"]]

    def inner(self, one: Artefact[Any], stage: str) -> list[Artefact[Any]]:
        """What lies within a result of a stage, newest first: verdicts of judges in edited runs, evaluations in SAEs."""
        own = [inner for inner in self.artefacts[stage] if self.key(inner).startswith(self.key(one) + "/")]
        return sorted(own, key=lambda inner: inner.manifest.finished, reverse=True)

    def numbers(self, stage: str, one: Artefact[Any]) -> tuple[str, Artefact[Any]]:
        """Stage and artefact that hold a result's numbers: the newest verdicts on edited runs, the newest evaluation of SAEs.

        Args:
            stage: The result's stage.
            one: The result; it holds its own numbers where nothing lies within it.
        """
        within = {"steer": "judge", "sae": "evaluate"}.get(stage)
        newest = next(iter(self.inner(one, within)), None) if within else None
        return (stage, one) if within is None or newest is None else (within, newest)

    def key(self, one: Artefact[Any] | Store) -> str:
        """What the pages call a result: its folder in the workspace."""
        return one.place.within(self.workspace)


def open_results(workspace: Place) -> Results:
    """Look for all complete results in a workspace; what is damaged is named and left out."""
    damaged: list[str] = []
    harvests: dict[str, Store] = {}
    for name in (workspace / "harvests").names():
        here = workspace / "harvests" / name
        if (here / MANIFEST).is_file():
            try:
                store = read_store(here)
            except StoreError as error:
                damaged.append(str(error))
                continue
            if store.complete:
                harvests[store.manifest.digest] = store
    found: dict[str, list[Artefact[Any]]] = {kind.stage: _complete(kind, workspace, damaged) for kind in KINDS}
    # Pages are of the residual stream: probes of another site say so in their section.
    found["probe"] = [one for one in found["probe"] if "site" not in one.manifest.config]
    found["judge"] = [one for runs in found["steer"] for one in _complete(VERDICTS_KIND, runs.place, damaged)]
    found["evaluate"] += [one for saes in found["sae"] for one in _complete(EVALUATIONS, saes.place, damaged)]
    return Results(workspace, harvests, found, damaged)


def headline(place: Place) -> list[str]:
    """The finding in sentences, as the job that made a result wrote it: the lines of its summary down to the first empty one."""
    file = place / SUMMARY
    if not file.is_file():
        return []
    text = file.read_bytes().decode("utf-8", "replace")
    return [line for line in text.partition("\n\n")[0].splitlines() if line.strip()]


def _complete(kind: Kind[Any], folder: Place, damaged: list[str]) -> list[Artefact[Any]]:
    found = []
    for name in (folder / kind.folder).names():
        try:
            one = artefact.find(kind, folder / kind.folder / name)
        except StoreError as error:  # of another version, too
            damaged.append(str(error))
            continue
        if one is not None and one.complete:
            found.append(one)
    return found
