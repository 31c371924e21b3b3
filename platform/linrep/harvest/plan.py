"""What a harvest will do, worked out before any cluster starts: corpora indexed, model checked, store named, chunks cut."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from linrep.config import digest
from linrep.contents.sources import (
    DEMO,
    SOURCES,
    WORLD,
    inside_world,
    keep_world,
    located,
    moved,
    world_place,
    write_demo,
    write_sources,
)
from linrep.corpora import Corpora
from linrep.corpora.config import field_of
from linrep.corpora.index import Chunk, Index, build_index
from linrep.demo.config import DemoWorld
from linrep.demo.world import write_world
from linrep.errors import ModelError, RecipeError
from linrep.harvest.config import HarvestConfig
from linrep.places import Place, place
from linrep.store.layout import MANIFEST, TOWER
from linrep.store.limits import Limits
from linrep.store.manifest import TOWER_WIDTH, Manifest, now
from linrep.vlm.card import ModelCard, check_layers, describe, read_config
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import family_of
from linrep.vlm.fetched import shown
from linrep.vlm.files import locate
from linrep.vlm.processor import load_processor
from schemas.activations import VERSION


@dataclass(frozen=True)
class Job:
    """What a worker must know of a harvest; small, and sent to each.

    Attributes:
        place: The store.
        corpora: The corpora, where they really lie.
        model: The model as the recipe names it.
        config: What to keep.
        layers: Layers to record; `NO_LAYER` among them stands for the vision tower.
        model_digest: A worker refuses to run a model with another one.
        chunk_bytes: Most bytes of tiles in the prepared samples of a chunk.
        record_bytes: Likewise of a record.
        limits: Norms above which tokens of each source are kept apart, from the store's manifest; None before they are known.
    """

    place: Place
    corpora: Corpora
    model: ModelConfig
    config: HarvestConfig
    layers: tuple[int, ...]
    model_digest: str
    chunk_bytes: int
    record_bytes: int
    limits: Mapping[str, Limits] | None = None

    def limits_of(self, source: str) -> Limits | None:
        """Norms above which tokens of a source are kept apart; None where none are looked for."""
        return None if self.limits is None else self.limits.get(source, {})


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
    begun: bool = False,
    indexed: bool = False,
    ready: Callable[[Plan], None] = lambda _: None,
) -> Plan:
    """Work out a harvest. The workspace gets its index, and the embedded world, once all is known to be possible.

    Args:
        name: Name of the recipe.
        corpora: What to run through the model.
        model: The model.
        config: What to keep.
        workspace: Where everything lies.
        demo: The embedded world to write there, where a path begins with demo://.
        reindex: Look at the corpora again, though their index is there.
        begun: Only look for a harvest that was begun before, as the jobs do that read one.
        indexed: Only look for one whose corpora were indexed before; it may be another that was harvested.
        ready: Called with the plan before anything is made; what it raises leaves no trace.

    Raises:
        RecipeError: It was not begun before.
        ModelError: The model cannot be used, or lacks a layer.
        CorpusError: A corpus is missing or empty.
    """
    card = describe(located(model))
    config, chat_template = settle(config, model, card)
    layers = tuple(range(card.n_layers + 1)) if config.layers == "all" else config.layers
    check_layers(card, layers)
    if corpora.documents is not None and not family_of(card.family).interleaved:
        raise RecipeError(f"corpora.documents: {family_of(card.family).title} takes one image before all text, and no document")
    if TOWER in config.sites and corpora.images is corpora.pairs is corpora.documents is None:
        raise RecipeError("harvest.sites: tower: there are texts alone, which no vision tower sees")
    if {"attention", "mlp"} & set(config.sites) and layers[0] == card.n_layers:
        raise RecipeError(
            f"harvest.sites: no block begins at layer {layers[0]}, the only one in harvest.layers; name an earlier one"
        )
    none = RecipeError(f"there is no harvest of this recipe in {workspace}: run jobs/harvest.py with the same recipe first")
    # By what the recipe says, not where the embedded world lies: a workspace that is moved keeps its index.
    kept = workspace / "corpora" / f"{name}-{digest(corpora, demo if inside_world(corpora) else None)}"
    if (begun or indexed) and not (kept / "index.json").is_file():
        raise none
    with _world(corpora, workspace, demo) as world:
        is_new = reindex or not (kept / "index.json").is_file()
        index = build_index(moved(corpora, world)) if is_new else Index.read(kept)
        plan = _plan(name, corpora, model, config, workspace, demo, card, layers, index, kept, chat_template)
        if begun and not (plan.place / MANIFEST).is_file():
            raise none
        ready(plan)
        if world is not None and demo is not None:
            keep_world(world, workspace, demo)
        if is_new:
            index.write(kept)
        if not (kept / SOURCES).is_file():
            write_sources(kept, corpora, demo)
    return plan


def settle(config: HarvestConfig, model: ModelConfig, card: ModelCard) -> tuple[HarvestConfig, str]:
    """What a recipe leaves to the model, named: the number format, and the prompts of its chat; with the template's digest.

    Raises:
        RecipeError: The recipe gives a chat and another prompt.
        ModelError: The model has no template for the chat.
    """
    config = config.stored_as(family_of(card.family).storage)
    if config.chat is None:
        return config, ""
    processor = load_processor(locate(located(model))[0])
    try:
        return config.scripted(processor.scripts(config.chat, card)), digest(processor.template)
    except ValueError as reason:
        raise RecipeError(str(reason)) from None


def tower_width(model: ModelConfig, card: ModelCard) -> int:
    """Width of the vision tower's patches of a model.

    Raises:
        ModelError: Its family does not say it.
    """
    try:
        return int(family_of(card.family).tower_width(read_config(locate(located(model))[0])))
    except AttributeError as error:
        title = family_of(card.family).title
        raise ModelError(
            f"harvest.sites: the tower of {title} cannot be recorded: its configuration says no width ({error})"
        ) from None


def _plan(
    name: str, corpora: Corpora, model: ModelConfig, config: HarvestConfig, workspace: Place, demo: DemoWorld | None,
    card: ModelCard, layers: tuple[int, ...], index: Index, kept: Place, chat_template: str,
) -> Plan:  # fmt: skip
    there = world_place(workspace, demo) if demo is not None and inside_world(corpora) else None
    corpora = index.pinned(moved(corpora, there))
    chunks = index.chunks(config.chunk_size)
    # "all" and the list that means the same layers make the same store.
    key = digest(VERSION, card.digest, index.digest, {**config.model_dump(mode="json"), "layers": list(layers)})
    own_width = {TOWER_WIDTH: tower_width(model, card)} if TOWER in config.sites else {}
    manifest = Manifest(
        name=name,
        digest=key,
        model={**asdict(card), "path": shown(model.path), **own_width},
        layers=layers,
        views=config.views,
        dtype=config.stored,
        width=card.width,
        corpora={"digest": index.digest, **{corpus: counts._asdict() for corpus, counts in index.summary().items()}},
        harvest=config.model_dump(mode="json"),
        n_chunks=len(chunks),
        chunk_size=config.chunk_size,
        chat_template=chat_template,
        created=now(),
    )
    store = workspace / "harvests" / f"{name}-{key}"
    job = Job(store, corpora, model, config, layers, card.digest, *most_bytes(chunks, corpora, card, config))
    return Plan(job, manifest, chunks, index, kept)


def most_bytes(chunks: Sequence[Chunk], corpora: Corpora, card: ModelCard, config: HarvestConfig) -> tuple[int, int]:
    """Most bytes of tiles that the prepared samples of a chunk, and of a record, can hold; texts weigh nothing beside them."""
    each = {key: getattr(source, "max_images", 1) for key, source in corpora.sources.items()}
    shown = [(chunk.n_records, each[chunk.source]) for chunk in chunks if chunk.corpus != "text"]
    image = family_of(card.family).most_bytes(card.vision, config.image_size)
    return image * max((n * own for n, own in shown), default=0), image * max((own for _, own in shown), default=0)


@contextlib.contextmanager
def _world(corpora: Corpora, workspace: Place, demo: DemoWorld | None) -> Iterator[Place | None]:
    """Where the embedded world can be read, for the length of the block: in the workspace, or apart from it where it is new."""
    inside = inside_world(corpora)
    if not inside:
        yield None
        return
    if demo is None:
        raise RecipeError(f"{field_of(next(iter(inside)))}.path begins with {DEMO}, but the recipe has no section demo")
    there = world_place(workspace, demo)
    if (there / WORLD).is_file():
        yield write_demo(workspace, demo)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield place(write_world(Path(temporary) / "world", demo))
