"""A harvest that extends others: which of its rows earlier harvests of the workspace hold, and what is left to compute.

A row depends on the model, on its sample, on how samples are prepared and drawn, and on the norms that are high in its source. It
does not depend on the layers, views and sources that are kept beside it. So a recipe to which a layer, a view or a source was
added makes a harvest of its own, with the digest that it would have anyway, and takes from earlier ones all that is the same:
whole files, chunk by chunk. A chunk is the same where its source is (the same records, labels and splits) and chunks are cut
alike. What is taken has the bytes that it had. What is computed beside it has those that it would have had then, where the same
machine runs the same micro-batches: another `pool.tokens_per_batch`, or another machine, rounds otherwise, as in a harvest that
is resumed there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from linrep.corpora.config import corpus_of
from linrep.corpora.index import Chunk
from linrep.errors import StoreError
from linrep.harvest.take import ChunkWork, Origin, Part, groups_of
from linrep.places import Place
from linrep.store.layout import GROUPS, LAST_GROUPS, NO_LAYER, Folder, site_group
from linrep.store.limits import Limits, from_records
from linrep.store.manifest import Manifest, read_manifest
from linrep.store.read import Store, read_store

BESIDE = "layers", "views", "sites"
"""Fields of the harvest section that decide which rows there are, and not what is in them."""
OTHERS = {
    "images": ("pair_prompt", "text_prompt", "max_text_tokens"),
    "text": ("image_prompt", "pair_prompt", "image_size"),
    "pairs": ("image_prompt",),
    "documents": ("image_prompt", "pair_prompt"),
}
"""Fields that decide rows of other sources alone."""


@dataclass(frozen=True)
class Earlier:
    """An earlier harvest that holds rows of this one.

    Attributes:
        store: What it holds.
        sources: The sources whose rows are the same.
    """

    store: Store
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of its recipe and digest."""
        return self.store.place.name

    @property
    def precision(self) -> str:
        """Number format that the model ran in."""
        return next(commit.precision for commit in self.store.commits.values())

    @cached_property
    def limits(self) -> dict[str, dict[tuple[int, str], float]]:
        """Norms above which tokens are kept apart, by source."""
        return from_records(self.store.manifest.limits)

    @cached_property
    def chunks_of(self) -> dict[str, range]:
        """Numbers of its chunks, by source."""
        return self.store.manifest.chunks_of

    def parts(self, source: str, wanted: Iterable[Part], limits: Mapping[str, Limits]) -> frozenset[Part]:
        """Which parts of a source it holds as they would be with some limits.

        Args:
            source: A source whose rows are the same.
            wanted: Parts to look for.
            limits: Norms above which tokens of the new harvest are kept apart.
        """
        found, held = set(), parts_of(self.store.manifest, source)
        for layer, folder in wanted:
            groups = groups_of(folder)
            same = _limits_at(self.limits, source, layer, groups) == _limits_at(limits, source, layer, groups)
            if (layer, folder) in held and same:
                found.add((layer, folder))
        return frozenset(found)

    def covers(self, manifest: Manifest) -> int:
        """How many parts of chunks it may have."""
        own = self.store.manifest
        n_chunks = sum(len(self.chunks_of[source]) for source in self.sources)
        return n_chunks * len(own.parts & manifest.parts)


