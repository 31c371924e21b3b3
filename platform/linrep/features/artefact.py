"""The features on disk: codes, then rows of each run of latents as they come, a commit for each written last, tables at the end.

features/<name>-<digest>/
  manifest.json                                          what was looked into: harvest, dictionaries, config
  codes/dictionary-00/image/part-000012.parquet          active latents of the tokens of chunk 12, see `linrep.features.codes`
  turned/dictionary-00/image-part-000012/*               the same latent by latent, until complete: `linrep.features.columns`
  units/dictionary-00-0000000/examples.parquet           examples of the latents from 0 on; features, labels beside it
  commits/dictionary-00-0000000.json                     written last: the unit counts
  features.parquet, labels.parquet                       all units together, once complete; examples stay where they are
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linrep.config import digest
from linrep.errors import StoreError
from linrep.features.study import TURNED, Study, Unit
from linrep.features.uniqueness import unique
from linrep.places import Place, place, remove_folder
from linrep.store.layout import MANIFEST, MODALITIES, Modality
from linrep.store.manifest import now
from linrep.store.tables import read_table, write_table
from schemas.features import FEATURE_EXAMPLES, FEATURES, VERSION

TABLES = ("features", "labels")


@dataclass(frozen=True)
class FeaturesManifest:
    """What was looked into.

    Attributes:
        name: Name of the recipe.
        digest: Names everything that decides a number.
        parents: Digests of the harvest, of dictionaries, of attributes and embeddings.
        store: Where the activations lay.
        model: The model's folder or hub name, of the harvest.
        config: The recipe's features section.
        dictionaries: The dictionaries, controls after their own: layer, name as the tables call it, folder of codes, latents.
        attributes: Attributes by modality, with their values.
        units: By name: dictionary, layer, first latent and the one after the last.
        codes: Files of codes, by coder and modality.
        chance: Monosemanticity of a blind latent by dictionary, where it was measured; once complete.
        tokens: Tokens read of each modality; once complete.
        status: running until every unit is committed.
        created: When the job began, UTC.
        finished: When it was complete.
        schema_version: Version of the tables.
    """

    name: str
    digest: str
    parents: dict[str, str]
    store: str
    model: str
    config: dict[str, Any]
    dictionaries: list[dict[str, Any]]
    attributes: dict[str, dict[str, list[str]]]
    units: dict[str, dict[str, Any]]
    codes: dict[str, dict[Modality, int]]
    chance: float | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    status: Literal["running", "complete"] = "running"
    created: str = ""
    finished: str = ""
    schema_version: int = VERSION


@dataclass(frozen=True)
class Looked:
    """A dictionary that was looked into; dictionaries of several layers may share a name.

    Attributes:
        layer: Its layer.
        name: What the tables call it.
        coder: Folder of its codes.
        latents: How many it has.
    """

    layer: int
    name: str
    coder: str
    latents: int


@dataclass(frozen=True)
class Features:
    """Complete results.

    Attributes:
        place: Where they lie.
        manifest: What they are of.
    """

    place: Place
    manifest: FeaturesManifest

    def table(self, name: Literal["features", "labels"] = "features") -> pa.Table:
        """One of the tables; `schemas.features` explains the columns."""
        return read_table(self.place, f"{name}.parquet")

    @property
    def dictionaries(self) -> list[Looked]:
        """The dictionaries, controls after their own."""
        return [Looked(**own) for own in self.manifest.dictionaries]

    def dictionary(self, name: str, layer: int | None = None) -> Looked:
        """One of the dictionaries.

        Args:
            name: As the tables call it.
            layer: Its layer; may be left out where only one layer has a dictionary of this name.

        Raises:
            StoreError: There is no such dictionary, or there are several.
        """
        own = [one for one in self.dictionaries if one.name == name and layer in (None, one.layer)]
        if len(own) == 1:
            return own[0]
        if own:
            layers = ", ".join(str(one.layer) for one in own)
            raise StoreError(f"{self.place} has a dictionary {name!r} in layers {layers}: say which layer")
        there = ", ".join(f"{one.name} (layer {one.layer})" for one in self.dictionaries)
        of = "" if layer is None else f" of layer {layer}"
        raise StoreError(f"no dictionary {name!r}{of} in {self.place}: {there}")

    def examples(self, dictionary: str, first: int = 0, last: int | None = None, layer: int | None = None) -> pa.Table:
        """Examples of a run of latents of a dictionary, sorted by latent, modality, kind, quantile and rank.

        Args:
            dictionary: As the tables call it.
            first: The first latent.
            last: The one after the last, None for all.
            layer: The dictionary's layer, see `dictionary`.

        Raises:
            StoreError: There is no such dictionary, or there are several.
        """
        looked = self.dictionary(dictionary, layer)
        end = looked.latents if last is None else last
        tables = [
            read_table(self.place / "units" / name, "examples.parquet")
            for name, unit in self.manifest.units.items()
            if unit["coder"] == looked.coder and unit["first"] < end and unit["last"] > first
        ]
        table = pa.concat_tables(tables) if tables else FEATURE_EXAMPLES.empty_table()
        return table.filter((pc.field("latent") >= first) & (pc.field("latent") < end))

    def codes(self, coder: str, modality: Modality) -> list[Place]:
        """The files of codes of a dictionary on one modality.

        Args:
            coder: Folder of its codes, see `Looked`.
            modality: Which tokens.

        Raises:
            StoreError: Some of them are gone.
        """
        files = self._codes(coder, modality)
        if not self.has_codes(coder, modality):
            raise StoreError(
                f"{len(files)} of {self.manifest.codes[coder][modality]} files of codes are left in {self.place}/codes/{coder}/"
                f"{modality}: delete {self.place / MANIFEST} and run jobs/features.py again, it makes those that are missing"
            )
        return files

    def has_codes(self, coder: str, modality: Modality) -> bool:
        """Whether all of these files are there."""
        return len(self._codes(coder, modality)) >= self.manifest.codes[coder][modality]

    def _codes(self, coder: str, modality: Modality) -> list[Place]:
        folder = self.place / "codes" / coder / modality
        return [folder / name for name in folder.names() if name.endswith(".parquet")]


@dataclass(frozen=True)
class UnitCommit:
    """What a unit took.

    Attributes:
        unit: Its name.
        latents: Latents.
        tokens: Tokens read, by modality.
        chance: Monosemanticity of a blind latent, where it was measured.
        seconds: From the first pass over the codes to the tables.
    """

    unit: str
    latents: int
    tokens: dict[str, int]
    chance: float | None
    seconds: float


@dataclass(frozen=True)
class FeaturesPlan:
    """A features job before it runs.

    Attributes:
        place: The artefact.
        study: What to do.
        manifest: The manifest to start with.
    """

    place: Place
    study: Study
    manifest: FeaturesManifest = field(repr=False)


def plan_artefact(workspace: Place, name: str, study: Study, parents: dict[str, str]) -> FeaturesPlan:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
        parents: Digests of dictionaries, attributes and embeddings.
    """
    config = study.config
    parents = {"harvest": study.store.manifest.digest, **parents}
    # What dictionaries and embeddings hold counts, not where they lie; nor does it count in how many passes they are looked into.
    values = config.model_dump(mode="json", exclude={"dictionaries", "embeddings", "memory_gb"})
    values |= {"at": [d.layer for d in config.dictionaries]}
    key = digest(VERSION, parents, values)
    manifest = FeaturesManifest(
        name=name,
        digest=key,
        parents=parents,
        store=str(study.store.place),
        model=str(study.store.manifest.model.get("path", "")),
        config=config.model_dump(mode="json"),
        dictionaries=[asdict(own) for own in looked_into(study)],
        attributes={m: {a.name: list(a.values) for a in own} for m, own in study.known.attributes.items()},
        units={unit.name: _described(study, unit) for unit in study.units},
        codes={unit.coder: _counted(study, unit) for unit in study.units},
        created=now(),
    )
    return FeaturesPlan(workspace / "features" / f"{name}-{key}", study, manifest)


