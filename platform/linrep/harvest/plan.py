"""What a harvest will do, worked out before any cluster starts: corpora indexed, model checked, store named, chunks cut."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.fs as pafs

from linrep.config import digest
from linrep.corpora import Chunk, Corpora, Index, build_index
from linrep.demo import model_folder
from linrep.demo.world import DemoWorld, write_world
from linrep.errors import RecipeError
from linrep.harvest.config import HarvestConfig
from linrep.places import Place
from linrep.store.limits import Limits
from linrep.store.manifest import Manifest, now
from linrep.vlm.card import ModelCard, check_layers, describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.tokens import layout
from schemas.activations import VERSION

DEMO = "demo://"
"""Paths that begin so lie in the embedded world: demo://images, demo://captions.jsonl, demo://text.jsonl, demo://model."""

WORLD = "world.json"
"""Written last: where it lies, the embedded world is whole."""


@dataclass(frozen=True)
class Job:
    """What a worker must know of a harvest; small, and sent to each.

    Attributes:
        place: The store.
        corpora: The corpora, where they really lie.
        model: The model as the recipe names it.
        config: What to keep.
        layers: Layers to record.
        model_digest: A worker refuses to run a model with another one.
        chunk_bytes: Most bytes of tiles in the prepared samples of a chunk.
        limits: Norms above which tokens are kept apart, those of the store's manifest; None before they are known.
    """

    place: Place
    corpora: Corpora
    model: ModelConfig
    config: HarvestConfig
    layers: tuple[int, ...]
    model_digest: str
    chunk_bytes: int
    limits: Limits | None = None


@dataclass(frozen=True)
class Plan:
    """A harvest before it runs.

    Attributes:
        job: What workers need.
        manifest: The manifest to start with.
        chunks: All chunks, done or not.
        index: The corpora's index.
        index_place: Where that is kept.
    """

    job: Job
    manifest: Manifest
    chunks: Sequence[Chunk]
    index: Index
    index_place: Place

    @property
    def place(self) -> Place:
        """The store."""
        return self.job.place


def plan_harvest(
    name: str,
    corpora: Corpora,
    model: ModelConfig,
    config: HarvestConfig,
    workspace: Place,
    demo: DemoWorld | None = None,
    reindex: bool = False,
) -> Plan:
    """Work out a harvest.

    Args:
        name: Name of the recipe.
        corpora: What to run through the model.
        model: The model.
        config: What to keep.
        workspace: Where everything lies.
        demo: The embedded world to write there, where a path begins with demo://.
        reindex: Look at the corpora again, though their index is there.

    Raises:
        ModelError: The model cannot be used, or lacks a layer.
        CorpusError: A corpus is missing or empty.
    """
    card = describe(located(model))
    layers = tuple(range(card.n_layers + 1)) if config.layers == "all" else config.layers
    check_layers(card, layers)
    corpora = locate(corpora, workspace, demo)
    kept = workspace / "corpora" / f"{name}-{digest(corpora)}"
    index = stored_index(corpora, kept, reindex)
    chunks = index.chunks(config.chunk_size)
    # "all" and the list that means the same layers make the same store.
    key = digest(VERSION, card.digest, index.digest, {**config.model_dump(mode="json"), "layers": list(layers)})
    manifest = Manifest(
        name=name,
        digest=key,
        model={**asdict(card), "path": model.path},
        layers=layers,
        views=config.views,
        dtype=config.dtype,
        width=card.width,
        corpora={"digest": index.digest, **{corpus: counts._asdict() for corpus, counts in index.summary().items()}},
        harvest=config.model_dump(mode="json"),
        n_chunks=len(chunks),
        chunk_size=config.chunk_size,
        created=now(),
    )
    place = workspace / "harvests" / f"{name}-{key}"
    job = Job(place, corpora, model, config, layers, card.digest, most_bytes(chunks, card, config))
    return Plan(job, manifest, chunks, index, kept)


def most_bytes(chunks: Sequence[Chunk], card: ModelCard, config: HarvestConfig) -> int:
    """Most bytes of tiles that the prepared samples of a chunk can hold; texts weigh nothing beside them."""
    canvases = card.grid_pinpoints if config.image_size is None else (layout(config.image_size, card).canvas,)
    tiles = 1 + max((height // card.tile_size) * (width // card.tile_size) for height, width in canvases)
    photographs = max((chunk.n_records for chunk in chunks if chunk.corpus != "text"), default=0)
    return photographs * tiles * 3 * card.tile_size**2


def located(model: ModelConfig) -> ModelConfig:
    """The model's configuration with a path that can be opened on this machine."""
    if model.path != f"{DEMO}model":
        return model
    return model.model_copy(update={"path": str(model_folder())})


def locate(corpora: Corpora, workspace: Place, demo: DemoWorld | None) -> Corpora:
    """The corpora with paths that can be opened; the embedded world is written to the workspace if it is not there yet."""
    sections = {name: getattr(corpora, name) for name in ("images", "text", "pairs")}
    inside = {name: s for name, s in sections.items() if s is not None and s.path.startswith(DEMO)}
    if not inside:
        return corpora
    if demo is None:
        raise RecipeError(f"corpora.{next(iter(inside))}.path begins with {DEMO}, but the recipe has no section demo")
    world = write_demo(workspace, demo)
    moved = {name: s.model_copy(update={"path": (world / s.path.removeprefix(DEMO)).uri}) for name, s in inside.items()}
    return corpora.model_copy(update=moved)


def write_demo(workspace: Place, demo: DemoWorld) -> Place:
    """Where the embedded world lies in the workspace; written there the first time."""
    folder = workspace / "worlds" / f"demo-{digest(demo)}"
    if folder.local:
        write_world(Path(folder.path), demo)
        return folder
    if not (folder / WORLD).is_file():
        with tempfile.TemporaryDirectory() as temporary:
            world = write_world(Path(temporary) / "world", demo)
            mark = (world / WORLD).read_bytes()
            (world / WORLD).unlink()
            pafs.copy_files(str(world), folder.path, pafs.LocalFileSystem(), folder.files)
            (folder / WORLD).write_bytes(mark)
    return folder


def stored_index(corpora: Corpora, folder: Place, anew: bool = False) -> Index:
    """The index of the corpora: built the first time, then read from its folder.

    What a corpus holds may change behind its index. Looking at a million files costs minutes, so that is done when the user says
    so (`anew`), and a changed corpus is another harvest. Nobody sees a photograph that changed and kept its name and size.
    """
    if (folder / "index.json").is_file() and not anew:
        return Index.read(folder)
    index = build_index(corpora)
    index.write(folder)
    return index
