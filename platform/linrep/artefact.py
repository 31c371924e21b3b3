"""An artefact: what a stage makes, on disk. It has the same life in every stage, and this module is that life.

<folder>/<name>-<digest>/
  manifest.json                 the head: what it is of, its units, and `complete` as the very last write
  units/<unit>/<table>.parquet  what a unit of work found; of some kinds the units stand on top, see `Kind.units`
  commits/<unit>.json           written last of a unit: from then on it counts
  <table>.parquet               the units' tables put together, once all are there

A stage that was stopped at any moment begins again where its commits end. Nothing here knows Ray, MLflow or torch.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from linrep.config import digest
from linrep.errors import StoreError
from linrep.kind import About, Kind, Manifest, UnitCommit
from linrep.places import Place, place
from linrep.records import (
    MANIFEST,
    MEND_COMMIT,
    find_record,
    is_inside,
    only_artefact,
    read_record,
    repair_of_unit,
    repair_of_whole,
    write_record,
)
from linrep.store.manifest import now
from linrep.store.tables import read_table, write_table

if TYPE_CHECKING:
    import polars as pl


class AnotherVersion(StoreError):
    """An artefact is of a version that this program cannot read."""


@dataclass(frozen=True)
class Artefact(Generic[About]):
    """An artefact that is planned, begun or complete.

    Attributes:
        kind: Its kind.
        place: Where it lies.
        manifest: Its head.
    """

    kind: Kind[About]
    place: Place
    manifest: Manifest = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the recipe and digest: the name of its folder."""
        return f"{self.manifest.name}-{self.manifest.digest}"

    @property
    def digest(self) -> str:
        """Names everything that decides a number."""
        return self.manifest.digest

    @property
    def parents(self) -> dict[str, str]:
        """Digests of what it is made from, by stage."""
        return self.manifest.parents

    @property
    def units(self) -> Sequence[str]:
        """Names of its units."""
        return self.manifest.units

    @property
    def params(self) -> dict[str, Any]:
        """What the recipe says of it."""
        return {"name": self.manifest.name, self.kind.stage: self.manifest.config}

    @property
    def about(self) -> About:
        """What the stage says of it.

        Raises:
            StoreError: The manifest says something else.
        """
        try:
            return _adapter(self.kind.about).validate_json(json.dumps(self.manifest.about), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, ("about", *first["loc"])))
            raise StoreError(f"{self.place / MANIFEST} is damaged (field {where}: {first['msg']}): {self.kind.repair}") from None

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return self.manifest.status == "complete"

    # From plan to complete, in this order.

    def there(self) -> "Artefact[About] | None":
        """The one on disk, begun or complete; None where there is none."""
        return find(self.kind, self.place)

    def covers(self, planned: "Artefact[About]") -> bool:
        """Whether this one, as it lies on disk, is complete and has all that is planned."""
        return self.complete and (not self.kind.grows or set(planned.units) <= set(self.units))

    def begun(self) -> "Artefact[About]":
        """Write the head, or take over when it was created, and into which units it was cut, from the one on disk."""
        there = self.there()
        if there is None:
            write_record(self.place / MANIFEST, self.manifest)
            return self
        kept = there.manifest
        units = kept.units
        if self.kind.grows:
            asked = self.manifest.units
            units = [*(unit for unit in there.done() if unit not in asked), *asked]
        head = replace(self.manifest, created=kept.created, units=units, about=kept.about, status="running", finished="")
        if head != kept:
            write_record(self.place / MANIFEST, head)
        return replace(self, manifest=head)

    def done(self) -> list[str]:
        """Units that are committed, in their order; strangers in the folder are no units."""
        names = set((self.place / "commits").names())
        return [unit for unit in self.manifest.units if f"{unit}.json" in names]

    def todo(self) -> list[str]:
        """Units that are not committed, in their order."""
        done = set(self.done())
        return [unit for unit in self.manifest.units if unit not in done]

    def write(
        self, unit: str, tables: Mapping[str, pa.Table], seconds: float, work: int, cost: Mapping[str, Any] | None = None
    ) -> UnitCommit:
        """Write what a unit found, and commit it.

        Args:
            unit: Its name.
            tables: Its tables, in their schemas.
            seconds: How long it took.
            work: How much of what the stage counts it was.
            cost: What else to say of it; plain values.
        """
        return write_unit(self.place, self.folder(unit), unit, tables, seconds, work, cost)

    def commit(self, unit: str) -> UnitCommit:
        """The commit of a unit.

        Raises:
            StoreError: There is none, or it is damaged.
        """
        return read_record(self.place / "commits" / f"{unit}.json", UnitCommit, MEND_COMMIT)

    def commits(self) -> Iterator[UnitCommit]:
        """The commits of all units that are done."""
        return map(self.commit, self.done())

    def finish(self, of: Mapping[str, Sequence[str]] | None = None) -> None:
        """Put the units' tables together.

        Args:
            of: Units that have a table, where those are not all.
        """
        for name, schema in self.kind.tables.items():
            units = self.manifest.units if of is None else of[name]
            parts = [self.part(unit, name) for unit in units]
            write_table(self.place, f"{name}.parquet", pa.concat_tables(parts) if parts else schema.empty_table())

    def closing(self, **about: Any) -> "Artefact[About]":
        """The artefact as it will be once it is complete; nothing is written.

        Args:
            about: What is known only now.
        """
        manifest = replace(self.manifest, about=self.manifest.about | about, status="complete", finished=now())
        return replace(self, manifest=manifest)

    def close(self) -> None:
        """Write that it is complete: the very last write."""
        write_record(self.place / MANIFEST, self.manifest)

    # What it holds.

    def folder(self, unit: str) -> Place:
        """Where a unit's files lie.

        Raises:
            StoreError: The unit's name leads out of the artefact.
        """
        if not is_inside(unit):
            raise StoreError(
                f"{self.place / MANIFEST} is damaged (the unit {unit!r:.100} leads out of {self.place}): {self.kind.repair}"
            )
        return (self.place / self.kind.units if self.kind.units else self.place) / unit

    def part(self, unit: str, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table of a unit that is committed.

        Raises:
            StoreError: It is not there, or not as it was written.
        """
        seal = self.commit(unit).seals.get(name)
        schema = {**self.kind.tables, **self.kind.parts}[name]
        return read_table(self.folder(unit), f"{name}.parquet", columns, repair_of_unit(self.place, unit), seal, schema)

    def table(self, name: str | None = None) -> pa.Table:
        """A table of the complete artefact; `schemas` explains the columns.

        Args:
            name: Which; the first of its kind unless it is said otherwise.

        Raises:
            StoreError: It is not there, or not as it was written.
        """
        name, known = name or next(iter(self.kind.tables)), {**self.kind.tables, **self.kind.whole}
        if name not in known:
            raise StoreError(f"no table {name!r:.80} in {self.place}: there are {', '.join(known) or 'none'}")
        return read_table(self.place, f"{name}.parquet", repair=repair_of_whole(self.place), schema=known[name])

    def frame(self, name: str | None = None) -> "pl.DataFrame":
        """The same as a frame of polars."""
        import polars as pl  # not at the top: most commands read no frame

        return pl.DataFrame(pl.from_arrow(self.table(name)))


def write_unit(
    here: Place,
    folder: Place,
    unit: str,
    tables: Mapping[str, pa.Table],
    seconds: float,
    work: int,
    cost: Mapping[str, Any] | None = None,
) -> UnitCommit:
    """Write what a unit of an artefact found, and commit it; see `Artefact.write`.

    Args:
        here: The artefact.
        folder: Where the unit's files lie.
        unit: Its name.
        tables: Its tables.
        seconds: How long it took.
        work: How much of what the stage counts it was.
        cost: What else to say of it.
    """
    seals = {name: write_table(folder, f"{name}.parquet", table).seal for name, table in tables.items()}
    commit = UnitCommit(unit, round(seconds, 3), work, seals, dict(cost or {}))
    write_record(here / "commits" / f"{unit}.json", commit)
    return commit


def plan(
    kind: Kind[About],
    workspace: Place,
    name: str,
    *,
    decisive: Any,
    parents: Mapping[str, str],
    config: Mapping[str, Any],
    units: Sequence[str],
    about: About,
    saes: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
) -> Artefact[About]:
    """Name an artefact and describe it; nothing is written.

    Args:
        kind: Its kind.
        workspace: Where everything lies.
        name: Name of the recipe.
        decisive: Values that decide a number, beside the parents and the version: they make the digest.
        parents: Digests of what it is made from, by stage.
        config: The recipe's section.
        units: Names of the units.
        about: What else its manifest says.
        saes: SAEs that were given, as `linrep.sae.origin` describes them.
        notes: What a reader must know of the numbers.
    """
    key = key_of(kind, decisive, parents)
    manifest = Manifest(
        stage=kind.stage,
        name=name,
        digest=key,
        parents=dict(parents),
        config=dict(config),
        units=list(units),
        about=json.loads(json.dumps(asdict(about))),  # pyright: ignore[reportArgumentType]
        saes=[dict(sae) for sae in saes],
        notes=list(notes),
        status="running",
        created=now(),
        finished="",
        version=kind.version,
    )
    return Artefact(kind, place_of(kind, workspace, name, decisive=decisive, parents=parents), manifest)


def key_of(kind: Kind, decisive: Any, parents: Mapping[str, str]) -> str:
    """The digest of an artefact, see `plan`."""
    return digest(kind.version, dict(parents), decisive)


def place_of(kind: Kind, workspace: Place, name: str, *, decisive: Any, parents: Mapping[str, str]) -> Place:
    """Where an artefact lies, see `plan`."""
    return workspace / kind.folder / f"{name}-{key_of(kind, decisive, parents)}"


def find(kind: Kind[About], where: Place) -> Artefact[About] | None:
    """The artefact in a folder, begun or complete; None where there is no manifest.

    Raises:
        AnotherVersion: It is of a version that this program cannot read.
        StoreError: The manifest is damaged, or of another kind.
    """
    file = where / MANIFEST
    manifest = find_record(file, Manifest, kind.repair)
    if manifest is None:
        return None
    if manifest.stage != kind.stage:
        raise StoreError(f"{file} is of the stage {manifest.stage!r:.60}, not {kind.stage}: name another folder")
    if manifest.version != kind.version:
        raise AnotherVersion(
            f"{file} has schema version {manifest.version}, this program reads {kind.version}: run the job that made it again"
        )
    return Artefact(kind, where, manifest)


def all_in(kind: Kind[About], workspace: Place) -> Iterator[Artefact[About]]:
    """The artefacts of a kind in a place, begun or complete; what is of another version is left out.

    Args:
        kind: The kind.
        workspace: Where its folder lies.

    Raises:
        StoreError: A manifest is damaged.
    """
    for name in (workspace / kind.folder).names():
        try:
            found = find(kind, workspace / kind.folder / name)
        except AnotherVersion:
            continue
        if found is not None:
            yield found


def open(kind: Kind[About], where: str | Place) -> Artefact[About]:
    """The complete artefact in a folder; a workspace that holds just one of its kind will do.

    Raises:
        StoreError: There is none, there are several to choose from, or it is not complete.
    """
    here = only_artefact(place(where), kind.folder, kind.what)
    found = find(kind, here)
    if found is None:
        raise StoreError(f"no {kind.what} at {here}: {MANIFEST} is missing; {kind.again}")
    if not found.complete:
        raise StoreError(f"the {kind.what} at {here} are not complete: {kind.again} again")
    return found


@functools.lru_cache(maxsize=64)
def _adapter(kind: type) -> Any:
    return TypeAdapter(kind)
