"""What a probe job will do, worked out before any cluster starts: who is labelled what, which fits, on which rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from linrep.errors import RecipeError
from linrep.probe.config import ProbeConfig
from linrep.probe.control_task import ATTRIBUTES, CLASSES, NONE, ControlTask, ControlTasks, types
from linrep.probe.groups import PatchGroups
from linrep.probe.labels import Labelled, attribute_values, check, label, modality_labels, subset
from linrep.store.layout import MODALITIES, NO_LAYER, Modality, View
from linrep.store.read import Store
from linrep.store.samples import CLASS, SPLITS, Samples, class_values, read_samples
from schemas.probes import PROBE_LABELS

SHUFFLED = "/shuffled"
CONTROL_TASK = "/control_task"

Source = Literal["image", "text", "both"]


@dataclass(frozen=True)
class Task:
    """One thing to learn.

    Attributes:
        attribute: class, modality, or an attribute of the samples.
        source: Modality of the rows to learn it from.
        names: The classes in words.
        n_per_class: Training samples per class, None for all there are.
    """

    attribute: str
    source: Source
    names: tuple[str, ...]
    n_per_class: int | None = None

    @property
    def column(self) -> str:
        """Its label column."""
        return self.attribute if self.n_per_class is None else f"{self.attribute}/{self.n_per_class}"

    @property
    def control_task(self) -> str:
        """The label column of its control task; a study may have none."""
        return f"{self.column}{CONTROL_TASK}"

    @property
    def scored_control_task(self) -> str:
        """The label column that its control task is scored against."""
        return f"{self.attribute}{CONTROL_TASK}"

    @property
    def control(self) -> str:
        """The label column of its shuffled labels."""
        return f"{self.column}{SHUFFLED}"

    @property
    def scored_control(self) -> str:
        """The label column that its shuffled labels are scored against: all points of the curve have the same ones."""
        return f"{self.attribute}{SHUFFLED}"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities of its rows."""
        return MODALITIES if self.source == "both" else (self.source,)


@dataclass(frozen=True)
class Family:
    """Label columns that the same samples of a modality have: they share one Gram matrix.

    Attributes:
        members: Which samples.
        columns: Class number of each sample, by column.
        n_classes: Classes by column.
    """

    members: Bool[np.ndarray, " s"]
    columns: Mapping[str, Int64[np.ndarray, " s"]]
    n_classes: Mapping[str, int]


@dataclass(frozen=True)
class Unit:
    """The unit of work, retry and commit: all probes of one view and layer."""

    view: View
    layer: int

    @property
    def name(self) -> str:
        """Its name among the artefact's files."""
        return f"{self.view}-tower" if self.layer == NO_LAYER else f"{self.view}-layer-{self.layer:03d}"


@dataclass(frozen=True)
class PatchStudy:
    """What is to be learned of single patches, see `linrep.probe.patches`.

    Attributes:
        groups: Groups of patches.
        study: The same study with groups in the place of samples, and regions as its one task.
        n_samples: Samples of the store.
    """

    groups: PatchGroups
    study: "Study"
    n_samples: int

    def images(self, wanted: Bool[np.ndarray, " g"]) -> Bool[np.ndarray, " s"]:
        """Samples that some groups are of."""
        return np.bincount(self.groups.sample[wanted], minlength=self.n_samples) > 0


