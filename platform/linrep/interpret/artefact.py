"""The interpretations on disk: what each chunk of latents gave, a commit for each written last, whole tables at the end.

interpretations/<name>-<digest>/
  manifest.json                                   what was asked: features, latents, config
  chunks/explain-000003/explanations.parquet      explanations of the latents of chunk 3
  chunks/score-000003/scores.parquet              their scores; answers.parquet beside it
  commits/explain-000003.json                     written last: the chunk counts, and what it took
  explanations.parquet, scores.parquet, answers.parquet, explanations.csv       all together, once complete
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from linrep.config import digest
from linrep.errors import StoreError
from linrep.interpret.backends import Effort
from linrep.interpret.config import InterpretConfig
from linrep.interpret.study import Explained
from linrep.interpret.views import Latent
from linrep.places import Place, place
from linrep.records import (
    MEND_COMMIT,
    committed_units,
    find_record,
    only_artefact,
    read_record,
    repair_of_unit,
    repair_of_whole,
    write_record,
)
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now
from linrep.store.tables import read_table, table_of, write_table
from schemas.interpret import ANSWERS, EXPLANATIONS, SCORES, VERSION

Stage = Literal["explain", "score"]
STAGES: tuple[Stage, ...] = ("explain", "score")
TABLES = {"explanations": EXPLANATIONS, "scores": SCORES, "answers": ANSWERS}
OF_STAGE: dict[Stage, tuple[str, ...]] = {"explain": ("explanations",), "score": ("scores", "answers")}
SHEET = "explanations.csv"
MEND = "delete it and run jobs/interpret.py with the same recipe again: what is committed is kept"
"""What to do about a damaged manifest."""
LIMITS = {"url", "parallel", "timeout", "tries", "price", "budget", "key_variable", "proxy_variable", "image_tokens", "device"}
"""Fields of backends that decide where and how patiently, and no answer."""


@dataclass(frozen=True)
class InterpretManifest:
    """What was asked.

    Attributes:
        name: Name of the recipe.
        digest: Names everything that decides a number.
        parents: Digests of the harvest, the features and the edited explanations.
        features: Where the features lie.
        config: The recipe's interpret section.
        latents: Latents of each dictionary that were drawn, by layer/dictionary.
        alive: How many there were to draw from: those that fire at all.
        width: Latents of each dictionary in all.
        n_chunks: Chunks.
        saes: SAEs that were given: what each says that it is of, and what was insisted on against it.
        spent: What it took, in however many runs, but for questions that never got an answer as asked; once complete.
        status: running until every chunk is committed.
        created: When the job began, UTC.
        finished: When it was complete.
        notes: What a reader must know, such as edited explanations that could not be read.
        schema_version: Version of the tables.
    """

    name: str
    digest: str
    parents: dict[str, str]
    features: str
    config: dict[str, Any]
    latents: dict[str, list[int]]
    alive: dict[str, int]
    width: dict[str, int]
    n_chunks: int
    saes: list[dict[str, Any]] = field(default_factory=list)
    spent: dict[str, Any] = field(default_factory=dict)
    status: Literal["running", "complete"] = "running"
    created: str = ""
    finished: str = ""
    notes: list[str] = field(default_factory=list)
    schema_version: int = VERSION


@dataclass(frozen=True)
class Interpretation:
    """Complete results.

    Attributes:
        place: Where they lie.
        manifest: What they are of.
    """

    place: Place
    manifest: InterpretManifest

    def table(self, name: Literal["explanations", "scores", "answers"] = "scores") -> pa.Table:
        """One of the tables; `schemas.interpret` explains the columns."""
        return read_table(self.place, f"{name}.parquet", repair=repair_of_whole(self.place), schema=TABLES[name])


@dataclass(frozen=True)
class ChunkCommit:
    """What a chunk took.

    Attributes:
        chunk: Its name: stage and number.
        latents: Latents.
        effort: Requests and tokens of this chunk, as `Effort` in plain values.
    """

    chunk: str
    latents: int
    effort: dict[str, Any]


def key_of(config: InterpretConfig, parents: dict[str, str]) -> str:
    """The digest of an artefact: what decides its numbers, not how patiently they are asked for."""
    values = config.model_dump(mode="json", exclude={"features", "scenes", "edited"})
    values["backend"] = {name: value for name, value in values["backend"].items() if name not in LIMITS}
    return digest(VERSION, parents, values)


def chunk_name(stage: Stage, number: int) -> str:
    """Name of a chunk."""
    return f"{stage}-{number:06d}"


def committed(here: Place) -> set[str]:
    """Names of the chunks that are done."""
    return committed_units(here)


def write_chunk(
    here: Place, stage: Stage, number: int, tables: dict[str, list[dict[str, object]]], latents: int, effort: Effort
) -> ChunkCommit:
    """Write what a chunk gave, and commit it."""
    name = chunk_name(stage, number)
    for table in OF_STAGE[stage]:
        write_table(here / "chunks" / name, f"{table}.parquet", table_of(tables[table], TABLES[table]))
    commit = ChunkCommit(name, latents, asdict(effort))
    write_record(here / "commits" / f"{name}.json", commit)
    return commit


def read_explained(here: Place, numbers: Sequence[int]) -> dict[Latent, Explained]:
    """The explanations of some chunks."""
    found = {}
    for number in numbers:
        for row in _chunk_table(here, "explain", number, "explanations").to_pylist():
            latent = Latent(row["layer"], row["dictionary"], row["latent"])
            found[latent] = Explained(row["explanation"], row["source"], row["before"], row["error"])
    return found


def _chunk_table(here: Place, stage: Stage, number: int, name: str) -> pa.Table:
    chunk = chunk_name(stage, number)
    repair = repair_of_unit(here, chunk)
    return read_table(here / "chunks" / chunk, f"{name}.parquet", None, repair, None, TABLES[name])


def finish(here: Place, manifest: InterpretManifest) -> InterpretManifest:
    """Put the chunks' tables together; returns the manifest of the complete artefact, not written yet."""
    for stage, names in OF_STAGE.items():
        for name in names:
            parts = [_chunk_table(here, stage, number, name) for number in range(manifest.n_chunks)]
            write_table(here, f"{name}.parquet", pa.concat_tables(parts) if parts else TABLES[name].empty_table())
    names = [chunk_name(stage, number) for stage in STAGES for number in range(manifest.n_chunks)]
    efforts = [read_record(here / "commits" / f"{name}.json", ChunkCommit, MEND_COMMIT).effort for name in names]
    spent = {name: sum(effort[name] for effort in efforts) for name in Effort.__dataclass_fields__}
    return replace(manifest, status="complete", finished=now(), spent=spent)


def open_interpretation(where: str | Place) -> Interpretation:
    """The results in a folder; a workspace that holds just one will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    here = only_artefact(place(where), "interpretations", "interpretations")
    manifest = read_interpret_manifest(here)
    if manifest is None:
        raise StoreError(f"no interpretations at {here}: {MANIFEST} is missing")
    if manifest.status != "complete":
        raise StoreError(f"the interpretations at {here} are not complete: run jobs/interpret.py with the same recipe again")
    return Interpretation(here, manifest)


def read_interpret_manifest(here: Place) -> InterpretManifest | None:
    """The manifest in a folder, None where there is none.

    Raises:
        StoreError: It is damaged, or of a version that this program cannot read.
    """
    return find_record(here / MANIFEST, InterpretManifest, MEND)


def write_interpret_manifest(here: Place, manifest: InterpretManifest) -> None:
    """Write, or replace, the manifest."""
    write_record(here / MANIFEST, manifest)