@dataclass(frozen=True)
class Extension:
    """What earlier harvests of the workspace have to do with a harvest.

    Attributes:
        earlier: Those that hold rows of it; of a part that several hold, the first one gives it.
        others: Why the others give nothing, by name.
    """

    earlier: tuple[Earlier, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    def limits(self, manifest: Manifest) -> dict[str, dict[tuple[int, str], float]]:
        """The limits of a manifest, with those that it lacks and earlier harvests have measured on the same samples."""
        found = from_records(manifest.limits)
        for source, layer, groups in _measurements(manifest):
            if not _limits_at(found, source, layer, groups):
                given = (_limits_at(one.limits, source, layer, groups) for one in self.earlier if source in one.sources)
                found.setdefault(source, {}).update(next(filter(None, given), {}))
        return found

    def works(
        self, manifest: Manifest, chunks: Sequence[Chunk], limits: Mapping[str, Limits], without: Iterable[int] = ()
    ) -> list[ChunkWork]:
        """What is taken, and what is computed, of some chunks.

        Args:
            manifest: Of this harvest.
            chunks: Its chunks that are not committed.
            limits: Norms above which its tokens are kept apart.
            without: Numbers of chunks of which nothing is taken.
        """
        own, refused = manifest.chunks_of, set(without)
        held = {
            (one.name, source): one.parts(source, parts_of(manifest, source), limits)
            for one in self.earlier
            for source in one.sources
        }
        found = []
        for chunk in chunks:
            missing, origins = parts_of(manifest, chunk.source), []
            for one in self.earlier if chunk.number not in refused else ():
                parts = held.get((one.name, chunk.source), frozenset()) & missing
                if not parts:
                    continue
                commit = one.store.commits.get(one.chunks_of[chunk.source][chunk.number - own[chunk.source].start])
                if commit is not None:
                    origins.append(Origin(one.name, one.store.place, commit, parts))
                    missing -= parts
            views: dict[int, tuple[Folder, ...]] = {
                layer: tuple(folder for folder in manifest.folders(layer) if (layer, folder) in missing)
                for layer in manifest.places
            }
            found.append(ChunkWork(chunk, {layer: some for layer, some in views.items() if some}, tuple(origins)))
        return found


def find_earlier(place: Place, manifest: Manifest, precision: str | None = None) -> Extension:
    """The earlier harvests beside a harvest, and what they have to do with it. Reads their manifests, and commits of some.

    Args:
        place: The harvest.
        manifest: Its manifest.
        precision: Number format that its chunks ran in so far, or shall run in; None where the machine decides.
    """
    earlier: list[Earlier] = []
    others: dict[str, str] = {}
    for name in place.parent.names():
        if name == place.name or not (place.parent / name).is_folder():
            continue
        try:
            there = read_manifest(place.parent / name)
            sources, why = same_sources(manifest, there)
            store = read_store(place.parent / name, to_mend=True) if sources else None
        except StoreError:
            store, sources, why = None, (), "it cannot be read by this version, or is damaged"
        if store is None:
            others[name] = why
        elif not store.commits:
            others[name] = "nothing is committed there"
        else:
            earlier.append(Earlier(store, sources))
    earlier.sort(key=lambda one: (-one.covers(manifest), one.name))
    if precision is None and earlier:
        precision = earlier[0].precision
    others |= {one.name: f"its model ran in {one.precision}, not {precision}" for one in earlier if one.precision != precision}
    return Extension(tuple(one for one in earlier if one.precision == precision), others)


def same_sources(mine: Manifest, other: Manifest) -> tuple[tuple[str, ...], str]:
    """The sources of which another harvest has rows of this one, and why it has none of the others.

    Args:
        mine: This harvest's manifest.
        other: The other's.
    """
    if other.model["digest"] != mine.model["digest"]:
        return (), "another model"
    if not mine.parts & other.parts:
        return (), "no layer and view in common"
    same, whys = [], []
    for source in mine.chunks_of:
        if source not in other.chunks_of:
            continue
        fields = (mine.harvest.keys() | other.harvest.keys()) - {*BESIDE, *OTHERS[corpus_of(source)]}
        differ = [name for name in sorted(fields) if mine.harvest.get(name) != other.harvest.get(name)]
        if mine.corpora[source]["digest"] != other.corpora[source]["digest"]:
            whys.append(f"{source} has other records, labels or splits")
        elif differ:
            whys += [_difference(name, mine.harvest, other.harvest) for name in differ]
        else:
            same.append(source)
    return tuple(same), ", ".join(dict.fromkeys(whys)) or "no source in common"


def parts_of(manifest: Manifest, source: str) -> frozenset[Part]:
    """What a harvest holds of a source: no vision tower sees a text."""
    return frozenset(part for part in manifest.parts if part[0] != NO_LAYER or corpus_of(source) != "text")


def unmeasured(manifest: Manifest, limits: Mapping[str, Limits]) -> list[tuple[str, int]]:
    """Corpora and layers of a harvest whose limits are not known yet; none where the recipe looks for none."""
    if manifest.harvest["high_norm"] is None:
        return []
    missing = [
        (source, layer) for source, layer, groups in _measurements(manifest) if not _limits_at(limits, source, layer, groups)
    ]
    return list(dict.fromkeys(missing))


def _difference(name: str, mine: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return f"harvest.{name} is {other.get(name)!r} there and {mine.get(name)!r} here"


def _measurements(manifest: Manifest) -> Iterable[tuple[str, int, tuple[str, ...]]]:
    """What is measured at once: the tokens of a source at a layer, and its last positions where they are kept."""
    for source in manifest.chunks_of:
        for layer in sorted({layer for layer, _ in parts_of(manifest, source)}):
            for site in manifest.sites_at(layer):
                yield source, layer, tuple(site_group(group, site) for group in GROUPS)
                if "last" in manifest.views_of(site):
                    yield source, layer, tuple(site_group(group, site) for group in LAST_GROUPS)


def _limits_at(limits: Mapping[str, Limits], source: str, layer: int, groups: Iterable[str]) -> dict[tuple[int, str], float]:
    own = limits.get(source, {})
    return {(layer, group): own[layer, group] for group in groups if (layer, group) in own}
