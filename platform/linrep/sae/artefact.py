"""SAEs on disk: what was planned, what is done, where each lies; and their evaluations. See `linrep.artefact`.

saes/<name>-<digest>/
  layer-008/<SAE>/cfg.json ...            one folder an SAE, in SAELens' format, with its model card
  layer-008/training.parquet              the reports of its training
  checkpoints/layer-008-000002000.pt      while it is trained: states by step, the last two; a file a worker
  checkpoints/layer-008.json              which those are, written after them
  commits/layer-008.json                  written last: the layer's SAEs are whole
  evaluations/<name>-<digest>/            how good they are: an artefact of its own, named by how much is evaluated and by the
                                          probes whose class directions are rebuilt, so that probes made later are not missed

The evaluation of an SAE from elsewhere lies in the workspace's folder evaluations.
"""

from dataclasses import dataclass, field
from typing import Any

from linrep import artefact
from linrep.artefact import Artefact
from linrep.errors import RecipeError, StoreError
from linrep.kind import Kind
from linrep.places import Place
from linrep.sae.formats import saelens
from linrep.sae.layer import HISTORY, LayerJob, layer_name
from linrep.sae.sae import Sae
from linrep.sae.study import SaeConfig
from linrep.store.mixture import find_sources, passes, proportion
from linrep.store.read import Store
from linrep.vlm.sites import transformer_lens_name
from schemas.saes import EVALUATION, FIRING, QUALITY, REBUILT, TRAINING, TRUTH, VERSION


@dataclass(frozen=True)
class SaeAbout:
    """What the SAEs are of.

    Attributes:
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        layers: Layers.
        names: Names of the SAEs of each layer.
        steps: Steps of each.
        reads: How often each modality is read, by layer, in lines.
    """

    store: str
    layers: list[int]
    names: list[str]
    steps: int
    reads: dict[str, list[str]]


SAES = Kind(
    "sae", "saes", "SAEs", VERSION, SaeAbout, {}, parts={HISTORY: TRAINING}, job="train_sae", units=""
)  # fmt: skip
Saes = Artefact[SaeAbout]


@dataclass(frozen=True)
class EvaluationAbout:
    """What is evaluated.

    Attributes:
        saes: Where the SAEs lie: their path in the workspace, or the address of what lies elsewhere.
        layers: Their layers.
        names: Names of the SAEs of each layer.
    """

    saes: str
    layers: list[int]
    names: list[str]


EVALUATIONS = Kind(
    "evaluate", "evaluations", "evaluations", EVALUATION, EvaluationAbout,
    {"quality": QUALITY, "firing": FIRING, "truth": TRUTH, "rebuilt": REBUILT}, job="train_sae",
)  # fmt: skip
Evaluations = Artefact[EvaluationAbout]


@dataclass(frozen=True)
class SaePlan:
    """SAEs to train.

    Attributes:
        artefact: What is made.
        store: The activations.
        jobs: What to train, layer by layer.
    """

    artefact: Saes
    store: Store
    jobs: tuple[LayerJob, ...] = field(repr=False)


def plan_saes(store: Store, name: str, config: SaeConfig, workspace: Place) -> SaePlan:
    """Work out what to train: layers, rows, scales. Opens the store's footers; starts no cluster.

    Raises:
        RecipeError: A layer is not in the store, the grid names no SAE, or one of too few latents, or no row
            is held out to evaluate it on.
        StoreError: The store is not complete, lacks rows that are asked for, or is damaged.
    """
    if not store.complete or store.manifest.status != "complete":
        raise StoreError(f"the harvest {store.place} is not complete: run jobs/harvest.py with the same recipe first")
    layers = check_layers(store, config)
    config.check_active(store.manifest.width)
    check_held_out(store, layers[0])  # samples are held out, not rows: the other layers have the same
    place = place_of(store, name, config, workspace)
    jobs, reads = [], {}
    for layer in layers:
        data = config.data
        sources = find_sources(store, layer, "train", data.special, data.high_norm)
        where = f"layer {layer} of {store.place}"
        parts = proportion(sources, config.batch, data.text_share, data.normalise == "modality", where)
        jobs.append(LayerJob(place, layer, config, sources, parts, _about(store, layer)))
        reads[layer_name(layer)] = passes(sources, parts, config.steps)
    about = SaeAbout(store.place.within(workspace), list(layers), list(config.designs()), config.steps, reads)
    planned = artefact.plan(
        SAES,
        workspace,
        name,
        decisive=_decisive(config, layers),
        parents={"harvest": store.manifest.digest},
        config=config.model_dump(mode="json"),
        units=[layer_name(layer) for layer in layers],
        about=about,
    )
    return SaePlan(planned, store, tuple(jobs))


def place_of(store: Store, name: str, config: SaeConfig, workspace: Place) -> Place:
    """Where the SAEs of a section lie, trained or not; opens no file of the store.

    Raises:
        RecipeError: A layer is not in the store.
    """
    decisive = _decisive(config, check_layers(store, config))
    return artefact.place_of(SAES, workspace, name, decisive=decisive, parents={"harvest": store.manifest.digest})


def _decisive(config: SaeConfig, layers: tuple[int, ...]) -> dict[str, Any]:
    """What names the SAEs of a section: "all" and the list that means the same layers make the same ones."""
    return {**config.decisive(), "layers": list(layers)}


def check_layers(store: Store, config: SaeConfig) -> tuple[int, ...]:
    """The layers asked for.

    Raises:
        RecipeError: The store lacks one, or has no tokens.
    """
    there = store.manifest.layers
    if "tokens" not in store.manifest.views:
        raise RecipeError(f"{store.place} has no tokens view: SAEs are trained on tokens, add it to harvest.views")
    layers = there if config.layers == "all" else tuple(config.layers)
    for layer in layers:
        if layer not in there:
            raise RecipeError(f"sae.layers: no layer {layer} in {store.place}: it has {', '.join(map(str, there))}")
    if not layers or len(set(layers)) < len(layers):
        raise RecipeError(f"sae.layers must name layers, each once, got {list(layers)}")
    return layers


def check_held_out(store: Store, layer: int) -> None:
    """Make sure that there are rows to evaluate SAEs on, before any is trained.

    Raises:
        RecipeError: There are none.
    """
    if not find_sources(store, layer, "val"):
        raise RecipeError(
            f"layer {layer} of {store.place} holds no rows of the validation split, which SAEs are evaluated on: "
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


def open_saes(folder: Place, name: str) -> dict[str, Sae]:
    """An SAE of a layer by the modality whose raw activations it takes; "" for both.

    Args:
        folder: The layer's folder.
        name: The SAE's.
    """
    if (folder / name / saelens.CONFIG).is_file():
        return {"": saelens.read(folder / name)}
    return {modality: saelens.read(folder / f"{name}-{modality}") for modality in ("image", "text")}
