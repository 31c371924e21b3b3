"""Steering on disk: the edited runs, and beside them the verdicts of each judge; see `linrep.artefact`.

steering/<name>-<digest>/
  units/answers-000003/          what the runs of chunk 3 gave
  unedited/                      every image once without an edit: whether the judge can read what the model says
  judged/<judge>-<digest>/       what a judge says of the answers, and what it comes to
  judged/replies/                answers of chat servers, whichever judge asked
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from linrep import artefact
from linrep.artefact import Artefact
from linrep.kind import Kind
from linrep.places import Place
from linrep.records import MANIFEST, write_record
from linrep.steer.config import SteerConfig
from schemas.steering import ANSWERS, CELLS, DAMAGE, EFFECTS, LENS, MATCHED, VERDICTS, VERSION


@dataclass(frozen=True)
class SteerAbout:
    """What the edited runs are of.

    Attributes:
        model: The model's card as plain values.
        layers: Layers at which edits act.
        pairs: Ordered pairs of classes, source and target.
        n_cells: Runs in all.
        damage_texts: captions, texts after another image, or none.
        counts: Runs done and failed, tokens; once complete.
    """

    model: dict[str, Any]
    layers: list[int]
    pairs: list[list[str]]
    n_cells: int
    damage_texts: str
    counts: dict[str, int] = field(default_factory=dict)


STEERING = Kind(
    "steer", "steering", "edited runs", VERSION, SteerAbout,
    {"cells": CELLS, "answers": ANSWERS, "damage": DAMAGE, "lens": LENS},
)  # fmt: skip
Steering = Artefact[SteerAbout]
TASKS = {"answers": ("cells", "answers"), "damage": ("damage",), "lens": ("lens",)}
"""Tables of the units of each task."""


@dataclass(frozen=True)
class VerdictAbout:
    """What the verdicts are of.

    Attributes:
        source: Names what the judge read, where that may change between two runs of the same recipe.
        extra: What else the judge says; once complete.
    """

    source: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


VERDICTS_KIND = Kind(
    "judge", "judged", "verdicts", VERSION, VerdictAbout, {},
    whole={"effects": EFFECTS, "verdicts": VERDICTS, "matched": MATCHED}, job="steer",
)  # fmt: skip
Judged = Artefact[VerdictAbout]


def plan_verdicts(steering: Steering, config: SteerConfig) -> Judged:
    """Name the verdicts of a judge on some edited runs; nothing is written.

    Args:
        steering: The runs.
        config: The recipe's section: the judge, and the damage at which efficacies are compared.
    """
    decisive = [config.judge.model_dump(mode="json"), config.damage.matched]
    return artefact.plan(
        VERDICTS_KIND,
        steering.place,
        config.judge.kind,
        decisive=decisive,
        parents={**steering.manifest.parents, "steer": steering.manifest.digest},
        config=config.judge.model_dump(mode="json"),
        units=[],
        about=VerdictAbout(),
        notes=steering.manifest.notes,
    )


def reopen(there: Judged) -> None:
    """Mark verdicts as not complete: what they were read from has changed."""
    write_record(there.place / MANIFEST, replace(there.manifest, status="running", finished=""))


def unit_of(task: str, number: int) -> str:
    """Name of a chunk's unit."""
    return f"{task}-{number:06d}"


def units_by_table(units: Sequence[str]) -> dict[str, list[str]]:
    """The units that have each table, in their order."""
    return {name: [u for u in units if u.rpartition("-")[0] == task] for task, names in TASKS.items() for name in names}


def read_parts(here: Steering, name: str) -> pa.Table:
    """All rows of a table of committed units, complete or not."""
    done = units_by_table(here.done())[name]
    tables = [here.part(unit, name) for unit in done]
    return pa.concat_tables(tables) if tables else STEERING.tables[name].empty_table()


def without_edits(here: Steering, units: Sequence[str]) -> Steering:
    """The small artefact within the artefact for the runs without an edit."""
    return replace(here, place=here.place / "unedited", manifest=replace(here.manifest, units=list(units)))


def failed_runs(here: Steering) -> list[tuple[str, str]]:
    """Runs of committed units that failed, with the reason."""
    return [(str(name), str(why)) for commit in here.commits() for name, why in commit.cost["failed"]]


def counts_of(here: Steering) -> Mapping[str, int]:
    """Runs and tokens of all committed units."""
    commits = list(here.commits())
    return {
        "n_cells": here.about.n_cells,
        "n_done": sum(commit.cost["n_done"] for commit in commits),
        "n_failed": sum(len(commit.cost["failed"]) for commit in commits),
        "n_tokens": sum(commit.work for commit in commits),
    }


def judged_of(workspace: Place, harvest: str) -> list[tuple[Steering, Judged]]:
    """Complete verdicts on steering of a harvest in a workspace, with their runs.

    Args:
        workspace: Where everything lies.
        harvest: Digest of the harvest.
    """
    of_harvest = (runs for runs in artefact.all_in(STEERING, workspace) if runs.manifest.parents.get("harvest") == harvest)
    return [(runs, verdicts) for runs in of_harvest for verdicts in verdicts_in(runs)]


def verdicts_in(runs: Steering) -> list[Judged]:
    """Complete verdicts on some runs, by name of their folder."""
    return [verdicts for verdicts in artefact.all_in(VERDICTS_KIND, runs.place) if verdicts.complete]
