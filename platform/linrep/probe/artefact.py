"""The probes on disk: an artefact with a unit for each view and layer, see `linrep.artefact`.

probes/<name>-<digest>/
  units/pooled-layer-003/          probes, classes, confusions, erasure of one view and layer, and directions.safetensors
  labels.parquet                   who was labelled what, control and split included
  directions.safetensors           all units' directions together, once complete
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from linrep import artefact
from linrep.artefact import Artefact
from linrep.directions import DirectionSet, read_directions, write_directions
from linrep.kind import Kind, UnitCommit
from linrep.places import Place
from linrep.probe.config import ProbeConfig
from linrep.probe.report import Result
from linrep.probe.study import Study, Unit
from linrep.store.samples import SPLITS
from linrep.store.tables import write_table
from schemas.probes import PROBE_CLASSES, PROBE_CONFUSIONS, PROBE_ERASURE, PROBE_LABELS, PROBES, VERSION

DIRECTIONS = "directions.safetensors"
LABELS = "labels"


@dataclass(frozen=True)
class ProbeAbout:
    """What the probes are of.

    Attributes:
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        tasks: Attribute, modality and classes, in the order of their numbers.
        left_out: Classes with too few samples, by attribute and modality.
        splits: Samples of each split, by modality.
    """

    store: str
    tasks: list[dict[str, Any]]
    left_out: dict[str, list[str]]
    splits: dict[str, dict[str, int]]


PROBES_KIND = Kind(
    "probe", "probes", "probes", VERSION, ProbeAbout,
    {"probes": PROBES, "classes": PROBE_CLASSES, "confusions": PROBE_CONFUSIONS, "erasure": PROBE_ERASURE},
    whole={LABELS: PROBE_LABELS},
)  # fmt: skip


@dataclass(frozen=True)
class Probes(Artefact[ProbeAbout]):
    """Complete probes, as a reader sees them; `schemas.probes` explains their tables."""

    @property
    def directions(self) -> DirectionSet:
        """All directions."""
        return read_directions(self.place / DIRECTIONS)


def open_probes(where: str | Place) -> Probes:
    """The probes in a folder; a workspace that holds just one artefact of probes will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    found = artefact.open(PROBES_KIND, where)
    return Probes(found.kind, found.place, found.manifest)


def plan_probes(
    workspace: Place,
    name: str,
    study: Study,
    parents: Mapping[str, str | None] = {},
    origins: tuple[dict[str, Any], ...] = (),
) -> Artefact[ProbeAbout]:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
        parents: Digests of the attributes' table, of the regions and of the probed SAE's weights; None where there is none.
        origins: What the SAE says that it is of.
    """
    parents = {"harvest": study.store.manifest.digest, **parents}
    of_patches = () if study.patches is None else study.patches.study.tasks
    tasks = [asdict(task) for task in (*study.tasks, *of_patches) if task.n_per_class is None]
    samples = study.samples
    return artefact.plan(
        PROBES_KIND,
        workspace,
        name,
        decisive=decisive(study.config),
        parents={stage: made for stage, made in parents.items() if made is not None},
        config=study.config.model_dump(mode="json"),
        units=[unit.name for unit in study.units],
        about=ProbeAbout(
            store=study.store.place.within(workspace),
            tasks=[{**task, "names": list(task["names"])} for task in tasks],
            left_out={what: list(names) for what, names in study.left_out.items()},
            splits={
                m: dict(Counter(SPLITS[s] for s, takes_part in zip(samples.split, samples.of(m), strict=True) if takes_part))
                for m in ("image", "text")
            },
        ),
        saes=origins,
    )


def decisive(config: ProbeConfig) -> dict[str, Any]:
    """What of a section decides a number: not how much fits into memory, nor where attributes and SAE lie."""
    values = config.model_dump(mode="json")
    for section, field in (("softmax", "memory_gb"), ("attributes", "path"), ("sae", "path"), ("sae", "sae")):
        if values[section] is not None:
            values[section].pop(field)
    return values


def write_unit(here: Artefact[ProbeAbout], unit: Unit, result: Result, rows: int, started: float) -> UnitCommit:
    """Write what a unit found, and commit it.

    Args:
        here: The artefact.
        unit: The unit.
        result: What it found.
        rows: Rows read for it, all families together.
        started: When it was begun, on `time.monotonic`'s clock.
    """
    write_directions(here.folder(unit.name) / DIRECTIONS, result.directions)
    tables = {name: getattr(result, name) for name in PROBES_KIND.tables}
    return here.write(unit.name, tables, time.monotonic() - started, rows)


def finish(here: Artefact[ProbeAbout], study: Study) -> None:
    """Put the units' results together."""
    here.finish()
    entries = [e for unit in here.manifest.units for e in read_directions(here.folder(unit) / DIRECTIONS).entries]
    write_directions(here.place / DIRECTIONS, DirectionSet(tuple(entries)), here.manifest.parents)
    write_table(here.place, f"{LABELS}.parquet", study.labels())
