"""The features on disk: an artefact with a unit for each SAE's codes and for each run of its latents, see `linrep.artefact`.

features/<name>-<digest>/
  codes/sae-00/image/part-000012.parquet          active latents of the tokens of chunk 12, see `linrep.features.codes`
  commits/codes-sae-00.json                       written when all codes of an SAE, or of its control, are there
  turned/sae-00/image-part-000012/*               the same latent by latent, until complete: `linrep.features.columns`
  units/sae-00-0000000/                           features, labels, overlaps and examples of the latents from 0 on; examples stay
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linrep import artefact
from linrep.artefact import Artefact
from linrep.errors import StoreError
from linrep.features.study import TURNED, Study, Unit
from linrep.features.uniqueness import unique
from linrep.kind import Kind, UnitCommit
from linrep.places import Place, remove_folder
from linrep.records import MANIFEST, inside
from linrep.store.layout import MODALITIES, Modality
from linrep.store.tables import write_table
from schemas.features import FEATURE_EXAMPLES, FEATURE_LABELS, FEATURE_OVERLAPS, FEATURES, VERSION

_CODES = re.compile(r"part-[0-9]{6,}\.parquet")


@dataclass(frozen=True)
class StudiedSae:
    """An SAE that was looked into; SAEs of several layers may share a name.

    Attributes:
        layer: Its layer.
        name: What the tables call it.
        folder: Folder of its codes.
        latents: How many it has.
    """

    layer: int
    name: str
    folder: str
    latents: int


@dataclass(frozen=True)
class Run:
    """A run of latents, which is a unit.

    Attributes:
        folder: Folder of its SAE's codes.
        layer: Its SAE's layer.
        sae: What the tables call its SAE.
        first: The first latent.
        last: The one after the last.
    """

    folder: str
    layer: int
    sae: str
    first: int
    last: int


@dataclass(frozen=True)
class FeaturesAbout:
    """What was looked into.

    Attributes:
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        model: The model's folder or hub name, of the harvest.
        saes: The SAEs, controls after their own.
        attributes: Attributes by modality, with their values.
        runs: Runs of latents by the names of their units, as memory allowed when the study was begun.
        codes: Files of codes, by folder and modality.
        chance: Monosemanticity of a blind latent, where it was measured; once complete.
        tokens: Tokens read of each modality; once complete.
    """

    store: str
    model: str
    saes: list[StudiedSae]
    attributes: dict[str, dict[str, list[str]]]
    runs: dict[str, Run]
    codes: dict[str, dict[Modality, int]]
    chance: float | None
    tokens: dict[str, int]


FEATURES_KIND = Kind(
    "features", "features", "features", VERSION, FeaturesAbout,
    {"features": FEATURES, "labels": FEATURE_LABELS, "overlaps": FEATURE_OVERLAPS}, parts={"examples": FEATURE_EXAMPLES},
)  # fmt: skip


@dataclass(frozen=True)
class Features(Artefact[FeaturesAbout]):
    """Complete features, as a reader sees them; `schemas.features` explains their tables."""

    @property
    def saes(self) -> list[StudiedSae]:
        """The SAEs, controls after their own."""
        return self.about.saes

    def sae(self, name: str, layer: int | None = None) -> StudiedSae:
        """One of the SAEs.

        Args:
            name: As the tables call it.
            layer: Its layer; may be left out where only one layer has an SAE of this name.

        Raises:
            StoreError: There is no such SAE, or there are several.
        """
        own = [one for one in self.saes if one.name == name and layer in (None, one.layer)]
        if len(own) == 1:
            return own[0]
        if own:
            layers = ", ".join(str(one.layer) for one in own)
            raise StoreError(f"{self.place} has an SAE {name!r} in layers {layers}: say which layer")
        there = ", ".join(f"{one.name} (layer {one.layer})" for one in self.saes)
        of = "" if layer is None else f" of layer {layer}"
        raise StoreError(f"no SAE {name!r}{of} in {self.place}: {there}")

    def examples(self, sae: str, first: int = 0, last: int | None = None, layer: int | None = None) -> pa.Table:
        """Examples of a run of latents of an SAE, sorted by latent, modality, kind, quantile and rank.

        Args:
            sae: As the tables call it.
            first: The first latent.
            last: The one after the last, None for all.
            layer: The SAE's layer, see `sae`.

        Raises:
            StoreError: There is no such SAE, or there are several.
        """
        looked = self.sae(sae, layer)
        end = looked.latents if last is None else last
        tables = [
            self.part(name, "examples")
            for name, run in self.about.runs.items()
            if run.folder == looked.folder and run.first < end and run.last > first
        ]
        table = pa.concat_tables(tables) if tables else FEATURE_EXAMPLES.empty_table()
        return table.filter((pc.field("latent") >= first) & (pc.field("latent") < end))

    def codes(self, folder: str, modality: Modality) -> list[Place]:
        """The files of codes of an SAE on one modality.

        Args:
            folder: Folder of its codes, see `StudiedSae`.
            modality: Which tokens.

        Raises:
            StoreError: Some of them are gone.
        """
        here = inside(self.place, f"codes/{folder}/{modality}", self.place / MANIFEST, self.kind.repair)
        files = [here / name for name in here.names() if _CODES.fullmatch(name)]
        wanted = self.about.codes[folder][modality]
        if len(files) != wanted:
            commit = self.place / "commits" / f"codes-{folder}.json"
            raise StoreError(
                f"{len(files)} of {wanted} files of codes are left in {here}: delete {self.place / MANIFEST} and {commit}, "
                f"and {self.kind.again} again: it makes those that are missing"
            )
        return files


def open_features(where: str | Place) -> Features:
    """The features in a folder; a workspace that holds just one artefact of features will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    return readable(artefact.open(FEATURES_KIND, where))


