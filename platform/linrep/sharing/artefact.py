"""The sharing results on disk: rows of each unit as they come, a commit for each written last, whole tables at the end.

sharing/<name>-<digest>/
  manifest.json                                 what was compared: harvests, dictionaries, config
  units/trained-layer-003/sharing.parquet       rows of one unit; latents.parquet beside it for dictionaries
  commits/trained-layer-003.json                written last: the unit counts
  sharing.parquet, latents.parquet              all units together, once complete
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from linrep.config import digest
from linrep.errors import StoreError
from linrep.places import Place, place
from linrep.records import committed_units, find_record, only_artefact, repair_of_unit, repair_of_whole, write_record
from linrep.sharing.config import SharingConfig
from linrep.sharing.intervals import Measure
from linrep.sharing.study import TRAINED, Study, Unit
from linrep.store.apart import kept_apart
from linrep.store.layout import MANIFEST, MODALITIES
from linrep.store.manifest import now
from linrep.store.read import Store
from linrep.store.tables import read_table, table_of, write_table
from linrep.vlm.prompts import FIELDS, filled_in, prompts_differ
from schemas.sharing import SHARING, SHARING_LATENTS, VERSION

TABLES = {"sharing": SHARING, "latents": SHARING_LATENTS}
MEND = "delete it and run jobs/sharing.py with the same recipe again: what is committed is kept"
"""What to do about a damaged manifest."""


@dataclass(frozen=True)
class SharingManifest:
    """What was compared.

    Attributes:
        name: Name of the recipe.
        digest: Names everything that decides a number.
        parents: Digests of harvests and dictionaries.
        stores: Where the activations lay, by model.
        config: The recipe's sharing section.
        pairs: Pairs of each store.
        classes: Classes of the concept level.
        units: Names of the units.
        saes: SAEs that were given: what each says that it is of, and what was insisted on against it.
        status: running until every unit is committed.
        created: When the job began, UTC.
        finished: When it was complete.
        notes: What a reader must know of the rows that were compared, such as prompts that differ.
        schema_version: Version of the tables.
    """

    name: str
    digest: str
    parents: dict[str, str]
    stores: dict[str, str]
    config: dict[str, Any]
    pairs: dict[str, int]
    classes: list[str]
    units: list[str]
    saes: list[dict[str, Any]] = field(default_factory=list)
    status: Literal["running", "complete"] = "running"
    created: str = ""
    finished: str = ""
    notes: list[str] = field(default_factory=list)
    schema_version: int = VERSION


@dataclass(frozen=True)
class Sharing:
    """Complete results.

    Attributes:
        place: Where they lie.
        manifest: What they are of.
    """

    place: Place
    manifest: SharingManifest

    def table(self, name: Literal["sharing", "latents"] = "sharing") -> pa.Table:
        """One of the tables; `schemas.sharing` explains the columns."""
        return read_table(self.place, f"{name}.parquet", repair=repair_of_whole(self.place), schema=TABLES[name])


@dataclass(frozen=True)
class UnitCommit:
    """What a unit took."""

    unit: str
    pairs: int
    seconds: float


@dataclass(frozen=True)
class SharingPlan:
    """A sharing job before it runs.

    Attributes:
        place: The artefact.
        study: What to do.
        manifest: The manifest to start with.
    """

    place: Place
    study: Study
    manifest: SharingManifest = field(repr=False)


STEERING = "steering"
"""Among the parents: the steering results that were read."""


def prompt_notes(stores: Mapping[str, Store]) -> list[str]:
    """What is to be said of the prompts of the stores that are compared."""
    notes = [
        f"prompts of the {model} model's harvest differ: {one}"
        for model, store in stores.items()
        for one in prompts_differ(store.manifest.harvest)
    ]
    notes += [f"{model} model: {one}" for model, store in stores.items() for one in store.manifest.notes if "differ" not in one]
    asked = {model: [filled_in(store.manifest.harvest)[name] for name in FIELDS] for model, store in stores.items()}
    if len(set(map(tuple, asked.values()))) > 1:
        notes.append("the models were given different prompts: " + "; ".join(f"{m} {p}" for m, p in asked.items()))
    return notes


def plan_artefact(
    workspace: Place, name: str, study: Study, weights: tuple[str, ...] = (), steering: str | None = None
) -> SharingPlan:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
        weights: Digest of each dictionary's weights.
        steering: Digest of the steering results, if any were read.
    """
    config: SharingConfig = study.config
    parents = {("harvest" if model == TRAINED else model): store.manifest.digest for model, store in study.stores.items()}
    parents |= {f"dictionary-{i}": own for i, own in enumerate(weights)}
    parents |= {} if steering is None else {STEERING: steering}
    # What stores, dictionaries and steering results hold counts, not where they lie.
    values = config.model_dump(mode="json", exclude={"untrained", "dictionaries", "own", "steering"})
    values |= {"layers": list(study.layers), "at": [[d.model, d.layer, d.insist] for d in config.dictionaries]}
    values |= {"steered": [[layer, repr(own)] for layer, own in study.steered.items()]}
    key = digest(VERSION, parents, values)
    manifest = SharingManifest(
        name=name,
        digest=key,
        parents=parents,
        stores={model: store.place.within(workspace) for model, store in study.stores.items()},
        config=config.model_dump(mode="json"),
        pairs={model: len(pairs) for model, pairs in study.pairs.items()},
        classes=list(study.pairs[TRAINED].classes),
        units=[unit.name for unit in study.units],
        notes=prompt_notes(study.stores),
        created=now(),
    )
    return SharingPlan(workspace / "sharing" / f"{name}-{key}", study, manifest)


