"""The manifest: what a store is, where it came from, and what its statistics say."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from linrep.errors import StoreError
from linrep.places import Place
from linrep.records import find_record, write_record
from linrep.store.layout import MANIFEST, NO_LAYER, TOWER, Folder, StoredSite, View, folder_of
from schemas.activations import VERSION

LAYER_CONVENTION = (
    "layer k is the residual stream entering block k, that is after k blocks: 0 the embeddings with the projected image "
    "merged in, n after the last block and before the final norm"
)

TOWER_WIDTH = "tower_width"
"""Where `Manifest.model` says it: a field of its own would be missing in manifests from before there were patches."""


@dataclass(frozen=True)
class Manifest:
    """What a store is.

    Attributes:
        name: Name of the recipe.
        digest: Names everything that decides the rows: model, corpora, harvest section, schema version.
        model: The model's card as plain values, and the width of the vision tower's patches where they are held.
        layers: Layers held.
        views: Views held.
        dtype: Number format of the vectors.
        width: Dimensions of a vector of the residual stream, and of what attention and MLP add to it.
        corpora: Digest and counts of the index.
        harvest: The recipe's harvest section, with what it leaves to the model named.
        chat_template: Names the model's chat template that made the prompts; empty where the recipe gives them itself.
        n_chunks: Chunks that make the whole store.
        chunk_size: Samples per chunk, at most.
        status: running until every chunk is committed.
        counts: Samples, tokens, skipped and bytes, once complete.
        limits: One record per source, layer and group: the norm above which a token is kept apart, see `linrep.store.limits`.
        statistics: One record per layer and group: n, norms, variance, high-norm tokens; once complete.
        statistics_seal: Seal of the table of sums, once complete.
        created: When the harvest began, UTC.
        finished: When it was complete.
        notes: What a reader must know of the rows, such as prompts without a start token.
        schema_version: Version of the row contracts.
        layer_convention: What a layer's number means.
    """

    name: str
    digest: str
    model: dict[str, Any]
    layers: tuple[int, ...]
    views: tuple[View, ...]
    dtype: Literal["float16", "bfloat16", "float32"]
    width: int
    corpora: dict[str, Any]
    harvest: dict[str, Any]
    n_chunks: int
    chunk_size: int
    chat_template: str = ""
    status: Literal["running", "complete"] = "running"
    counts: dict[str, int] = field(default_factory=dict)
    limits: list[dict[str, Any]] = field(default_factory=list)
    statistics: list[dict[str, Any]] = field(default_factory=list)
    statistics_seal: str = ""
    created: str = ""
    finished: str = ""
    notes: list[str] = field(default_factory=list)
    schema_version: int = VERSION
    layer_convention: str = LAYER_CONVENTION

    @property
    def sites(self) -> tuple[StoredSite, ...]:
        """Sites held, the residual stream first."""
        return ("residual", *self.harvest.get("sites", ()))

    @property
    def places(self) -> tuple[int, ...]:
        """Layers held, and `NO_LAYER` where there is a site without layers."""
        return tuple(dict.fromkeys((NO_LAYER, *self.layers))) if TOWER in self.sites else self.layers

    def sites_at(self, layer: int) -> tuple[StoredSite, ...]:
        """Sites held of a layer: at layer n, which no block begins, there is the residual stream alone."""
        if layer == NO_LAYER:
            return (TOWER,) if TOWER in self.sites else ()
        every: tuple[StoredSite, ...] = tuple(site for site in self.sites if site != TOWER)
        return every if len(every) == 1 or layer < self.model["n_layers"] else every[:1]

    def views_of(self, site: StoredSite) -> tuple[View, ...]:
        """Views held of a site."""
        return tuple(view for view in self.views if (view, site) != ("last", TOWER))

    def width_of(self, site: StoredSite) -> int:
        """Dimensions of a vector of a site."""
        return self.model[TOWER_WIDTH] if site == TOWER else self.width

    def at(self, site: StoredSite) -> "Manifest":
        """The manifest with a site in the place of the residual stream: its layers, views and width."""
        layers = tuple(layer for layer in self.places if site in self.sites_at(layer))
        return replace(self, layers=layers, views=self.views_of(site), width=self.width_of(site))

    def folders(self, layer: int) -> tuple[Folder, ...]:
        """Views of sites that are held of a layer."""
        return tuple(folder_of(view, site) for site in self.sites_at(layer) for view in self.views_of(site))

    @property
    def parts(self) -> frozenset[tuple[int, Folder]]:
        """Layers, each with the views of sites that are held of it."""
        return frozenset((layer, folder) for layer in self.places for folder in self.folders(layer))

    @property
    def chunks_of(self) -> dict[str, range]:
        """Numbers of the chunks of each source; empty where the manifest does not say how many records they have."""
        found: dict[str, range] = {}
        first = 0
        for source, counts in self.corpora.items():
            if isinstance(counts, Mapping):
                n = -(-counts["n_records"] // self.chunk_size)
                found[source] = range(first, first + n)
                first += n
        return found

    def source_of(self, chunk: int) -> str | None:
        """The source that a chunk's samples are of, None where the manifest does not say it."""
        return next((source for source, own in self.chunks_of.items() if chunk in own), None)

    def finish(self, counts: dict[str, int], statistics: list[dict[str, Any]], seal: str) -> "Manifest":
        """The manifest of the complete store."""
        more = {"statistics": statistics, "statistics_seal": seal, "finished": now()}
        return replace(self, status="complete", counts=counts, **more)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_manifest(place: Place, manifest: Manifest) -> None:
    """Write, or replace, a store's manifest."""
    write_record(place / MANIFEST, manifest)


def read_manifest(place: Place) -> Manifest:
    """The manifest of a store.

    Raises:
        StoreError: There is none, it is damaged, or it is of a version that this program cannot read.
    """
    again = "delete it and run jobs/harvest.py with the same recipe again: chunks are kept"
    manifest = find_record(place / MANIFEST, Manifest, again)
    if manifest is None:
        raise StoreError(f"no activation store at {place}: {MANIFEST} is missing")
    return manifest
