"""What a sharing job will do, worked out before any cluster starts: which pairs, in which groups, of which classes.

A pair is an image, as the model sees it before the caption begins, and the same caption read alone. So both modalities have
the same number of samples about the same things: counts are balanced and concepts are frequency-matched by construction.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64

from linrep.encoder import Latents
from linrep.errors import RecipeError
from linrep.regions.artefact import Regions
from linrep.regions.matching import ends
from linrep.sample import unit_hash
from linrep.sharing.config import POOLINGS, Pooling, SharingConfig
from linrep.sharing.intervals import Measure
from linrep.store.layout import MODALITIES
from linrep.store.read import Store
from linrep.store.samples import class_values, read_samples
from linrep.vlm.config import ModelConfig
from linrep.vlm.prompts import one_prompt

TRAINED, UNTRAINED = "trained", "untrained"
Words = Mapping[str, tuple[tuple[tuple[int, ...], ...], ...]]
"""By attribute, class among them, for each value the ways in which its name is cut into tokens."""


@dataclass(frozen=True)
class PairAttribute:
    """An attribute of the pairs beside their class.

    Attributes:
        name: As the attributes' table calls it.
        values: Its values in words, two or more.
        label: Value of each pair, -1 for none.
    """

    name: str
    values: tuple[str, ...]
    label: Int64[np.ndarray, " p"]


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
        attributes: What else is known of the pairs.
        alone: Pair of each sample that is the pair's image harvested alone, -1 for the others; empty where there are none.
    """

    of: Mapping[str, Int64[np.ndarray, " s"]]
    names: tuple[str, ...]
    group: Int64[np.ndarray, " p"]
    drawn: Bool[np.ndarray, " p"]
    classes: tuple[str, ...]
    label: Int64[np.ndarray, " p"]
    shuffled: Int64[np.ndarray, " p"]
    swapped: Bool[np.ndarray, " p"]
    attributes: tuple[PairAttribute, ...] = ()
    alone: Int64[np.ndarray, " s"] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ObjectTokens:
    """Where the objects of pairs are, in images and in captions.

    Attributes:
        regions: Which patches show what, by category; classes are looked up among the categories.
        words: For each class, in the order of `Pairs.classes`, the ways in which its name is cut into tokens.
    """

    regions: Regions
    words: tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class LensWords:
    """What the lenses need to know of a model.

    Attributes:
        words: How names are cut into its tokens.
        model: Whose output matrix the logit lens reads; None leaves it out.
    """

    words: Words
    model: ModelConfig | None = None


@dataclass(frozen=True)
class Unit:
    """The unit of work, retry and commit: one layer of one model, or one SAE on it.

    Attributes:
        model: trained or untrained.
        layer: Layer k.
        sae: Number of the SAE whose latents are compared, None for geometry and concepts.
        control: Whether it is the SAE's control, of random directions.
        pooling: Which tokens rows are made of; of no meaning where there is an SAE.
    """

    model: str
    layer: int
    sae: int | None = None
    control: bool = False
    pooling: Pooling = "mean"

    @property
    def name(self) -> str:
        """Its name among the artefact's files."""
        latents = "" if self.sae is None else f"-sae-{self.sae:02d}{'-random' if self.control else ''}"
        pooled = "" if self.pooling == "mean" else f"-{self.pooling}"
        return f"{self.model}-layer-{self.layer:03d}{pooled}{latents}"


@dataclass(frozen=True)
class AcrossUnit:
    """Another unit: all layers of one model at once, images at one beside texts at another.

    Attributes:
        model: trained or untrained.
        pooling: Which tokens rows are made of.
        lens: Whether it is the lenses, of single tokens.
    """

    model: str
    pooling: Pooling = "mean"
    lens: bool = False

    @property
    def name(self) -> str:
        """Its name among the artefact's files."""
        if self.lens:
            return f"{self.model}-lens"
        return f"{self.model}-across{'' if self.pooling == 'mean' else f'-{self.pooling}'}"


