"""The probes on disk: results of each unit as they come, a commit for each written last, whole tables at the end.

probes/<name>-<digest>/
  manifest.json                          what was fitted on what: harvest, config, classes, splits
  labels.parquet                         who was labelled what, control and split included
  units/pooled-layer-003/*.parquet       scores, classes, confusions of one view and layer, and directions.safetensors
  commits/pooled-layer-003.json          written last: the unit counts
  probes.parquet, classes.parquet, confusions.parquet, directions.safetensors    all units together, once complete
"""

import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from linrep.config import digest
from linrep.directions import DirectionSet, read_directions, write_directions
from linrep.errors import StoreError
from linrep.places import Place, place
from linrep.probe.config import ProbeConfig
from linrep.probe.report import Result
from linrep.probe.study import Study, Unit
from linrep.records import committed_units, find_record, only_artefact, repair_of_unit, repair_of_whole, write_record
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now
from linrep.store.samples import SPLITS
from linrep.store.tables import read_table, write_table
from schemas.probes import VERSION

TABLES = ("probes", "classes", "confusions")
DIRECTIONS = "directions.safetensors"
LABELS = "labels.parquet"
MEND = "delete it and run jobs/probe.py with the same recipe again: what is committed is kept"
"""What to do about a damaged manifest."""


@dataclass(frozen=True)
class ProbeManifest:
    """What the probes are of.

    Attributes:
        name: Name of the recipe.
        digest: Names everything that decides a number: harvest, config, attributes, version.
        parents: Digests of what the probes were made from, by stage.
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        config: The recipe's probe section.
        tasks: Attribute, modality and classes, in the order of their numbers.
        left_out: Classes with too few samples, by attribute and modality.
        splits: Samples of each split, by modality.
        units: Views and layers, by their names.
        saes: SAEs that were given: what each says that it is of, and what was insisted on against it.
        status: running until every unit is committed.
        created: When the job began, UTC.
        finished: When it was complete.
        schema_version: Version of the tables.
    """

    name: str
    digest: str
    parents: dict[str, str]
    store: str
    config: dict[str, Any]
    tasks: list[dict[str, Any]]
    left_out: dict[str, list[str]]
    splits: dict[str, dict[str, int]]
    units: list[str]
    saes: list[dict[str, Any]] = field(default_factory=list)
    status: Literal["running", "complete"] = "running"
    created: str = ""
    finished: str = ""
    schema_version: int = VERSION


@dataclass(frozen=True)
class Probes:
    """Complete probes, as a reader sees them.

    Attributes:
        place: Where they lie.
        manifest: What they are of.
    """

    place: Place
    manifest: ProbeManifest

    def table(self, name: Literal["probes", "classes", "confusions", "labels"] = "probes") -> pa.Table:
        """One of the tables; `schemas.probes` explains the columns."""
        return read_table(self.place, f"{name}.parquet", repair=repair_of_whole(self.place))

    @property
    def directions(self) -> DirectionSet:
        """All directions."""
        return read_directions(self.place / DIRECTIONS)


@dataclass(frozen=True)
class UnitCommit:
    """What a unit took.

    Attributes:
        unit: Its name.
        rows: Rows read to gather the moments, all families together.
        seconds: From the first part to the last file.
    """

    unit: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class ProbePlan:
    """A probe job before it runs.

    Attributes:
        place: The artefact.
        study: What to do.
        manifest: The manifest to start with.
    """

    place: Place
    study: Study
    manifest: ProbeManifest = field(repr=False)


def plan_artefact(
    workspace: Place, name: str, study: Study, config: ProbeConfig, attributes: str | None, sae: str | None = None
) -> ProbePlan:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
        config: The recipe's probe section.
        attributes: Digest of the attributes' table, None where there is none.
        sae: Digest of the probed autoencoder's weights, None where there is none.
    """
    harvest = study.store.manifest.digest
    config_values = config.model_dump(mode="json")
    if config.softmax is not None:  # how much fits into memory changes no number
        config_values["softmax"].pop("memory_gb")
    if config.attributes is not None:  # what the table says counts, not where it lies
        config_values["attributes"].pop("path")
    if config.sae is not None:
        config_values["sae"].pop("path")
    key = digest(VERSION, harvest, config_values, attributes, sae)
    tasks = [asdict(task) for task in study.tasks if task.n_per_class is None]
    samples = study.samples
    splits = {
        m: dict(Counter(SPLITS[s] for s, takes_part in zip(samples.split, samples.of(m), strict=True) if takes_part))
        for m in ("image", "text")
    }
    manifest = ProbeManifest(
        name=name,
        digest=key,
        parents={"harvest": harvest, **{name: made for name, made in (("attributes", attributes), ("sae", sae)) if made}},
        store=study.store.place.within(workspace),
        config=config.model_dump(mode="json"),
        tasks=[{**task, "names": list(task["names"])} for task in tasks],
        left_out={what: list(names) for what, names in study.left_out.items()},
        splits=splits,
        units=[unit.name for unit in study.units],
        created=now(),
    )
    return ProbePlan(workspace / "probes" / f"{name}-{key}", study, manifest)


def open_probes(where: str | Place) -> Probes:
    """The probes in a folder; a workspace that holds just one probe artefact will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    here = only_artefact(place(where), "probes", "sets of probes")
    manifest = read_probe_manifest(here)
    if manifest is None:
        raise StoreError(f"no probes at {here}: {MANIFEST} is missing")
    if manifest.status != "complete":
        raise StoreError(f"the probes at {here} are not complete: run jobs/probe.py with the same recipe again")
    return Probes(here, manifest)


def read_probe_manifest(here: Place) -> ProbeManifest | None:
    """The manifest in a folder, None where there is none.

    Raises:
        StoreError: It is damaged, or of a version that this program cannot read.
    """
    return find_record(here / MANIFEST, ProbeManifest, MEND)


def write_probe_manifest(here: Place, manifest: ProbeManifest) -> None:
    """Write, or replace, the manifest."""
    write_record(here / MANIFEST, manifest)


def write_unit(here: Place, unit: Unit, result: Result, rows: int, started: float) -> UnitCommit:
    """Write what a unit found, and commit it.

    Args:
        here: The artefact.
        unit: The unit.
        result: What it found.
        rows: Rows read for it.
        started: When it was begun, on `time.monotonic`'s clock.
    """
    folder = here / "units" / unit.name
    for name in TABLES:
        write_table(folder, f"{name}.parquet", getattr(result, name))
    write_directions(folder / DIRECTIONS, result.directions)
    commit = UnitCommit(unit.name, rows, round(time.monotonic() - started, 3))
    write_record(here / "commits" / f"{unit.name}.json", commit)
    return commit


def committed(here: Place) -> set[str]:
    """Names of the units that are done."""
    return committed_units(here)


def finish(plan: ProbePlan) -> ProbeManifest:
    """Put the units' results together; returns the manifest of the complete artefact, not written yet."""
    units = plan.study.units
    for name in TABLES:
        parts = [
            read_table(plan.place / "units" / u.name, f"{name}.parquet", repair=repair_of_unit(plan.place, u.name)) for u in units
        ]
        write_table(plan.place, f"{name}.parquet", pa.concat_tables(parts))
    entries = [e for unit in units for e in read_directions(plan.place / "units" / unit.name / DIRECTIONS).entries]
    write_directions(plan.place / DIRECTIONS, DirectionSet(tuple(entries)), plan.manifest.parents)
    write_table(plan.place, LABELS, plan.study.labels())
    return replace(plan.manifest, status="complete", finished=now())
