"""The features on disk, for who reads them: tables, examples and codes of a complete artefact, and its manifest.

features/<name>-<digest>/
  manifest.json                                          what was looked into: harvest, dictionaries, config
  codes/dictionary-00/image/part-000012.parquet          active latents of the tokens of chunk 12, see `linrep.features.codes`
  turned/dictionary-00/image-part-000012/*               the same latent by latent, until complete: `linrep.features.columns`
  units/dictionary-00-0000000/examples.parquet           examples of the latents from 0 on; features, labels beside it
  commits/dictionary-00-0000000.json                     written last: the unit counts
  features.parquet, labels.parquet                       all units together, once complete; examples stay where they are
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from linrep.errors import StoreError
from linrep.places import Place, place
from linrep.records import find_record, inside, only_artefact, repair_of_unit, repair_of_whole, write_record
from linrep.store.layout import MANIFEST, Modality
from linrep.store.tables import read_table
from schemas.features import FEATURE_EXAMPLES, VERSION

MEND = "delete it and run jobs/features.py with the same recipe again: what is committed is kept"
"""What to do about a damaged manifest."""
_CODES = re.compile(r"part-[0-9]{6,}\.parquet")


@dataclass(frozen=True)
class FeaturesManifest:
    """What was looked into.

    Attributes:
        name: Name of the recipe.
        digest: Names everything that decides a number.
        parents: Digests of the harvest, of dictionaries, of attributes and embeddings.
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        model: The model's folder or hub name, of the harvest.
        config: The recipe's features section.
        dictionaries: The dictionaries, controls after their own: layer, name as the tables call it, folder of codes, latents.
        attributes: Attributes by modality, with their values.
        units: By name: dictionary, layer, first latent and the one after the last.
        codes: Files of codes, by coder and modality.
        saes: SAEs that were given: what each says that it is of, and what was insisted on against it.
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
    saes: list[dict[str, Any]] = field(default_factory=list)
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
        return read_table(self.place, f"{name}.parquet", repair=repair_of_whole(self.place))

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
            read_table(self._inside(f"units/{name}"), "examples.parquet", repair=repair_of_unit(self.place, name))
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
        return len(self._codes(coder, modality)) == self.manifest.codes[coder][modality]

    def _codes(self, coder: str, modality: Modality) -> list[Place]:
        folder = self._inside(f"codes/{coder}/{modality}")
        return [folder / name for name in folder.names() if _CODES.fullmatch(name)]

    def _inside(self, path: str) -> Place:
        return inside(self.place, path, self.place / MANIFEST, MEND)


def open_features(where: str | Place) -> Features:
    """The results in a folder; a workspace that holds just one will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    here = only_artefact(place(where), "features", "features results")
    manifest = read_features_manifest(here)
    if manifest is None:
        raise StoreError(f"no features results at {here}: {MANIFEST} is missing")
    if manifest.status != "complete":
        raise StoreError(f"the features results at {here} are not complete: run jobs/features.py with the same recipe again")
    return Features(here, manifest)


def read_features_manifest(here: Place) -> FeaturesManifest | None:
    """The manifest in a folder, None where there is none.

    Raises:
        StoreError: It is damaged, or of a version that this program cannot read.
    """
    return find_record(here / MANIFEST, FeaturesManifest, MEND)


def write_features_manifest(here: Place, manifest: FeaturesManifest) -> None:
    """Write, or replace, the manifest."""
    write_record(here / MANIFEST, manifest)