@dataclass(frozen=True)
class Study:
    """Everything that a unit needs to know.

    Attributes:
        stores: The harvest by model: trained, and untrained where the recipe names one.
        config: What to compare.
        pairs: The pairs of each store.
        latents: The SAEs with their controls, in the order of the config.
        steered: What a steering job of the trained model found about directions from texts, by layer.
        poolings: Which tokens are compared, of each model.
        objects: Where objects are, for their pooling.
        notes: Why a pooling or a lens is left out.
        lenses: What the lenses need to know of each model; one that is missing has none.
    """

    stores: Mapping[str, Store]
    config: SharingConfig
    pairs: Mapping[str, Pairs]
    latents: tuple[tuple[Latents, Latents], ...] = ()
    steered: Mapping[int, tuple[Measure, ...]] = field(default_factory=dict)
    poolings: Mapping[str, tuple[Pooling, ...]] = field(default_factory=dict)
    objects: ObjectTokens | None = None
    notes: tuple[str, ...] = ()
    lenses: Mapping[str, LensWords] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers to compare."""
        return self.stores[TRAINED].manifest.layers if self.config.layers == "all" else self.config.layers

    @property
    def across(self) -> tuple[int, ...]:
        """Layers to compare with each other; none where they are fewer than two."""
        chosen = () if self.config.across is None else self.config.across.chosen(self.layers)
        return chosen if len(chosen) > 1 else ()

    @property
    def units(self) -> list[Unit | AcrossUnit]:
        """All units."""
        plain = [
            Unit(model, layer, pooling=pooling)
            for model in self.stores
            for layer in self.layers
            for pooling in self.poolings.get(model, ("mean",))
        ]
        own = [Unit(sae.model, sae.layer, i, control) for i, sae in enumerate(self.config.saes) for control in (False, True)]
        # Of the untrained model, a control, means are enough: reading tokens again at every layer costs most.
        between = [
            AcrossUnit(model, pooling)
            for model in self.stores
            for pooling in (self.poolings.get(model, ("mean",)) if model == TRAINED else ("mean",))
            if self.across
        ]
        lenses = [AcrossUnit(model, lens=True) for model in self.lenses if self.across]
        return [*plain, *own, *between, *lenses]


def plan_study(
    store: Store,
    config: SharingConfig,
    untrained: Store | None = None,
    latents: tuple[tuple[Latents, Latents], ...] = (),
    attributes: Mapping[str, Mapping[str, Sequence[str | None]]] | None = None,
    objects: Callable[[Pairs], ObjectTokens] | str = "the recipe has no section regions",
) -> Study:
    """Work out a study.

    Args:
        store: The activations, complete.
        config: What to compare.
        untrained: Those of the untrained model, as a control.
        latents: The SAEs that the config names, each with its control of random directions.
        attributes: Values of each attribute for each sample, by model.
        objects: Says where the objects of the trained model's pairs are; or why that is not known.

    Raises:
        RecipeError: A store has no pairs, one modality only, or lacks what is asked of it.
    """
    stores = {TRAINED: store, **({UNTRAINED: untrained} if untrained is not None else {})}
    wanted = () if config.layers == "all" else config.layers
    if config.across is not None and config.across.layers != "all":
        wanted = (*wanted, *config.across.layers)
    for model, own in stores.items():
        at = tuple(d.layer for d in config.saes if d.model == model)
        _check(own, model, (*wanted, *at), bool(at))
    if untrained is not None and untrained.manifest.layers != store.manifest.layers and config.layers == "all":
        raise RecipeError(f"sharing.untrained: {untrained.place} has other layers than {store.place}: name sharing.layers")
    for sae, (own, _) in zip(config.saes, latents, strict=True):
        width = stores[sae.model].manifest.width
        if own.sae.d_model != width:
            raise RecipeError(f"sharing.saes: {sae.path} is for width {own.sae.d_model}, the store has {width}")
    known = [(d.model, d.layer, own.name) for d, (own, _) in zip(config.saes, latents, strict=True)]
    for model, layer, name in known:
        if known.count((model, layer, name)) > 1:
            raise RecipeError(f"sharing.saes: two of layer {layer} of the {model} model are called {name}: rename one")
    pairs = {model: find_pairs(own, config, (attributes or {}).get(model)) for model, own in stores.items()}
    poolings, notes = _poolings(stores, pairs, config, None if callable(objects) else objects)
    asked = any("object" in own for own in poolings.values())
    found = objects(pairs[TRAINED]) if asked and callable(objects) else None
    return Study(stores, config, pairs, latents, poolings=poolings, objects=found, notes=notes)


def _poolings(
    stores: Mapping[str, Store], pairs: Mapping[str, Pairs], config: SharingConfig, no_objects: str | None
) -> tuple[dict[str, tuple[Pooling, ...]], tuple[str, ...]]:
    """The poolings of each model, and why others are left out.

    Raises:
        RecipeError: One that the recipe names is not to be had.
    """
    found: dict[str, tuple[Pooling, ...]] = {}
    notes = []
    for model, store in stores.items():
        same = store.samples()["sample_id"].equals(stores[TRAINED].samples()["sample_id"])
        why_not: dict[Pooling, str | None] = {
            "mean": None,
            "object": no_objects or _no_objects(store, pairs[model], same),
            "last": _no_last(store, pairs[model], config),
        }
        found[model] = tuple(p for p in (config.poolings or POOLINGS) if why_not[p] is None)
        for pooling, why in why_not.items():
            if why is not None and pooling in (config.poolings or ()):
                raise RecipeError(f"sharing.poolings: {pooling} of the {model} model: {why}")
            if why is not None and config.poolings is None:
                notes.append(f"{model} model: pooling {pooling} is left out: {why}")
    return found, tuple(notes)


def _no_objects(store: Store, pairs: Pairs, same: bool) -> str | None:
    """Why patches of objects and their words cannot be compared."""
    if "tokens" not in store.manifest.views:
        return f"{store.place} has no view tokens"
    if not pairs.classes:
        return "pairs have no classes"
    return None if same else f"the regions are of other samples than those of {store.place}"


def _no_last(store: Store, pairs: Pairs, config: SharingConfig) -> str | None:
    """Why last tokens cannot be compared."""
    if "last" not in store.manifest.views:
        return f"{store.place} has no view last"
    if not one_prompt(store.manifest.harvest):
        return "images and texts were read under different prompts, so that their last tokens stand at different places"
    n = int((pairs.alone >= 0).sum())
    if n < 2 * config.groups:
        return f"the images of {n} pairs were harvested alone too (corpora.images), at least {2 * config.groups} are needed"
    return None


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


def find_pairs(store: Store, config: SharingConfig, attributes: Mapping[str, Sequence[str | None]] | None = None) -> Pairs:
    """The pairs of a store, grouped, drawn and labelled by hashes of their names: the same on every machine.

    Args:
        store: The activations.
        config: What to compare.
        attributes: Values of each attribute for each sample of the store, None where it has none.

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

    def labelled(values: Sequence[str | None]) -> tuple[tuple[str, ...], Int64[np.ndarray, " p"]]:
        """The values that enough pairs have, and their number for each pair."""
        own = [values[whole[name]["image"]] or values[whole[name]["text"]] for name in names]
        enough = tuple(sorted(v for v, n in Counter(own).items() if v is not None and n >= config.min_per_class))
        number = {value: i for i, value in enumerate(enough if len(enough) > 1 else ())}
        return tuple(number), np.array([number.get(v or "", -1) for v in own], np.int64)

    classes, label = labelled(values)
    others = [PairAttribute(name, *labelled(own)) for name, own in (attributes or {}).items()]
    shuffled = label.copy()
    members = np.flatnonzero(label >= 0)
    dealt = sorted(members, key=lambda i: unit_hash(names[i], f"{config.seed}/labels"))
    shuffled[members] = label[np.array(dealt, np.int64)]
    index = np.arange(len(names))
    swapped = np.array([unit_hash(name, f"{config.seed}/modality") < 0.5 for name in names], bool)
    alone = images_alone(samples.image_path, table["modality"].to_pylist(), of["image"])
    group, drawn, known = index % config.groups, index < config.reservoir, tuple(one for one in others if one.values)
    return Pairs(of, names, group, drawn, classes, label, shuffled, swapped, known, alone)


def images_alone(paths: Sequence[str], modality: Sequence[str], pair_of: Int64[np.ndarray, " s"]) -> Int64[np.ndarray, " s"]:
    """Pair of each sample that shows a pair's image alone, -1 elsewhere: the one whose path ends like that of the pair's image.

    Args:
        paths: Path of the image of each sample, empty where there is none.
        modality: What each of them holds: image, text or pair.
        pair_of: Pair of each sample that holds an image with its caption.
    """
    by_end: dict[str, int] = {}
    images = [i for i, kind in enumerate(modality) if kind == "image" and paths[i]]
    for i in images:
        for end in ends(paths[i]):
            by_end[end] = i if by_end.get(end, i) == i else -1  # -1: of several images
    found = np.full(len(modality), -1, np.int64)
    for i in np.flatnonzero(pair_of >= 0).tolist():
        at = next((by_end[end] for end in ends(paths[i]) if end in by_end), -1)
        if at >= 0 and found[at] < 0:
            found[at] = pair_of[i]
    return found