@dataclass(frozen=True)
class Study:
    """Everything that a unit needs to know; the same for all units.

    Attributes:
        store: The activations.
        config: What to fit.
        tasks: What to learn.
        samples: The store's samples.
        codes: Class number of each sample by modality and label column, -1 for those that take no part.
        left_out: Classes of attributes and of texts with too few samples to learn from, by attribute and modality.
        patches: What is learned of single patches; None where no regions of images are known.
        control_tasks: Labels by type, for what they say of single tokens.
    """

    store: Store
    config: ProbeConfig
    tasks: tuple[Task, ...]
    samples: Samples
    codes: Mapping[Modality, Mapping[str, Int64[np.ndarray, " s"]]]
    left_out: Mapping[str, tuple[str, ...]]
    patches: PatchStudy | None = None
    control_tasks: ControlTasks = NONE

    @property
    def views(self) -> tuple[str, ...]:
        """Views to probe: where only regions are known, that of single tokens."""
        views = self.store.manifest.views if self.config.views == "all" else self.config.views
        return tuple(view for view in views if self.tasks or view == "tokens")

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers to probe."""
        return self.store.manifest.layers if self.config.layers == "all" else self.config.layers

    @property
    def units(self) -> list[Unit]:
        """All units, view by view and layer by layer."""
        return [Unit(view, layer) for view in self.views for layer in self.layers]  # pyright: ignore[reportArgumentType]

    @cached_property
    def clusters(self) -> Int64[np.ndarray, " s"]:
        """What a bootstrap draws, as a number for each sample."""
        return self.samples.clusters

    def families(self, modality: Modality) -> tuple[Family, ...]:
        """The label columns of a modality, those that the same samples have together."""
        train = self.samples.split == SPLITS.index("train")
        grouped: dict[bytes, list[str]] = {}
        columns = self.codes[modality]
        for name, codes in columns.items():
            grouped.setdefault(((codes >= 0) & train).tobytes(), []).append(name)
        sizes = {name: self._size(modality, name) for name in columns}
        return tuple(
            Family(
                (columns[names[0]] >= 0) & train, {name: columns[name] for name in names}, {name: sizes[name] for name in names}
            )
            for names in grouped.values()
            if ((columns[names[0]] >= 0) & train).any()
        )

    def _size(self, modality: Modality, column: str) -> int:
        attribute = column.partition("/")[0]
        return next(len(t.names) for t in self.tasks if t.attribute == attribute and modality in t.modalities)

    def labels(self) -> pa.Table:
        """Who was labelled what, split and control included: one row a sample, modality and attribute."""
        parts = []
        splits = np.array(SPLITS)[self.samples.split]
        for task in self.tasks:
            if task.n_per_class is not None:
                continue
            for modality in task.modalities:
                codes, shuffled = (self.codes[modality][c] for c in (task.column, task.control))
                has = np.flatnonzero(codes >= 0)
                names = np.array(task.names)
                by_type = self.codes[modality].get(task.control_task)
                values = {
                    "sample_id": pa.array([self.samples.ids[i] for i in has], pa.string()),
                    "modality": pa.array([modality] * len(has), pa.string()),
                    "split": pa.array(splits[has], pa.string()),
                    "attribute": pa.array([task.attribute] * len(has), pa.string()),
                    "class_name": pa.array(names[codes[has]], pa.string()),
                    "shuffled": pa.array(names[shuffled[has]], pa.string()),
                    "control_task": pa.array([None] * len(has) if by_type is None else names[by_type[has]], pa.string()),
                }
                parts.append(pa.table(values, schema=PROBE_LABELS))
        return pa.concat_tables(parts) if parts else PROBE_LABELS.empty_table()


def plan_study(
    store: Store,
    config: ProbeConfig,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    regions: bool = False,
) -> Study:
    """Work out a study.

    Args:
        store: The activations, complete.
        config: What to fit.
        attributes: The attributes' table by key, where the recipe names one.
        regions: Whether patches are to be probed for regions: then no sample needs a class.

    Raises:
        RecipeError: A layer or view is not in the store, nothing is labelled, or a class has too few samples.
        StoreError: The store lacks what is asked of it.
    """
    _check_places(store, config)
    table = store.samples()
    samples = read_samples(table)
    values = {CLASS: class_values(table, samples)}
    for column in config.attributes.columns if config.attributes is not None else ():
        values[column] = attribute_values(attributes or {}, column, table, samples)
        if not any(v is not None for v in values[column]):
            raise RecipeError(f"probe.attributes: no sample of the store is named in column {config.attributes.key!r}")  # pyright: ignore[reportOptionalMemberAccess]
    number = {v: n for v, n in zip(values[CLASS], table["label"].to_pylist(), strict=True) if v is not None and n is not None}
    tasks: list[Task] = []
    codes: dict[Modality, dict[str, Int64[np.ndarray, " s"]]] = {m: {} for m in MODALITIES}
    left_out: dict[str, tuple[str, ...]] = {}

    named = tuple(values)
    if config.attributes is not None and config.attributes.types is not None:
        named = (CLASS, *config.attributes.types)
    type_of = types(values, named)
    controls: dict[tuple[Modality, str], ControlTask] = {}

    def add(found: Labelled, n: int | None = None) -> None:
        task = Task(found.attribute, found.modality, found.names, n)  # pyright: ignore[reportArgumentType]
        codes[found.modality][task.column] = found.codes  # pyright: ignore[reportArgumentType]
        codes[found.modality][task.control] = found.shuffled  # pyright: ignore[reportArgumentType]
        tasks.append(task)
        where: Modality = found.modality  # pyright: ignore[reportAssignmentType]
        if n is None:
            train, salt = samples.split == SPLITS.index("train"), f"{config.seed}/{found.attribute}"
            controls[where, task.control_task] = ControlTask.of(found.codes, train, found.n_classes, salt)
            own = controls[where, task.control_task] if len(named) > 1 else ControlTask.dichotomy(found.n_classes, salt)
            by_type = own.labels(type_of)
        else:  # the same function on fewer training samples
            controls[where, task.control_task] = controls[where, task.scored_control_task]
            by_type = codes[where][task.scored_control_task]
        codes[where][task.control_task] = np.where(found.codes >= 0, by_type, -1)

    for attribute, own in values.items():
        for modality in MODALITIES:
            # Images sit in folders on purpose: a small class there is a mistake. A rare attribute, or caption, is left out.
            required = attribute == CLASS and modality == "image"
            names, few = _classes(own, samples, modality, 0 if required else config.min_per_class)
            names = sorted(names, key=lambda name: (number.get(name, 0) if attribute == CLASS else 0, name))
            if few:
                left_out[f"{attribute} of {modality}"] = tuple(few)
            if not names or (len(names) < 2 and not required):
                continue
            found = label(attribute, modality, own, names, samples, config.seed)
            if not required and not _has_all_splits(found, samples):
                continue
            check(found, samples, config.min_per_class)
            add(found)
            if attribute == CLASS:
                for n in config.curve:
                    smaller = subset(found, samples, n, config.seed)
                    if (smaller.codes != found.codes).any():
                        add(smaller, n)
    if not tasks and not regions:
        raise RecipeError(f"probe: no sample of {store.place} has a class: probes need images in folders, or labels")
    by_modality = modality_labels(samples, config.seed)
    if all(_has_all_splits(found, samples) for found in by_modality.values()):
        for modality, found in by_modality.items():
            codes[modality] |= {"modality": found.codes, f"modality{SHUFFLED}": found.shuffled}
        tasks.append(Task("modality", "both", MODALITIES))
    control_tasks = ControlTasks(controls, ATTRIBUTES if len(named) > 1 else CLASSES)
    return Study(store, config, tuple(tasks), samples, codes, left_out, control_tasks=control_tasks)


def _check_places(store: Store, config: ProbeConfig) -> None:
    if not store.complete or store.manifest.status != "complete":
        raise RecipeError(f"the harvest {store.place} is not complete: run jobs/harvest.py with the same recipe first")
    for view in config.views if config.views != "all" else ():
        if view not in store.manifest.views:
            raise RecipeError(f"probe.views: no view {view!r} in {store.place}: it has {', '.join(store.manifest.views)}")
    for layer in config.layers if config.layers != "all" else ():
        if layer not in store.manifest.layers:
            there = ", ".join(map(str, store.manifest.layers))
            raise RecipeError(f"probe.layers: no layer {layer} in {store.place}: it has {there}")


def _classes(values: list[str | None], samples: Samples, modality: Modality, at_least: int) -> tuple[list[str], list[str]]:
    """Classes of a modality's samples, and those with too few training samples."""
    takes_part, train = samples.of(modality), samples.of(modality, "train")
    there = sorted({v for v, t in zip(values, takes_part, strict=True) if t and v is not None})
    counts = dict.fromkeys(there, 0)
    for v, t in zip(values, train, strict=True):
        if t and v is not None:
            counts[v] += 1
    return [v for v in there if counts[v] >= at_least], [v for v in there if counts[v] < at_least]


def _has_all_splits(found: Labelled, samples: Samples) -> bool:
    return all(((found.codes >= 0) & (samples.split == i)).any() for i in range(len(SPLITS)))