def readable(here: Artefact[FeaturesAbout]) -> Features:
    """The same artefact with what readers ask of it."""
    return Features(here.kind, here.place, here.manifest)


def plan_artefact(
    workspace: Place, name: str, study: Study, parents: Mapping[str, str], origins: Sequence[dict[str, Any]] = ()
) -> Artefact[FeaturesAbout]:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
        parents: Digests of SAEs, attributes, regions and embeddings.
        origins: What each SAE says that it is of.
    """
    config = study.config
    # What SAEs and embeddings hold counts, not where they lie; nor does it count in how many passes they are looked into.
    values = config.model_dump(mode="json", exclude={"saes", "embeddings", "memory_gb"})
    return artefact.plan(
        FEATURES_KIND,
        workspace,
        name,
        decisive=values | {"at": [d.layer for d in config.saes]},
        parents={"harvest": study.store.manifest.digest, **parents},
        config=config.model_dump(mode="json"),
        units=[*(codes_unit(unit) for unit in study.coded), *(unit.name for unit in study.units)],
        about=FeaturesAbout(
            store=study.store.place.within(workspace),
            model=str(study.store.manifest.model.get("path", "")),
            saes=[
                StudiedSae(study.layer(unit), study.of(unit).name, unit.folder, study.of(unit).sae.n_latents)
                for unit in study.coded
            ],
            attributes={m: {a.name: list(a.values) for a in own} for m, own in study.known.attributes.items()},
            runs={unit.name: Run(unit.folder, study.layer(unit), study.of(unit).name, *unit.run) for unit in study.units},
            codes={unit.folder: _counted(study, unit) for unit in study.coded},
            chance=None,
            tokens={},
        ),
        saes=origins,
    )


def as_begun(study: Study, about: FeaturesAbout) -> Study:
    """A study in the runs of latents that it was begun with, whatever the memory is now."""
    cut: dict[str, list[tuple[int, int]]] = {}
    for run in about.runs.values():
        cut.setdefault(run.folder, []).append((run.first, run.last))
    return replace(study, cut={folder: tuple(own) for folder, own in cut.items()})


def codes_unit(unit: Unit) -> str:
    """Name of the unit of a run's SAE: its codes."""
    return f"codes-{unit.folder}"


def write_codes(here: Artefact[FeaturesAbout], study: Study, unit: Unit, started: float) -> UnitCommit:
    """Commit that all codes of a unit's SAE are there.

    Args:
        here: The artefact.
        study: The study.
        unit: Any unit of the SAE.
        started: When they were begun, on `time.monotonic`'s clock.
    """
    return here.write(codes_unit(unit), {}, time.monotonic() - started, 0, {"files": _counted(study, unit)})


def finish(here: Artefact[FeaturesAbout]) -> dict[str, Any]:
    """Put the units' tables together; returns what can be said only now."""
    runs = here.about.runs
    here.finish({name: list(runs) for name in FEATURES_KIND.tables})
    write_table(here.place, "features.parquet", _with_uniqueness(here, here.table("features")))
    remove_folder(here.place / TURNED)  # what is left to do needs them no more
    return here.commit(next(iter(runs))).cost


def _counted(study: Study, unit: Unit) -> dict[Modality, int]:
    files = [modality for part in study.parts(unit) for modality, _ in part]
    return {modality: files.count(modality) for modality in MODALITIES}


def _with_uniqueness(here: Artefact[FeaturesAbout], table: pa.Table) -> pa.Table:
    """The features with the two columns that need the examples of a whole SAE."""
    columns: dict[str, list[Any]] = {"uniqueness": [], "most_alike": []}
    for looked in here.about.saes:
        own = [name for name, run in here.about.runs.items() if run.folder == looked.folder]
        examples = pa.concat_tables([here.part(name, "examples", ["latent", "kind", "sample_id"]) for name in own])
        top = examples.filter(pc.field("kind") == "top").combine_chunks()
        sample = np.unique(top["sample_id"].to_numpy(), return_inverse=True)[1]
        found = unique(top["latent"].to_numpy().astype(np.int64), sample.astype(np.int64), looked.latents)
        columns["uniqueness"] += [None if v != v else v for v in found.uniqueness.tolist()]
        columns["most_alike"] += [None if v < 0 else v for v in found.most_alike.tolist()]
    for name, values in columns.items():
        field = FEATURES.field(name)
        table = table.set_column(FEATURES.get_field_index(name), field, pa.array(values, field.type))
    return table
