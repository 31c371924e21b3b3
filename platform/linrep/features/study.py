"""What a features job will do, worked out before any cluster starts: which samples, which attributes, in how many passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from linrep.encoder import Latents
from linrep.errors import RecipeError
from linrep.features.codes import codes_file
from linrep.features.config import FeaturesConfig
from linrep.features.gather import SampleFacts, runs
from linrep.features.labels import Attribute
from linrep.features.monosemanticity import Embedded
from linrep.features.regions import RegionFacts
from linrep.places import Place
from linrep.regions.artefact import Regions
from linrep.regions.patches import PatchLabels
from linrep.sample import unit_hash
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, Modality
from linrep.store.read import Store
from linrep.store.samples import CLASS, class_values, read_samples
from linrep.vlm.config import ModelConfig

PARTS = 8
"""Most parts that a layer's files are read in, whatever the cluster: sums in one order."""

TURNED = "turned"
"""Folder, in the artefact, of turned codes."""

Part = tuple[tuple[Modality, WrittenFile], ...]


@dataclass(frozen=True)
class Unit:
    """The unit of retry and commit: a run of latents of an SAE, or of its control.

    Attributes:
        sae: Number of the SAE.
        control: Whether it is the SAE's control, of random directions.
        run: The latents, from the first to before the last.
    """

    sae: int
    control: bool
    run: tuple[int, int]

    @property
    def folder(self) -> str:
        """What encodes, as a name of a folder."""
        return f"sae-{self.sae:02d}{'-random' if self.control else ''}"

    @property
    def name(self) -> str:
        """Its name among the artefact's files."""
        return f"{self.folder}-{self.run[0]:07d}"


