"""What a sharing job will do, worked out before any cluster starts: which pairs, in which groups, of which classes.

A pair is an image, as the model sees it before the caption begins, and the same caption read alone. So both modalities have
the same number of samples about the same things: counts are balanced and concepts are frequency-matched by construction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64

from linrep.encoder import Latents
from linrep.errors import RecipeError
from linrep.sample import unit_hash
from linrep.sharing.config import SharingConfig
from linrep.sharing.intervals import Measure
from linrep.store.layout import MODALITIES
from linrep.store.read import Store
from linrep.store.samples import class_values, read_samples

TRAINED, UNTRAINED = "trained", "untrained"


@dataclass(frozen=True)
class Pairs:
    """The pairs of a store.

    Attributes:
        of: Pair of each of s samples, by modality; -1 for samples that take no part.
        names: Name of each of p pairs.
        group: Group of each pair: what a jackknife leaves out.
        drawn: Whether the pair is in the reservoir.
        classes: The classes in words.
        label: Class of each pair, -1 for none.
        shuffled: The labels dealt out anew among the labelled pairs: the control.
        swapped: Whether the modality control takes the pair's image for its text, and the other way round.
    """

    of: Mapping[str, Int64[np.ndarray, " s"]]
    names: tuple[str, ...]
    group: Int64[np.ndarray, " p"]
    drawn: Bool[np.ndarray, " p"]
    classes: tuple[str, ...]
    label: Int64[np.ndarray, " p"]
    shuffled: Int64[np.ndarray, " p"]
    swapped: Bool[np.ndarray, " p"]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Unit:
    """The unit of work, retry and commit: one layer of one model, or one SAE on it.

    Attributes:
        model: trained or untrained.
        layer: Layer k.
        sae: Number of the SAE whose latents are compared, None for geometry and concepts.
        control: Whether it is the SAE's control, of random directions.
    """

    model: str
    layer: int
    sae: int | None = None
    control: bool = False

    @property
    def name(self) -> str:
        """Its name among the artefact's files."""
        latents = "" if self.sae is None else f"-sae-{self.sae:02d}{'-random' if self.control else ''}"
        return f"{self.model}-layer-{self.layer:03d}{latents}"