def resumed(plan: FeaturesPlan, manifest: FeaturesManifest) -> FeaturesPlan:
    """The plan of a study that was begun before, in the runs of latents that it was begun with, whatever the memory is now."""
    cut: dict[str, list[tuple[int, int]]] = {}
    for unit in manifest.units.values():
        cut.setdefault(unit["coder"], []).append((unit["first"], unit["last"]))
    study = replace(plan.study, cut={coder: tuple(own) for coder, own in cut.items()})
    return replace(plan, study=study, manifest=replace(plan.manifest, created=manifest.created, units=manifest.units))


def looked_into(study: Study) -> list[Looked]:
    """The dictionaries of a study, controls after their own."""
    return [
        Looked(study.config.dictionaries[unit.dictionary].layer, study.of(unit).name, unit.coder, study.of(unit).coder.n_latents)
        for unit in {unit.coder: unit for unit in study.units}.values()
    ]


def _described(study: Study, unit: Unit) -> dict[str, Any]:
    layer = study.config.dictionaries[unit.dictionary].layer
    return {"coder": unit.coder, "layer": layer, "dictionary": study.of(unit).name, "first": unit.run[0], "last": unit.run[1]}


def _counted(study: Study, unit: Unit) -> dict[Modality, int]:
    files = [modality for part in study.parts(unit) for modality, _ in part]
    return {modality: files.count(modality) for modality in MODALITIES}