@dataclass(frozen=True)
class Study:
    """Everything that a worker needs to know.

    Attributes:
        store: The activations.
        config: What to find out.
        known: What is known of the samples.
        wanted: Samples whose tokens count, by modality.
        ids: Names of the samples.
        n_tokens: Tokens that each sample has, by modality.
        latents: The SAEs with their controls, in the order of the config.
        model: Whose words the logit lens speaks; None leaves them out.
        cut: Runs of latents by folder of codes, of a study that was begun with other memory; else they are made to fit.
    """

    store: Store
    config: FeaturesConfig
    known: SampleFacts
    wanted: Mapping[Modality, Bool[np.ndarray, " s"]]
    ids: pa.Array
    n_tokens: dict[Modality, Int64[np.ndarray, " s"]]
    latents: tuple[tuple[Latents, Latents], ...]
    model: ModelConfig | None = None
    cut: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @property
    def units(self) -> list[Unit]:
        """All units, in the order of the SAEs."""
        whole = [
            Unit(i, control, (0, pair[control].sae.n_latents)) for i, pair in enumerate(self.latents) for control in (False, True)
        ]
        return [
            replace(unit, run=run)
            for unit in whole
            for run in self.cut.get(unit.folder) or runs(unit.run[1], self.known, self.config)
        ]

    @property
    def coded(self) -> list[Unit]:
        """The first unit of each SAE and of each control: what is encoded."""
        return [unit for unit in self.units if unit.run[0] == 0]

    def layer(self, unit: Unit) -> int:
        """The layer of a unit's SAE."""
        return self.config.saes[unit.sae].layer

    def of(self, unit: Unit) -> Latents:
        """The SAE of a unit."""
        return self.latents[unit.sae][unit.control]

    def parts(self, unit: Unit) -> list[Part]:
        """The files that the unit's SAE reads, in runs."""
        layer = self.layer(unit)
        files = [(m, file) for m in MODALITIES for file in self.store.select("tokens", layer, m).files]
        files.sort(key=lambda own: own[1].path.rsplit("/", 1)[-1])
        total, parts, done = sum(file.rows for _, file in files), [[] for _ in range(PARTS)], 0
        for modality, file in files:
            parts[done * PARTS // max(total, 1)].append((modality, file))
            done += file.rows
        return [tuple(part) for part in parts if part]

    def codes(self, unit: Unit, part: Part, here: Place) -> list[tuple[Modality, Place]]:
        """The files of codes of a part."""
        return [(m, here / codes_file(unit.folder, m, file)) for m, file in part]

    def turned(self, unit: Unit, part: Part, here: Place) -> Place:
        """The folder of the turned codes of a part: named by its first file."""
        _, first = self.codes(unit, part, here)[0]
        return here / TURNED / unit.folder / f"{part[0][0]}-{first.name.removesuffix('.parquet')}"


def plan_study(
    store: Store,
    config: FeaturesConfig,
    values: Mapping[str, Sequence[str | None]] | None = None,
    embedded: Embedded | None = None,
    latents: tuple[tuple[Latents, Latents], ...] = (),
    model: ModelConfig | None = None,
    regions: Regions | None = None,
) -> Study:
    """Work out a study.

    Args:
        store: The activations, complete.
        config: What to find out.
        values: Attributes beside the class: the value of each sample of the store, None where it has none.
        embedded: Vectors of the samples by an independent encoder.
        latents: The SAEs that the config names, each with its control of random directions.
        model: Whose words the logit lens speaks.
        regions: What covers patches of the store's images.

    Raises:
        RecipeError: No SAE is named, or the store lacks what one needs.
    """
    if not store.complete or store.manifest.status != "complete":
        raise RecipeError(f"features: the harvest {store.place} is not complete: run jobs/harvest.py with its recipe again")
    if not config.saes:
        raise RecipeError(
            "features.saes names none: give the path and layer of each, as in "
            """--features.saes '[{"path": "FOLDER", "layer": 4}]'"""
        )
    if "tokens" not in store.manifest.views:
        there = ", ".join(store.manifest.views)
        raise RecipeError(f"features: no view 'tokens' in {store.place}, it has {there}: harvest it with harvest.views")
    for sae in config.saes:
        if sae.layer not in store.manifest.layers:
            layers = ", ".join(map(str, store.manifest.layers))
            raise RecipeError(f"features.saes: no layer {sae.layer} in {store.place}: it has {layers}")
    for sae, (own, _) in zip(config.saes, latents, strict=bool(latents)):
        if own.sae.d_model != store.manifest.width:
            raise RecipeError(f"features.saes: {sae.path} is for width {own.sae.d_model}, the store has {store.manifest.width}")
    table = store.samples()
    samples = read_samples(table)
    rank = np.empty(len(samples.ids), np.int64)
    by_rank = np.array(sorted(range(len(rank)), key=lambda i: unit_hash(samples.ids[i], f"{config.seed}/features")), np.int64)
    rank[by_rank] = np.arange(len(rank))
    named = {CLASS: class_values(table, samples), **(values or {})}
    wanted: dict[Modality, np.ndarray] = {m: samples.of(m) for m in MODALITIES}
    if not any(one.any() for one in wanted.values()):
        raise RecipeError(f"features: {store.place} has no image, and no text read alone; tokens of documents take no part")
    attributes: dict[Modality, tuple[Attribute, ...]] = {m: _attributes(named, wanted[m], config.min_samples) for m in MODALITIES}
    n_tokens: dict[Modality, np.ndarray] = {m: table[f"n_{m}_tokens"].to_numpy().astype(np.int64) for m in MODALITIES}
    of_patches = None if regions is None else _region_facts(regions, store, wanted["image"], rank % 2, config.min_samples)
    known = SampleFacts(rank, by_rank, attributes, embedded, of_patches)
    return Study(store, config, known, wanted, table["sample_id"].combine_chunks(), n_tokens, latents, model)


def _region_facts(
    regions: Regions, store: Store, wanted: Bool[np.ndarray, " s"], half: Int64[np.ndarray, " s"], min_samples: int
) -> RegionFacts:
    """What covers patches, and the categories whose regions cover patches of enough images, of some in either half."""
    labels, ids = PatchLabels(regions, store), store.samples()["sample_id"].combine_chunks()
    shown = regions.table("regions").filter((pc.field("n_patches") > 0) & pc.field("category").is_valid())
    pairs = shown.group_by(["category", "sample_id"]).aggregate([])
    sample, category = (
        pc.call_function("index_in", [pairs[name]], pc.SetLookupOptions(value_set=among)).to_numpy().astype(np.int64)
        for name, among in (("sample_id", ids), ("category", pa.array(labels.categories, pa.string())))
    )
    counts = np.zeros((len(labels.categories), 2), np.int64)
    np.add.at(counts, (category[wanted[sample]], half[sample[wanted[sample]]]), 1)
    return RegionFacts(labels, (counts.sum(1) >= min_samples) & (counts > 0).all(1))


def _attributes(
    named: Mapping[str, Sequence[str | None]], wanted: Bool[np.ndarray, " s"], min_samples: int
) -> tuple[Attribute, ...]:
    """Attributes of which at least two values have enough samples; the other values count as none."""
    found = []
    for name, values in named.items():
        own = [v if w else None for v, w in zip(values, wanted.tolist(), strict=True)]
        counts: dict[str, int] = {}
        for v in own:
            if v is not None:
                counts[v] = counts.get(v, 0) + 1
        kept = tuple(sorted(v for v, n in counts.items() if n >= min_samples))
        if len(kept) > 1:
            number = {v: i for i, v in enumerate(kept)}
            found.append(Attribute(name, kept, np.array([number.get(v or "", -1) for v in own], np.int64)))
    return tuple(found)