@dataclass(frozen=True)
class Study:
    """Everything that a unit needs to know.

    Attributes:
        stores: The harvest by model: trained, and untrained where the recipe names one.
        config: What to compare.
        pairs: The pairs of each store.
        latents: The SAEs with their controls, in the order of the config.
        steered: What a steering job of the trained model found about directions from texts, by layer.
    """

    stores: Mapping[str, Store]
    config: SharingConfig
    pairs: Mapping[str, Pairs]
    latents: tuple[tuple[Latents, Latents], ...] = ()
    steered: Mapping[int, tuple[Measure, ...]] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers to compare."""
        return self.stores[TRAINED].manifest.layers if self.config.layers == "all" else self.config.layers

    @property
    def units(self) -> list[Unit]:
        """All units."""
        plain = [Unit(model, layer) for model in self.stores for layer in self.layers]
        own = [Unit(sae.model, sae.layer, i, control) for i, sae in enumerate(self.config.saes) for control in (False, True)]
        return plain + own


def plan_study(
    store: Store, config: SharingConfig, untrained: Store | None = None, latents: tuple[tuple[Latents, Latents], ...] = ()
) -> Study:
    """Work out a study.

    Args:
        store: The activations, complete.
        config: What to compare.
        untrained: Those of the untrained model, as a control.
        latents: The SAEs that the config names, each with its control of random directions.

    Raises:
        RecipeError: A store has no pairs, one modality only, or lacks what is asked of it.
    """
    stores = {TRAINED: store, **({UNTRAINED: untrained} if untrained is not None else {})}
    wanted = () if config.layers == "all" else config.layers
    for model, own in stores.items():
        at = tuple(d.layer for d in config.saes if d.model == model)
        _check(own, model, (*wanted, *at), bool(at))
    if untrained is not None and untrained.manifest.layers != store.manifest.layers and config.layers == "all":
        raise RecipeError(f"sharing.untrained: {untrained.place} has other layers than {store.place}: name sharing.layers")
    for sae, (own, _) in zip(config.saes, latents, strict=True):
        width = stores[sae.model].manifest.width
        if own.coder.d_model != width:
            raise RecipeError(f"sharing.saes: {sae.path} is for width {own.coder.d_model}, the store has {width}")
    known = [(d.model, d.layer, own.name) for d, (own, _) in zip(config.saes, latents, strict=True)]
    for model, layer, name in known:
        if known.count((model, layer, name)) > 1:
            raise RecipeError(f"sharing.saes: two of layer {layer} of the {model} model are called {name}: rename one")
    return Study(stores, config, {model: find_pairs(own, config) for model, own in stores.items()}, latents)


def _check(store: Store, model: str, layers: tuple[int, ...], tokens: bool) -> None:
    what = "sharing" if model == TRAINED else "sharing.untrained"
    if not store.complete or store.manifest.status != "complete":
        raise RecipeError(f"{what}: the harvest {store.place} is not complete: run jobs/harvest.py with its recipe again")
    views = ("pooled", "tokens") if tokens else ("pooled",)
    for view in views:
        if view not in store.manifest.views:
            there = ", ".join(store.manifest.views)
            raise RecipeError(f"{what}: no view {view!r} in {store.place}, it has {there}: harvest it with harvest.views")
    for layer in layers:
        if layer not in store.manifest.layers:
            raise RecipeError(f"{what}: no layer {layer} in {store.place}: it has {', '.join(map(str, store.manifest.layers))}")
    for modality in MODALITIES:
        if not any(file.rows for file in store.select("pooled", store.manifest.layers[0], modality).files):
            raise RecipeError(f"{what}: {store.place} has no rows of modality {modality}: sharing compares image and text")


def find_pairs(store: Store, config: SharingConfig) -> Pairs:
    """The pairs of a store, grouped, drawn and labelled by hashes of their names: the same on every machine.

    Raises:
        RecipeError: There are too few pairs.
    """
    table = store.samples()
    samples = read_samples(table)
    values = class_values(table, samples)
    found: dict[str, dict[str, int]] = {}
    for i, (pair, modality, error) in enumerate(
        zip(table["pair_id"].to_pylist(), table["modality"].to_pylist(), table["error"].to_pylist(), strict=True)
    ):
        if pair is not None and error is None and modality in ("pair", "text"):
            # Of several captions of one image the first counts: pairs must not share an image.
            found.setdefault(pair, {}).setdefault("image" if modality == "pair" else "text", i)
    whole = {pair: own for pair, own in found.items() if len(own) == len(MODALITIES)}
    if len(whole) < 2 * config.groups:
        raise RecipeError(
            f"sharing: {store.place} has {len(whole)} image-caption pairs, at least {2 * config.groups} are needed: "
            "give corpora.pairs in the recipe and harvest, or lower sharing.groups"
        )
    # In the order of their hashes: groups are dealt in turn, so they differ by one pair at most.
    names = tuple(sorted(whole, key=lambda pair: unit_hash(pair, f"{config.seed}/sharing")))
    of = {m: np.full(len(samples.ids), -1, np.int64) for m in MODALITIES}
    for i, name in enumerate(names):
        for m in MODALITIES:
            of[m][whole[name][m]] = i
    own = [values[whole[name]["image"]] or values[whole[name]["text"]] for name in names]
    counts = {value: own.count(value) for value in {v for v in own if v is not None}}
    classes = tuple(sorted(value for value, n in counts.items() if n >= config.min_per_class))
    classes = classes if len(classes) > 1 else ()
    number = {value: i for i, value in enumerate(classes)}
    label = np.array([number.get(v or "", -1) for v in own], np.int64)
    shuffled = label.copy()
    members = np.flatnonzero(label >= 0)
    dealt = sorted(members, key=lambda i: unit_hash(names[i], f"{config.seed}/labels"))
    shuffled[members] = label[np.array(dealt, np.int64)]
    index = np.arange(len(names))
    swapped = np.array([unit_hash(name, f"{config.seed}/modality") < 0.5 for name in names], bool)
    return Pairs(of, names, index % config.groups, index < config.reservoir, classes, label, shuffled, swapped)
