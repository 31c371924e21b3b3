"""A workspace to steer in: a complete harvest, made without Ray, and directions drawn at random."""

from pathlib import Path

import pyarrow as pa
import torch

from linrep.corpora import Corpora
from linrep.directions import Directions, DirectionSet, write_directions
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig
from linrep.harvest.finish import complete_manifest
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from linrep.store.commit import read_commits
from linrep.store.manifest import write_manifest
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from tests.conftest import write_corpora

HARVEST = HarvestConfig(layers=(0, 2), views=("pooled", "last"), chunk_size=16)
NAMES = ("church", "tench")


def directions(width: int = 32, layers: tuple[int, ...] = (0, 2), names: tuple[str, ...] = NAMES) -> DirectionSet:
    draw = torch.Generator().manual_seed(0)
    return DirectionSet(
        tuple(
            Directions("class_mean", layer, view, "image", "class", names, torch.randn(len(names), width, generator=draw), 5.0)
            for layer in layers
            for view in ("pooled", "last")
        )
    )


def half_held_out(folder: Path) -> Corpora:
    """Small corpora with half of everything held out, so that there is something to steer."""
    corpora = write_corpora(folder, n_images=24, n_texts=5, n_pairs=9)
    return corpora.model_copy(update={"splits": corpora.splits.model_copy(update={"val": 0.1, "test": 0.5})})


def write_workspace(folder: Path, name: str, corpora: Corpora, model: ModelConfig, config: HarvestConfig = HARVEST) -> Path:
    """A complete harvest, and a file of directions beside it."""
    plan = plan_harvest(name, corpora, model, config, place(folder))
    harvester = Harvester(load(model, max(plan.job.layers)), config, plan.job.layers, 2000)
    write_manifest(plan.place, plan.manifest)
    for chunk in plan.chunks:
        harvest_chunk(
            harvester,
            prepare_chunk(chunk, plan.job.corpora, Preparer.from_path(model, **config.preparation)),
            plan.place,
            chunk.number,
        )
    write_manifest(plan.place, complete_manifest(plan.place, read_commits(plan.place)))
    write_directions(folder / "directions.safetensors", directions(), {"harvest": plan.manifest.digest})
    return folder


def value_of(table: pa.Table, measure: str, **which: object) -> list[dict[str, object]]:
    """Rows of the effects with this measure, and these values in the columns named."""
    wanted = {"measure": measure, **which}
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]
