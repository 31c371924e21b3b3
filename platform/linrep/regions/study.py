"""What a regions job will do: which chunks have images, what they are annotated with, and whose regions the control deals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash

from linrep.config import digest
from linrep.errors import CorpusError, RecipeError
from linrep.places import Place, place
from linrep.regions.annotated import AnnotatedImage, Annotations
from linrep.regions.coco import read_coco
from linrep.regions.config import Coco, Masks, RegionsConfig
from linrep.regions.masks import read_class_masks, read_masks
from linrep.regions.matching import Matched, Window, match, window
from linrep.regions.unit import Annotated, ImageTask
from linrep.sample import unit_hash
from linrep.store.read import Store
from linrep.store.samples import SPLITS, read_samples

BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class RegionsStudy:
    """What is to be labelled.

    Attributes:
        store: The harvest.
        config: The section.
        source: Where the annotations lie, demo:// resolved.
        digest: Of the annotations.
    """

    store: Store
    config: RegionsConfig
    source: Place
    digest: str

    @cached_property
    def chunks(self) -> dict[str, int]:
        """Chunks with images, by the names of their units."""
        images = read_samples(self.store.samples()).of("image")
        first = self.store.first_sample
        ends = [*list(first.values())[1:], len(images)]
        return {f"part-{chunk:06d}": chunk for (chunk, a), b in zip(first.items(), ends, strict=True) if images[a:b].any()}

    @cached_property
    def n_images(self) -> int:
        """Images of the harvest."""
        return int(read_samples(self.store.samples()).of("image").sum())

    @cached_property
    def requests(self) -> "Requests":
        """What the units are asked; the annotations are read the first time.

        Raises:
            CorpusError: They cannot be read, or none is of an image of the harvest.
        """
        return _requests(self, self._read())

    def _read(self) -> Annotations:
        match self.config.source:
            case Coco():
                return read_coco(self.source, self.config.source)
            case Masks():
                return read_masks(self.source, self.config.source)
            case _:
                return read_class_masks(self.source)


@dataclass(frozen=True)
class Requests:
    """What the units are asked.

    Attributes:
        tasks: Images of each chunk.
        unmatched: What annotations call images that the harvest does not have.
        left_out: Annotations that are no region, by reason.
    """

    tasks: Mapping[int, Sequence[ImageTask]]
    unmatched: Sequence[str]
    left_out: Counter[str]


def plan_study(store: Store, config: RegionsConfig, source: Place) -> RegionsStudy:
    """Work out a study; of the annotations only a digest is taken.

    Args:
        store: The harvest, complete.
        config: The section.
        source: Where the annotations lie.

    Raises:
        RecipeError: The harvest is not complete or has no images, or it squashed images that were cropped before.
        CorpusError: There are no annotations there.
    """
    if not store.complete or store.manifest.status != "complete":
        raise RecipeError(f"regions: the harvest {store.place} is not complete: run jobs/harvest.py with its recipe again")
    if config.resized == "cropped" and store.manifest.harvest.get("image_size") is not None:
        raise RecipeError(
            "regions.resized: this harvest squashed its images (harvest.image_size), and the store does not say what size they "
            "had before: where they were cropped cannot be known"
        )
    study = RegionsStudy(store, config, source, _digest_of(source, config))
    if not study.chunks:
        raise RecipeError(f"regions: {store.place} holds no images")
    return study


def _digest_of(source: Place, config: RegionsConfig) -> str:
    """Of a file by its bytes, of a folder by the names and sizes of its PNGs, as an index of images has it."""
    if isinstance(config.source, Coco):
        if not source.is_file():
            raise CorpusError(f"regions.source.path: no file at {source}")
        found = xxhash.xxh3_64()
        with source.open() as stream:
            while block := stream.read(BLOCK_BYTES):
                found.update(block)
        return digest(found.hexdigest())
    if not source.is_folder():
        raise CorpusError(f"regions.source.path: no folder at {source}")
    names = config.source.names if isinstance(config.source, Masks) else None
    said = None if names is None else xxhash.xxh3_64_hexdigest(_bytes_of(names))
    return digest(sorted(source.walk()), said)


def _bytes_of(names: str) -> bytes:
    file = place(names)
    if not file.is_file():
        raise CorpusError(f"regions.source.names: no file at {file}")
    return file.read_bytes()


def _requests(study: RegionsStudy, annotations: Annotations) -> Requests:
    table = study.store.samples()
    samples = read_samples(table)
    images = np.flatnonzero(samples.of("image")).tolist()
    names = {i: [name for name in (samples.image_path[i], samples.ids[i].partition("/")[2]) if name] for i in images}
    matched = match(annotations.images, names)
    sizes = dict(zip(images, _sizes(table, images), strict=True))
    squashed = study.store.manifest.harvest.get("image_size") is not None
    own: dict[int, Annotated] = {}
    why_not = dict(matched.why_not)
    for i, number in matched.found.items():
        one = annotations.images[number]
        part = window(sizes[i], one.size, squashed, study.config.resized)
        if isinstance(part, Window):
            own[i] = Annotated(one, part)
        else:
            why_not[i] = part
    if not own:
        raise CorpusError(f"regions: none of {len(annotations.images):,} annotated images in {study.source} {_nothing(why_not)}")
    dealt = deal({i: samples.ids[i] for i in own}, samples.split, study.config.seed)
    tasks = [ImageTask(samples.ids[i], own.get(i), why_not.get(i), own.get(dealt.get(i, -1))) for i in images]
    first = study.store.first_sample
    starts = np.array(list(first.values()))
    by_chunk: dict[int, list[ImageTask]] = {chunk: [] for chunk in study.chunks.values()}
    for i, task in zip(images, tasks, strict=True):
        by_chunk[list(first)[int(np.searchsorted(starts, i, side="right")) - 1]].append(task)
    return Requests(by_chunk, _unmatched(annotations.images, matched), annotations.left_out)


def _nothing(why_not: Mapping[int, str]) -> str:
    reasons = ", ".join(f"{n:,}: {why}" for why, n in Counter(why_not.values()).most_common())
    return f"is an image of the harvest ({reasons}): see regions.source.match and regions.resized"


def _sizes(table: Any, images: Sequence[int]) -> list[tuple[int, int]]:
    heights, widths = (table[name].to_pylist() for name in ("height", "width"))
    return [(heights[i], widths[i]) for i in images]


def _unmatched(images: Sequence[AnnotatedImage], matched: Matched) -> list[str]:
    found = set(matched.found.values())
    return [one.name for i, one in enumerate(images) if i not in found]


def deal(names: Mapping[int, str], split: Sequence[int] | np.ndarray, seed: int) -> dict[int, int]:
    """For each image another one of its split: each is dealt to one, by a hash of the names, and nobody gets their own.

    Args:
        names: Of the images, by their numbers; a name's hash gives its place in a circle, and each gets the next one's.
        split: Split of each sample.
        seed: Of the hash.
    """
    found: dict[int, int] = {}
    for part in range(len(SPLITS)):
        circle = sorted((i for i in names if split[i] == part), key=lambda i: unit_hash(names[i], f"{seed}/regions"))
        if len(circle) > 1:
            found |= dict(zip(circle, [*circle[1:], circle[0]], strict=True))
    return found
