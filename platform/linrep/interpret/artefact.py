"""The interpretations on disk: an artefact with two units for each chunk of latents, see `linrep.artefact`.

interpretations/<name>-<digest>/
  units/explain-000003/     explanations of the latents of chunk 3
  units/score-000003/       their scores, and the answers
  explanations.csv          explanations beside their scores, for people to edit
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from linrep import artefact
from linrep.artefact import Artefact
from linrep.interpret.backends import Effort
from linrep.interpret.config import InterpretConfig
from linrep.interpret.study import Explained
from linrep.interpret.views import Latent
from linrep.kind import Kind, UnitCommit
from linrep.places import Place
from linrep.store.tables import table_of
from schemas.interpret import ANSWERS, EXPLANATIONS, SCORES, VERSION

Step = Literal["explain", "score"]
TABLES_OF: dict[Step, tuple[str, ...]] = {"explain": ("explanations",), "score": ("scores", "answers")}
"""The steps of the work, in their order, and the tables that a unit of each has."""
SHEET = "explanations.csv"
LIMITS = {"url", "parallel", "timeout", "tries", "price", "budget", "key_variable", "proxy_variable", "image_tokens", "device"}
"""Fields of backends that decide where and how patiently, and no answer."""


@dataclass(frozen=True)
class InterpretAbout:
    """What the interpretations are of.

    Attributes:
        features: Where the features lie.
        latents: Latents of each SAE that were drawn, by layer/SAE.
        alive: How many there were to draw from: those that fire at all.
        width: Latents of each SAE in all.
        spent: What it took, in all runs together, but for questions that never got an answer as asked; once complete.
    """

    features: str
    latents: dict[str, list[int]]
    alive: dict[str, int]
    width: dict[str, int]
    spent: dict[str, float] = field(default_factory=dict)


INTERPRETATIONS_KIND = Kind(
    "interpret", "interpretations", "interpretations", VERSION, InterpretAbout,
    {"scores": SCORES, "explanations": EXPLANATIONS, "answers": ANSWERS},
)  # fmt: skip
Interpretations = Artefact[InterpretAbout]


def plan_interpretations(
    workspace: Place,
    name: str,
    config: InterpretConfig,
    parents: Mapping[str, str],
    about: InterpretAbout,
    saes: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
) -> Interpretations:
    """Name the artefact of an interpretation and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        config: Its section.
        parents: Digests of the harvest, the features, the edited explanations and the scenes.
        about: What is interpreted.
        saes: What the SAEs say that they are of.
        notes: What a reader must know.
    """
    chunks = range(-(-sum(map(len, about.latents.values())) // config.chunk_size))
    return artefact.plan(
        INTERPRETATIONS_KIND,
        workspace,
        name,
        decisive=decisive(config),
        parents=parents,
        config=config.model_dump(mode="json"),
        units=[unit_name(step, number) for step in TABLES_OF for number in chunks],
        about=about,
        saes=saes,
        notes=notes,
    )


def decisive(config: InterpretConfig) -> dict[str, Any]:
    """What of a section decides a number: not how patiently answers are asked for, nor where files lie."""
    values = config.model_dump(mode="json", exclude={"features", "scenes", "edited"})
    values["backend"] = {name: value for name, value in values["backend"].items() if name not in LIMITS}
    return values


def unit_name(step: Step, number: int) -> str:
    """Name of a chunk's unit."""
    return f"{step}-{number:06d}"


def units_of(here: Interpretations, step: Step) -> list[str]:
    """The units of a step, chunk by chunk."""
    return [unit for unit in here.manifest.units if unit.startswith(f"{step}-")]


def write_unit(
    here: Interpretations, unit: str, rows: Mapping[str, list[dict[str, object]]], seconds: float, latents: int, effort: Effort
) -> UnitCommit:
    """Write what a unit gave, and commit it."""
    tables = {name: table_of(some, INTERPRETATIONS_KIND.tables[name]) for name, some in rows.items()}
    return here.write(unit, tables, seconds, latents, asdict(effort))


def read_explained(here: Interpretations) -> dict[Latent, Explained]:
    """The explanations of all latents."""
    rows = (row for unit in units_of(here, "explain") for row in here.part(unit, "explanations").to_pylist())
    return {
        Latent(row["layer"], row["sae"], row["latent"]): Explained(row["explanation"], row["source"], row["before"], row["error"])
        for row in rows
    }


def finish(here: Interpretations) -> dict[str, float]:
    """Put the units' tables together; returns what all of it took."""
    here.finish({name: units_of(here, step) for step, names in TABLES_OF.items() for name in names})
    costs = [commit.cost for commit in here.commits()]
    return {name: sum(cost[name] for cost in costs) for name in Effort.__dataclass_fields__}
