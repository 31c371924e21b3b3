"""Annotations as PNGs: one for each image whose values are categories, or a folder of PNGs for each category."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from jaxtyping import Int64
from PIL import Image

from linrep.corpora.classes import read_names
from linrep.errors import CorpusError, LinrepError
from linrep.places import Place, place
from linrep.regions.annotated import Annotations, Painted, Region
from linrep.regions.config import Masks
from linrep.regions.shapes import Mask

ENDING = ".png"
AT_ONCE = 16
"""PNGs whose sizes are read at a time: of an object store each takes a while."""


def read_masks(folder: Place, config: Masks) -> Annotations:
    """The PNGs of a folder, each of which holds all regions of its image.

    Raises:
        CorpusError: The folder holds none, one cannot be read, or the file of names cannot.
    """
    names = {} if config.names is None else _values(read_names(place(config.names)), config.names)
    files = _pngs(folder)

    def painted(name: str) -> Painted:
        file = files[name]
        return Painted(name, _size_of(file), {None: file}, names, config.background, config.ignored)

    return Annotations(_all(painted, files), Counter())


def read_class_masks(folder: Place) -> Annotations:
    """The PNGs of a folder of categories' folders.

    Raises:
        CorpusError: The folder holds none, one cannot be read, or two of one image differ in size.
    """
    by_image: dict[str, dict[str | None, Place]] = {}
    for path, file in _pngs(folder).items():
        category, slash, name = path.partition("/")
        if slash:
            by_image.setdefault(name, {})[category] = file
    if not by_image:
        raise CorpusError(f"regions.source.path: {folder} holds no folders of PNGs: each category should have one")

    def painted(name: str) -> Painted:
        sizes = {_size_of(file) for file in by_image[name].values()}
        if len(sizes) > 1:
            raise CorpusError(f"regions.source.path: the masks of {name} in {folder} are of {len(sizes)} sizes")
        return Painted(name, sizes.pop(), by_image[name])

    return Annotations(_all(painted, by_image), Counter())


def _all(painted: Callable[[str], Painted], names: Mapping[str, object]) -> list[Painted]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(painted, sorted(names)))


def _pngs(folder: Place) -> dict[str, Place]:
    """The PNGs below a folder, by their paths without the ending."""
    if not folder.is_folder():
        raise CorpusError(f"regions.source.path: no folder at {folder}")
    found = {path[: -len(ENDING)]: folder / path for path, _ in folder.walk() if path.lower().endswith(ENDING)}
    if not found:
        raise CorpusError(f"regions.source.path: {folder} holds no PNG")
    return found


def _values(names: Mapping[str, str], file: str) -> dict[int, str]:
    wrong = [value for value in names if not value.strip().isdecimal()]
    if wrong:
        raise CorpusError(f"regions.source.names: {file} names {wrong[0]!r:.60}, which is no value of a pixel")
    return {int(value): name for value, name in names.items()}


def _size_of(file: Place) -> tuple[int, int]:
    with _opened(file) as image:
        return image.height, image.width


@contextmanager
def _opened(file: Place) -> Iterator[Image.Image]:
    """A PNG, for the length of the block.

    Raises:
        CorpusError: It is none, or damaged.
    """
    try:
        with file.open() as stream, Image.open(stream, formats=("PNG",)) as image:
            yield image
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, LinrepError) or file.may_pass(error):
            raise
        raise CorpusError(f"regions.source.path: {file} is no PNG that can be read: {error}") from None


def _pixels(file: Place, size: tuple[int, int]) -> Int64[np.ndarray, "h w"]:
    """Values of a PNG: palette numbers or grey values."""
    with _opened(file) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            raise CorpusError(
                f"regions.source.path: {file} is in colours ({image.mode}): a mask has one value a pixel, grey or of a palette"
            )
        values = np.asarray(image).astype(np.int64)
    if values.shape != size:
        raise CorpusError(f"regions.source.path: {file} was of {size[0]} x {size[1]} pixels, now of {values.shape}")
    return values


def regions_of(image: Painted) -> list[Region]:
    """The regions in an image's PNGs, one for each category that it shows.

    Raises:
        CorpusError: A PNG cannot be read, or is of another size.
    """
    found = []
    for category, file in image.files.items():
        pixels = _pixels(file, image.size)
        if category is not None:
            found += [Region(category, Mask(pixels > 0))] if (pixels > 0).any() else []
            continue
        for value in np.unique(pixels).tolist():
            if value not in image.background:
                name = None if value in image.ignored else image.names.get(value, str(value))
                found.append(Region(name, Mask(pixels == value)))
    return found
