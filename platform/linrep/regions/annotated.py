"""Annotations before they meet the images of a harvest: what each annotated image is called, its size, and its regions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from linrep.places import Place
from linrep.regions.shapes import Shape


@dataclass(frozen=True)
class Region:
    """A region of an image.

    Attributes:
        category: Its category; None where nothing is known of it: a crowd, or ignored pixels.
        shape: Where it lies.
    """

    category: str | None
    shape: Shape


@dataclass(frozen=True)
class Listed:
    """An annotated image whose regions stand in a list.

    Attributes:
        name: What its annotations call it.
        size: Its height and width; None where they do not say.
        regions: Its regions.
    """

    name: str
    size: tuple[int, int] | None
    regions: Sequence[Region] = field(repr=False)

    def read(self) -> Sequence[Region]:
        """Its regions."""
        return self.regions


@dataclass(frozen=True)
class Painted:
    """An annotated image whose regions are pixels of PNGs.

    Attributes:
        name: What the PNGs are called, without the ending.
        size: Their height and width.
        files: The PNG of each category; one PNG under None holds several.
        names: Categories of the values of a PNG that holds several.
        background: Values that belong to no region, in one that holds several.
        ignored: Values about which nothing is known, likewise.
    """

    name: str
    size: tuple[int, int]
    files: Mapping[str | None, Place]
    names: Mapping[int, str] = field(default_factory=dict)
    background: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()

    def read(self) -> Sequence[Region]:
        """Its regions.

        Raises:
            CorpusError: A PNG cannot be read, or is of another size.
        """
        from linrep.regions.masks import regions_of

        return regions_of(self)


AnnotatedImage = Listed | Painted


@dataclass(frozen=True)
class Annotations:
    """All annotations.

    Attributes:
        images: The annotated images, in the order of their names.
        left_out: Annotations that are no region, by reason.
    """

    images: Sequence[AnnotatedImage]
    left_out: Counter[str]