def open_features(where: str | Place) -> Features:
    """The results in a folder; a workspace that holds just one will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    here = place(where)
    if not (here / MANIFEST).is_file():
        names = (here / "features").names()
        if len(names) > 1:
            raise StoreError(f"{here} holds {len(names)} features results, name one of them: {', '.join(names)}")
        here = here / "features" / names[0] if names else here
    manifest = read_features_manifest(here)
    if manifest is None:
        raise StoreError(f"no features results at {here}: {MANIFEST} is missing")
    if manifest.status != "complete":
        raise StoreError(f"the features results at {here} are not complete: run jobs/features.py with the same recipe again")
    return Features(here, manifest)


def read_features_manifest(here: Place) -> FeaturesManifest | None:
    """The manifest in a folder, None where there is none.

    Raises:
        StoreError: It is of a version that this program cannot read.
    """
    if not (here / MANIFEST).is_file():
        return None
    value = (here / MANIFEST).read_json()
    if value.get("schema_version") != VERSION or "codes" not in value:
        raise StoreError(f"{here} holds no features results of schema version {VERSION}")
    return FeaturesManifest(**value)


def write_features_manifest(here: Place, manifest: FeaturesManifest) -> None:
    """Write, or replace, the manifest."""
    (here / MANIFEST).write_json(asdict(manifest))


def write_unit(here: Place, unit: Unit, tables: dict[str, pa.Table], commit: UnitCommit) -> UnitCommit:
    """Write what a unit found, and commit it."""
    for name, table in tables.items():
        write_table(here / "units" / unit.name, f"{name}.parquet", table)
    (here / "commits" / f"{unit.name}.json").write_json(asdict(commit))
    return commit


def committed(here: Place) -> set[str]:
    """Names of the units that are done."""
    return {name.removesuffix(".json") for name in (here / "commits").names() if name.endswith(".json")}


def has_codes(plan: FeaturesPlan) -> bool:
    """Whether the codes of every dictionary are there, which somebody may have deleted."""
    found = Features(plan.place, plan.manifest)
    return all(found.has_codes(coder, modality) for coder in found.manifest.codes for modality in MODALITIES)


def finish(plan: FeaturesPlan) -> FeaturesManifest:
    """Put the units' tables together; returns the manifest of the complete artefact, not written yet."""
    units = plan.study.units
    for name in TABLES:
        parts = [read_table(plan.place / "units" / unit.name, f"{name}.parquet") for unit in units]
        table = pa.concat_tables(parts)
        write_table(plan.place, f"{name}.parquet", _with_uniqueness(plan, table) if name == "features" else table)
    commits = [UnitCommit(**(plan.place / "commits" / f"{unit.name}.json").read_json()) for unit in units]
    remove_folder(plan.place / TURNED)  # what is left to do needs them no more
    return replace(plan.manifest, status="complete", finished=now(), chance=commits[0].chance, tokens=commits[0].tokens)


def _with_uniqueness(plan: FeaturesPlan, table: pa.Table) -> pa.Table:
    """The features with the two columns that need the examples of a whole dictionary."""
    columns: dict[str, list[Any]] = {"uniqueness": [], "most_alike": []}
    coders = dict.fromkeys(unit.coder for unit in plan.study.units)
    for coder in coders:
        own = [unit for unit in plan.study.units if unit.coder == coder]
        wanted = ["latent", "kind", "sample_id"]
        examples = pa.concat_tables([read_table(plan.place / "units" / u.name, "examples.parquet", wanted) for u in own])
        top = examples.filter(pc.field("kind") == "top").combine_chunks()
        sample = np.unique(top["sample_id"].to_numpy(), return_inverse=True)[1]
        found = unique(top["latent"].to_numpy().astype(np.int64), sample.astype(np.int64), own[-1].run[1])
        columns["uniqueness"] += [None if v != v else v for v in found.uniqueness.tolist()]
        columns["most_alike"] += [None if v < 0 else v for v in found.most_alike.tolist()]
    for name, values in columns.items():
        table = table.set_column(
            FEATURES.get_field_index(name), FEATURES.field(name), pa.array(values, FEATURES.field(name).type)
        )
    return table
