"""What a harvest takes from earlier ones and what it computes, in one line."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from linrep.harvest.extend import Extension
from linrep.harvest.take import ChunkWork, Origin, Part
from linrep.store.layout import NO_LAYER, Folder, parse_folder
from linrep.store.manifest import Manifest
from linrep.store.summary import runs_of, size

_MOST = 3
"""Earlier harvests that are named with why they give nothing."""


def extension_line(extension: Extension, works: Sequence[ChunkWork], manifest: Manifest) -> str | None:
    """What is taken, from where, and what is computed, with sizes; why nothing is taken of earlier harvests of the same recipe.

    None where there is nothing to say of either, or nothing to do.

    Args:
        extension: Earlier harvests.
        works: The chunks that are not committed.
        manifest: The harvest's.
    """
    taken, computed = _taken(works, manifest), _computed(works, manifest)
    if not taken:
        whys = [*extension.others.items(), *((one.name, "it holds none of the chunks") for one in extension.earlier)]
        whys = [(name, why) for name, why in whys if name.rpartition("-")[0] == manifest.name]
        if not (whys and works):
            return None
        more = f", and {len(whys) - _MOST:,} more" if len(whys) > _MOST else ""
        reasons = "; ".join(f"{name}: {why}" for name, why in whys[:_MOST])
        return f"nothing is taken from earlier harvests ({reasons}{more}); computed: {computed}"
    return f"taken: {taken}; computed: {computed or 'nothing'}"


def _taken(works: Sequence[ChunkWork], manifest: Manifest) -> str:
    by_harvest: dict[str, list[Origin]] = defaultdict(list)
    for work in works:
        for origin in work.origins:
            by_harvest[origin.harvest].append(origin)
    said = []
    for harvest, origins in by_harvest.items():
        parts = Counter(origin.parts for origin in origins)
        n_bytes = sum(origin.taken.bytes for origin in origins)
        what = "; ".join(f"{_parts(own, manifest)} of {_chunks(n)}" for own, n in parts.items())
        said.append(f"{size(n_bytes)} from {harvest} ({what})")
    return ", ".join(said)


def _computed(works: Sequence[ChunkWork], manifest: Manifest) -> str:
    groups: dict[frozenset[Part], list[ChunkWork]] = defaultdict(list)
    for work in works:
        if work.views:
            parts: frozenset[Part] = frozenset((layer, view) for layer, views in work.views.items() for view in views)
            groups[parts].append(work)
    said = []
    for parts, own in groups.items():
        estimates = [_estimate(work) for work in own]
        known = [estimate for estimate in estimates if estimate is not None]
        about = f", about {size(sum(known))}" if len(known) == len(own) else ""
        samples = sum(work.chunk.n_samples for work in own)
        said.append(f"{_parts(parts, manifest)} of {_chunks(len(own))} ({samples:,} samples{about})")
    return ", ".join(said)


def _estimate(work: ChunkWork) -> float | None:
    """Bytes of what is computed of a chunk, from what its views take at other layers; None where that is not known."""
    sizes: dict[Folder, Counter[int]] = defaultdict(Counter)
    for origin in work.origins:
        for file in origin.files:
            found = parse_folder(file.path)
            if found is not None:
                sizes[found[0]][found[1]] += file.bytes
    views: list[Folder] = [view for views in work.views.values() for view in views]
    if any(view not in sizes for view in views):
        return None
    return sum(sizes[view].total() / len(sizes[view]) for view in views)


def _parts(parts: Iterable[Part], manifest: Manifest) -> str:
    """Layers and views in words: "layers 4, 8", "last at layers 4, 8 and layer 16", "the tower"."""
    by_layer: Mapping[int, set[Folder]] = defaultdict(set)
    for layer, view in parts:
        by_layer[layer].add(view)
    groups: dict[tuple[Folder, ...], list[int]] = defaultdict(list)
    for layer in sorted(by_layer):
        views = tuple(folder for folder in manifest.folders(layer) if folder in by_layer[layer])
        groups[views].append(layer)
    said = []
    for views, layers in groups.items():
        where = f"layer{'s' if len(layers) > 1 else ''} {runs_of(layers)}" if layers != [NO_LAYER] else "the tower"
        said.append(where if views == manifest.folders(layers[0]) else f"{', '.join(views)} at {where}")
    return " and ".join(said)


def _chunks(n: int) -> str:
    return f"{n:,} chunk{'s' if n != 1 else ''}"
