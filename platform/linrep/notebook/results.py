"""The results of a stage as a notebook shows them: summary, tables as frames, figures; the store and the features show more."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from linrep.artefact import Artefact
from linrep.contents.stored import StoredContents, open_contents
from linrep.directions import DirectionSet, read_directions
from linrep.errors import StoreError
from linrep.features.artefact import Features
from linrep.notebook.images import SampleImage
from linrep.notebook.markup import lines, plain, text
from linrep.notebook.search import Key, LatentTable, search
from linrep.notebook.sheet import LatentSheet, chosen_rows, distinct, image_example, text_example
from linrep.probe.artefact import DIRECTIONS
from linrep.records import SUMMARY
from linrep.store.read import Store

if TYPE_CHECKING:
    from linrep.notebook.workspace import Workspace

FIGURES = "figures"


@dataclass(frozen=True)
class StoredFigure:
    """A figure that a stage has drawn.

    Attributes:
        name: Its name.
        png: The image, encoded.
    """

    name: str
    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png


@dataclass(frozen=True)
class StageResults(Artefact):
    """A complete artefact that shows its summary."""

    @property
    def summary(self) -> str:
        """What its job said at the end."""
        return summary_of(self)

    @property
    def figures(self) -> list[str]:
        """Names of its figures."""
        return [name.removesuffix(".png") for name in (self.place / FIGURES).names() if name.endswith(".png")]

    def figure(self, name: str) -> StoredFigure:
        """A figure by its name.

        Raises:
            StoreError: There is no such figure.
        """
        if name not in self.figures:
            raise StoreError(f"no figure {name!r:.80} in {self.place}: there are {', '.join(self.figures) or 'none'}")
        return StoredFigure(name, (self.place / FIGURES / f"{name}.png").read_bytes())

    def __repr__(self) -> str:
        return f"{self.kind.what} {self.name}\n{self.summary}"

    def _repr_html_(self) -> str:
        return summary_html(self)


@dataclass(frozen=True)
class ProbeResults(StageResults):
    """Complete probes."""

    @property
    def directions(self) -> DirectionSet:
        """All directions."""
        return read_directions(self.place / DIRECTIONS)

    def __repr__(self) -> str:
        return super().__repr__()


class ImageStore(Store):
    """An activation store with the images of its samples."""

    @cached_property
    def contents(self) -> StoredContents:
        """Its images and texts."""
        return open_contents(self)

    def image(self, sample_id: str) -> SampleImage:
        """The image of a sample, as it lies in the corpus, with what the store knows of it.

        Args:
            sample_id: As in the column of this name.

        Raises:
            StoreError: There is no such sample, or it has no image.
            CorpusError: The corpus does not give the image any more.
        """
        facts = self.contents.facts(sample_id)
        if facts["error"] is not None:
            raise StoreError(f"{sample_id!r:.200} was skipped: {plain(facts['error'])}")
        self.contents.load([sample_id])
        return SampleImage(facts, self.contents.image(sample_id), self.contents.layout(sample_id))

    def _repr_html_(self) -> str:
        return lines(repr(self))


@dataclass(frozen=True)
class LatentFeatures(Features):
    """Complete features whose latents are looked at, searched for and explained.

    Attributes:
        workspace: Where they lie.
    """

    workspace: "Workspace" = field(repr=False)

    @cached_property
    def contents(self) -> StoredContents:
        """Images and texts of the samples."""
        return open_contents(self.workspace.store_of(self), around=self.manifest.config["around"])

    @cached_property
    def table_frame(self) -> pl.DataFrame:
        """One row a latent, see `schemas.features`."""
        return self.frame("features")

    @cached_property
    def labels_frame(self) -> pl.DataFrame:
        """One row a latent, modality and attribute."""
        return self.frame("labels")

    def key(self, sae: str | None = None, layer: int | None = None) -> tuple[int, str]:
        """Layer and name of an SAE; the first one where none is named.

        Raises:
            StoreError: There is no such SAE, or there are several.
        """
        own = self.saes[0] if sae is None and layer is None else self.sae(sae or self.saes[0].name, layer)
        return own.layer, own.name

    def sheet(
        self,
        latent: int,
        sae: str | None = None,
        layer: int | None = None,
        images: int = 12,
        texts: int = 8,
        across: bool = False,
    ) -> LatentSheet:
        """What a latent does: the images and texts on which it fires most, with where in them.

        The store holds a draw of each sample's tokens, so heat maps show the patches that were drawn.

        Args:
            latent: Its number.
            sae: The SAE; the first one where none is named.
            layer: Its layer, where several layers have an SAE of this name.
            images: How many images, at most.
            texts: How many texts, at most.
            across: Samples across the whole range of activations in the place of the strongest.

        Raises:
            StoreError: There is no such latent, or no such SAE.
        """
        of_layer, name = self.key(sae, layer)
        rows = self.table_frame.filter(pl.col("latent") == latent, pl.col("sae") == name, pl.col("layer") == of_layer)
        if not len(rows):
            raise StoreError(
                f"no latent {latent} in {name}, layer {of_layer}: it has {self.sae(name, of_layer).latents:,} latents"
            )
        facts, examples = rows.row(0, named=True), self.examples(name, latent, latent + 1, of_layer).to_pylist()
        kind = "quantile" if across else "top"
        of_images = chosen_rows([row for row in examples if row["modality"] == "image"], kind, images)
        of_texts = chosen_rows([row for row in examples if row["modality"] == "text"], kind, len(examples))
        self.contents.load(row["sample_id"] for row in of_images)
        return LatentSheet(
            facts,
            self.explanations.get((of_layer, name, latent)),
            tuple(image_example(self.contents, row, facts["max_image"]) for row in of_images),
            distinct((text_example(self.contents, row) for row in of_texts), texts),
        )

    def search(self, query: str, sae: str | None = None, layer: int | None = None, n: int = 20) -> LatentTable:
        """Latents by labels, explanation and logit-lens words, the best first; see `linrep.notebook.search.search`.

        Args:
            query: One or several words.
            sae: The SAE; the first one where none is named.
            layer: Its layer, where several layers have an SAE of this name.
            n: How many, at most.

        Raises:
            ValueError: The query holds no word.
            StoreError: There is no such SAE.
        """
        of_layer, name = self.key(sae, layer)
        which = pl.col("sae") == name, pl.col("layer") == of_layer
        return search(self.table_frame.filter(*which), self.labels_frame.filter(*which), self.explanations, query, n)

    @cached_property
    def explanations(self) -> dict[Key, str]:
        """What the interpretation that was finished last says of each latent; empty where there is none."""
        found = self.workspace.interpretations_of(self)
        if found is None:
            return {}
        rows = found.table("explanations").to_pylist()
        return {(row["layer"], row["sae"], row["latent"]): row["explanation"] for row in rows if row["explanation"]}

    def __repr__(self) -> str:
        return f"{self.kind.what} {self.name}\n{summary_of(self)}"

    def _repr_html_(self) -> str:
        return summary_html(self)


def summary_of(artefact: Artefact) -> str:
    """What the job of an artefact said at the end."""
    file = artefact.place / SUMMARY
    return file.read_bytes().decode("utf-8", "replace").strip() if file.is_file() else ""


def summary_html(artefact: Artefact) -> str:
    """The same in a notebook, below the artefact's name."""
    return f"<div><b>{text(artefact.kind.what)} {text(artefact.name)}</b>{lines(summary_of(artefact))}</div>"
