"""Runs of latents as they come: written, committed, and put together when all are there."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linrep.features.artefact import Features, FeaturesManifest
from linrep.features.plan import FeaturesPlan
from linrep.features.study import TURNED, Unit
from linrep.features.uniqueness import unique
from linrep.places import Place, remove_folder
from linrep.records import MEND_COMMIT, committed_units, read_record, repair_of_unit, write_record
from linrep.store.layout import MODALITIES
from linrep.store.manifest import now
from linrep.store.tables import read_table, write_table
from schemas.features import FEATURES

TABLES = ("features", "labels")


@dataclass(frozen=True)
class UnitCommit:
    """What a unit took.

    Attributes:
        unit: Its name.
        latents: Latents.
        tokens: Tokens read, by modality.
        chance: Monosemanticity of a blind latent, where it was measured.
        seconds: From the first pass over the codes to the tables.
    """

    unit: str
    latents: int
    tokens: dict[str, int]
    chance: float | None
    seconds: float


def write_unit(here: Place, unit: Unit, tables: dict[str, pa.Table], commit: UnitCommit) -> UnitCommit:
    """Write what a unit found, and commit it."""
    for name, table in tables.items():
        write_table(here / "units" / unit.name, f"{name}.parquet", table)
    write_record(here / "commits" / f"{unit.name}.json", commit)
    return commit


def committed(here: Place) -> set[str]:
    """Names of the units that are done."""
    return committed_units(here)


def has_codes(plan: FeaturesPlan) -> bool:
    """Whether the codes of every dictionary are there, which somebody may have deleted."""
    found = Features(plan.place, plan.manifest)
    return all(found.has_codes(coder, modality) for coder in found.manifest.codes for modality in MODALITIES)


def finish(plan: FeaturesPlan) -> FeaturesManifest:
    """Put the units' tables together; returns the manifest of the complete artefact, not written yet."""
    units = plan.study.units
    for name in TABLES:
        parts = [_unit_table(plan, unit, name) for unit in units]
        table = pa.concat_tables(parts)
        write_table(plan.place, f"{name}.parquet", _with_uniqueness(plan, table) if name == "features" else table)
    commits = [read_record(plan.place / "commits" / f"{unit.name}.json", UnitCommit, MEND_COMMIT) for unit in units]
    remove_folder(plan.place / TURNED)  # what is left to do needs them no more
    return replace(plan.manifest, status="complete", finished=now(), chance=commits[0].chance, tokens=commits[0].tokens)


def _unit_table(plan: FeaturesPlan, unit: Unit, name: str, columns: list[str] | None = None) -> pa.Table:
    repair = repair_of_unit(plan.place, unit.name)
    return read_table(plan.place / "units" / unit.name, f"{name}.parquet", columns, repair)


def _with_uniqueness(plan: FeaturesPlan, table: pa.Table) -> pa.Table:
    """The features with the two columns that need the examples of a whole dictionary."""
    columns: dict[str, list[Any]] = {"uniqueness": [], "most_alike": []}
    coders = dict.fromkeys(unit.coder for unit in plan.study.units)
    for coder in coders:
        own = [unit for unit in plan.study.units if unit.coder == coder]
        wanted = ["latent", "kind", "sample_id"]
        examples = pa.concat_tables([_unit_table(plan, unit, "examples", wanted) for unit in own])
        top = examples.filter(pc.field("kind") == "top").combine_chunks()
        sample = np.unique(top["sample_id"].to_numpy(), return_inverse=True)[1]
        found = unique(top["latent"].to_numpy().astype(np.int64), sample.astype(np.int64), own[-1].run[1])
        columns["uniqueness"] += [None if v != v else v for v in found.uniqueness.tolist()]
        columns["most_alike"] += [None if v < 0 else v for v in found.most_alike.tolist()]
    for name, values in columns.items():
        table = table.set_column(
            FEATURES.get_field_index(name), FEATURES.field(name), pa.array(values, FEATURES.field(name).type)
        )
    return table
