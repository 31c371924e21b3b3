"""Trained dictionaries on disk: what was planned, what is done, where each lies.

saes/<name>-<digest>/
  manifest.json                                  what was trained on what; status complete once evaluated
  layer-008/<dictionary>/cfg.json ...            one folder a dictionary, in SAELens' format, with its model card
  layer-008/training.parquet                     the reports of its training
  checkpoints/layer-008-000002000.pt             while it is trained: states by step, the last two
  checkpoints/layer-008.json                     which those are, written after them
  commits/layer-008.json                         written last: the layer's dictionaries are whole
  evaluations/<digest>/...                       see `linrep.cluster.run_train_sae`
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from linrep.config import digest
from linrep.errors import RecipeError, StoreError
from linrep.places import Place
from linrep.records import find_record
from linrep.sae.coder import Sae
from linrep.sae.formats import saelens
from linrep.sae.layer import LayerJob, layer_name, read_commit
from linrep.sae.study import SaeConfig
from linrep.store.layout import MANIFEST
from linrep.store.manifest import now
from linrep.store.mixture import find_sources, passes, proportion
from linrep.store.read import Store
from linrep.vlm.sites import transformer_lens_name
from schemas.saes import VERSION

MEND = "delete it and run jobs/train_sae.py with the same recipe again: what is committed is kept"
"""What to do about a damaged manifest."""


@dataclass(frozen=True)
class SaeManifest:
    """What the dictionaries are of.

    Attributes:
        name: Name of the recipe.
        digest: Names everything that decides a weight: harvest, config, version.
        parents: Digests of what they were made from, by stage.
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        config: The recipe's section.
        layers: Layers.
        coders: Names of the dictionaries of each layer.
        steps: Steps of each.
        reads: How often each modality is read, by layer, in lines.
        saes: SAEs that were given: what each says that it is of, and what was insisted on against it.
        status: running until every layer is committed.
        created: When the job began, UTC.
        finished: When it was complete.
        schema_version: Version of the tables.
    """

    name: str
    digest: str
    parents: dict[str, str]
    store: str
    config: dict[str, Any]
    layers: tuple[int, ...]
    coders: tuple[str, ...]
    steps: int
    reads: dict[str, list[str]]
    saes: list[dict[str, Any]] = field(default_factory=list)
    status: Literal["running", "complete"] = "running"
    created: str = ""
    finished: str = ""
    schema_version: int = VERSION


@dataclass(frozen=True)
class SaePlan:
    """A job before it runs.

    Attributes:
        place: The artefact.
        store: The activations.
        jobs: What to train, layer by layer.
        manifest: To begin with.
    """

    place: Place
    store: Store
    manifest: SaeManifest
    jobs: tuple[LayerJob, ...] = field(repr=False)

    def missing(self) -> list[LayerJob]:
        """Layers that are not committed yet."""
        return [job for job in self.jobs if read_commit(self.place, job.layer) is None]


def plan_saes(store: Store, name: str, config: SaeConfig, workspace: Place) -> SaePlan:
    """Work out what to train: layers, rows, scales. Opens the store's footers; starts no cluster.

    Raises:
        RecipeError: A layer is not in the store, the grid names no dictionary, or one of too few latents, or no row
            is held out to examine it on.
        StoreError: The store is not complete, lacks rows that are asked for, or is damaged.
    """
    if not store.complete or store.manifest.status != "complete":
        raise StoreError(f"the harvest {store.place} is not complete: run jobs/harvest.py with the same recipe first")
    layers = check_layers(store, config)
    config.check_active(store.manifest.width)
    check_held_out(store, layers[0])  # samples are held out, not rows: the other layers have the same
    key = key_of(store, config, layers)
    place = place_of(store, name, config, workspace)
    jobs, reads = [], {}
    for layer in layers:
        data, each = config.data, config.batch // config.workers
        sources = find_sources(store, layer, "train", data.special, data.high_norm)
        where = f"layer {layer} of {store.place}"
        parts = proportion(sources, each, data.text_share, data.normalise == "modality", where)
        jobs.append(LayerJob(place, layer, config, sources, parts, _about(store, layer)))
        reads[layer_name(layer)] = passes(sources, parts, config.steps * config.workers)
    manifest = SaeManifest(
        name=name,
        digest=key,
        parents={"harvest": store.manifest.digest},
        store=store.place.within(workspace),
        config=config.model_dump(mode="json"),
        layers=layers,
        coders=tuple(config.coders()),
        steps=config.steps,
        reads=reads,
        created=now(),
    )
    return SaePlan(place, store, manifest, tuple(jobs))


def key_of(store: Store, config: SaeConfig, layers: tuple[int, ...]) -> str:
    """What names the SAEs of a section: "all" and the list that means the same layers make the same ones."""
    return digest(VERSION, store.manifest.digest, {**config.decisive(), "layers": list(layers)})


def place_of(store: Store, name: str, config: SaeConfig, workspace: Place) -> Place:
    """Where the SAEs of a section lie, trained or not; opens no file of the store.

    Raises:
        RecipeError: A layer is not in the store.
    """
    return workspace / "saes" / f"{name}-{key_of(store, config, check_layers(store, config))}"


def check_layers(store: Store, config: SaeConfig) -> tuple[int, ...]:
    """The layers asked for.

    Raises:
        RecipeError: The store lacks one, or has no tokens.
    """
    there = store.manifest.layers
    if "tokens" not in store.manifest.views:
        raise RecipeError(f"{store.place} has no tokens view: dictionaries are trained on tokens, add it to harvest.views")
    layers = there if config.layers == "all" else tuple(config.layers)
    for layer in layers:
        if layer not in there:
            raise RecipeError(f"sae.layers: no layer {layer} in {store.place}: it has {', '.join(map(str, there))}")
    if not layers or len(set(layers)) < len(layers):
        raise RecipeError(f"sae.layers must name layers, each once, got {list(layers)}")
    return layers


def check_held_out(store: Store, layer: int) -> None:
    """Make sure that there are rows to examine dictionaries on, before any is trained.

    Raises:
        RecipeError: There are none.
    """
    if not find_sources(store, layer, "val"):
        raise RecipeError(
            f"layer {layer} of {store.place} holds no rows of the validation split, which dictionaries are examined on: "
            "raise corpora.splits.val and harvest again"
        )


def _about(store: Store, layer: int) -> dict[str, Any]:
    model = store.manifest.model
    return {
        "model_name": model.get("path"),
        "model_digest": model.get("digest"),
        "hook_name": transformer_lens_name(layer),
        "layer": layer,
        "harvest": store.manifest.digest,
    }


def read_manifest(place: Place) -> SaeManifest | None:
    """The manifest in a folder, None where there is none.

    Raises:
        StoreError: It is damaged, or of a version that this program cannot read.
    """
    return find_record(place / MANIFEST, SaeManifest, MEND)


def open_coders(folder: Place, name: str) -> dict[str, Sae]:
    """A dictionary of a layer by the modality whose raw activations it takes; "" for both.

    Args:
        folder: The layer's folder.
        name: The dictionary's.
    """
    if (folder / name / saelens.CONFIG).is_file():
        return {"": saelens.read(folder / name)}
    return {modality: saelens.read(folder / f"{name}-{modality}") for modality in ("image", "text")}