def open_sharing(where: str | Place) -> Sharing:
    """The results in a folder; a workspace that holds just one will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    here = only_artefact(place(where), "sharing", "sharing results")
    manifest = read_sharing_manifest(here)
    if manifest is None:
        raise StoreError(f"no sharing results at {here}: {MANIFEST} is missing")
    if manifest.status != "complete":
        raise StoreError(f"the sharing results at {here} are not complete: run jobs/sharing.py with the same recipe again")
    return Sharing(here, manifest)


def read_sharing_manifest(here: Place) -> SharingManifest | None:
    """The manifest in a folder, None where there is none.

    Raises:
        StoreError: It is damaged, or of a version that this program cannot read.
    """
    return find_record(here / MANIFEST, SharingManifest, MEND)


def write_sharing_manifest(here: Place, manifest: SharingManifest) -> None:
    """Write, or replace, the manifest."""
    write_record(here / MANIFEST, manifest)


def rows_of(
    study: Study, unit: Unit, level: str, measures: Sequence[Measure], parents: dict[str, str], more: tuple[str, ...] = ()
) -> list[dict[str, object]]:
    """Measures as rows of the `SHARING` contract; what is not finite becomes null.

    Args:
        study: What is compared.
        unit: Of which the measures are.
        level: Of the measures.
        measures: The numbers.
        parents: Digests of harvests and dictionaries, and of what else was read.
        more: Which of them the rows name beside their harvest and their dictionary.
    """
    store = study.stores[unit.model]
    dictionary = None if unit.dictionary is None else study.latents[unit.dictionary][unit.control].name
    own = [store.manifest.digest, *([parents[f"dictionary-{unit.dictionary}"]] if unit.dictionary is not None else [])]
    own += [parents[name] for name in more]
    view = "pooled" if unit.dictionary is None else "tokens"
    apart = [kept_apart(store, view, unit.layer, (modality,)).columns(modality) for modality in MODALITIES]
    rows = []
    for m in measures:
        halves = m.halves or (None, None)
        numbers = {
            "value": m.value, "low": m.low, "high": m.high, "null": m.null, "null_low": m.null_low, "null_high": m.null_high,
            "half_one": halves[0], "half_two": halves[1],
        }  # fmt: skip
        rows.append(
            {
                "model": unit.model,
                "layer": unit.layer,
                "level": level,
                "dictionary": dictionary,
                "metric": m.metric,
                "n": m.n,
                "note": m.why,
                "parents": " ".join(own),
                **apart[0],
                **apart[1],
                **{name: None if v is None or v - v != 0 else v for name, v in numbers.items()},
            }
        )
    return rows


def write_unit(
    here: Place, unit: Unit, rows: list[dict[str, object]], latents: list[dict[str, object]], pairs: int, seconds: float
) -> UnitCommit:
    """Write what a unit found, and commit it."""
    folder = here / "units" / unit.name
    write_table(folder, "sharing.parquet", table_of(rows, SHARING))
    write_table(folder, "latents.parquet", table_of(latents, SHARING_LATENTS))
    commit = UnitCommit(unit.name, pairs, round(seconds, 3))
    write_record(here / "commits" / f"{unit.name}.json", commit)
    return commit


def committed(here: Place) -> set[str]:
    """Names of the units that are done."""
    return committed_units(here)


def finish(plan: SharingPlan) -> SharingManifest:
    """Put the units' tables together; returns the manifest of the complete artefact, not written yet."""
    for name in TABLES:
        parts = [
            read_table(
                plan.place / "units" / u.name, f"{name}.parquet", None, repair_of_unit(plan.place, u.name), None, TABLES[name]
            )
            for u in plan.study.units
        ]
        write_table(plan.place, f"{name}.parquet", pa.concat_tables(parts))
    return replace(plan.manifest, status="complete", finished=now())
