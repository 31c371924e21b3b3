"""What an artefact is of, as values: its kind, its head, and the commit of a unit. See `linrep.artefact`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import pyarrow as pa

About = TypeVar("About")


@dataclass(frozen=True)
class Kind(Generic[About]):
    """A kind of artefact, one for each stage.

    Attributes:
        stage: The stage that makes it, as the recipe's section, the job and the MLflow tag call it.
        folder: Folder of the workspace.
        what: Artefacts of this kind, in words.
        version: Of its tables; part of the digest.
        about: A dataclass of plain values: what a manifest of this kind says beside its head.
        tables: Schemas of the tables that are put together from the units.
        parts: Schemas of tables that stay in their units.
        whole: Schemas of tables that only the whole artefact has.
        job: The script in jobs/ that makes it; named after the stage unless it is said otherwise.
        single: Whether `what` is a singular.
        units: Folder of the units; empty where they stand on top, because people look for them there.
        grows: Whether a complete one can be asked for further units later.
    """

    stage: str
    folder: str
    what: str
    version: int
    about: type[About]
    tables: Mapping[str, pa.Schema]
    parts: Mapping[str, pa.Schema] = field(default_factory=dict)
    whole: Mapping[str, pa.Schema] = field(default_factory=dict)
    job: str = ""
    single: bool = False
    units: str = "units"
    grows: bool = False

    @property
    def again(self) -> str:
        """How to make one, or to go on with it."""
        return f"run jobs/{self.job or self.stage}.py with the same recipe"

    @property
    def repair(self) -> str:
        """What to do about a damaged manifest."""
        return f"delete it and {self.again} again: what is committed is kept"


@dataclass(frozen=True)
class Manifest:
    """The head of an artefact.

    Attributes:
        stage: The stage that makes it.
        name: Name of the recipe.
        digest: Names everything that decides a number.
        parents: Digests of what it is made from, by stage.
        config: The recipe's section.
        units: Names of the units, in the order in which their tables are put together.
        about: What the stage says beside, see `Kind.about`.
        saes: SAEs that were given: what each says that it is of, and what was insisted on against it.
        notes: What a reader must know of the numbers.
        status: running until everything is there.
        created: When it was begun, UTC; a resumed one keeps it.
        finished: When it was complete, UTC.
        version: Version of the tables.
    """

    stage: str
    name: str
    digest: str
    parents: dict[str, str]
    config: dict[str, Any]
    units: list[str]
    about: dict[str, Any]
    saes: list[dict[str, Any]]
    notes: list[str]
    status: Literal["running", "complete"]
    created: str
    finished: str
    version: int


@dataclass(frozen=True)
class UnitCommit:
    """A unit that is done.

    Attributes:
        unit: Its name.
        seconds: How long it took.
        work: How much of what the stage counts: rows, pairs, latents, runs.
        seals: Seal of each of its tables: another file in a table's place is refused.
        cost: What else the stage says of it.
    """

    unit: str
    seconds: float
    work: int
    seals: dict[str, str]
    cost: dict[str, Any]
