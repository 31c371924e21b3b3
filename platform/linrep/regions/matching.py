"""Which annotated image each image of a harvest is, by its name; what fits several, or none, has no regions and is counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linrep.regions.annotated import AnnotatedImage
from linrep.sample import IMAGE_ENDINGS

UNKNOWN = "no annotation has its name"
SEVERAL = "several annotated images have its name"
SHARED = "several images have the name of one annotation"
OTHER_SIZE = "of other proportions than the annotated image"
NO_SIZE = "squashed, and the annotation does not say the image's size"


@dataclass(frozen=True)
class Window:
    """The part of an annotated image that an image of the harvest shows: left, top, right, bottom in the annotations' pixels.

    Attributes:
        size: Height and width of the annotated image.
        box: The part.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Matched:
    """What became of names.

    Attributes:
        found: The annotated image of each sample that has one, as its number, by the sample's number.
        why_not: Of the others the reason.
    """

    found: Mapping[int, int]
    why_not: Mapping[int, str]


def match(annotated: Sequence[AnnotatedImage], names: Mapping[int, Sequence[str]]) -> Matched:
    """The annotated image of each sample: the one whose name ends most like one of the sample's.

    Args:
        annotated: All annotated images.
        names: Names of the samples by their numbers: the image's path first, then the sample's id.
    """
    by_end: dict[str, int | None] = {}
    for i, one in enumerate(annotated):
        for end in ends(one.name):
            by_end[end] = i if by_end.get(end, i) == i else None
    whole = {ends(one.name)[0]: i for i, one in enumerate(annotated)}  # a name that is the end of another's is no doubt
    found: dict[int, int] = {}
    why_not: dict[int, str] = {}
    for sample, own in names.items():
        fits = [whole.get(end, by_end[end]) for name in own if (end := next((e for e in ends(name) if e in by_end), None))]
        known = [i for i in fits if i is not None]
        if known:
            found[sample] = known[0]
        else:
            why_not[sample] = SEVERAL if fits else UNKNOWN
    paths: dict[int, set[str]] = {}
    for sample, i in found.items():
        paths.setdefault(i, set()).add(ends(names[sample][0])[0])
    shared = [sample for sample, i in found.items() if len(paths[i]) > 1]
    why_not |= dict.fromkeys(shared, SHARED)
    return Matched({sample: i for sample, i in found.items() if sample not in why_not}, why_not)


def ends(name: str) -> list[str]:
    """A name and its ends, folder by folder, without the ending of an image's file.

    >>> ends("train/cats/9.jpg")
    ['train/cats/9', 'cats/9', '9']
    """
    ending = next((e for e in IMAGE_ENDINGS if name.lower().endswith(e)), "")
    parts = name.removesuffix(name[len(name) - len(ending) :] if ending else "").strip("/").split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def window(image: tuple[int, int], annotated: tuple[int, int] | None, squashed: bool, resized: str | None) -> Window | str:
    """The part of the annotated image that an image shows, or why that cannot be said.

    Args:
        image: Height and width of the image as the harvest has it.
        annotated: Those of the annotated image, where they are known.
        squashed: Whether the harvest squashed it to one size, which says nothing of its own.
        resized: What the recipe says of images of other proportions: squashed or cropped.
    """
    if annotated is None:
        return NO_SIZE if squashed else Window(image, (0.0, 0.0, float(image[1]), float(image[0])))
    (h, w), (height, width) = image, annotated
    whole = Window(annotated, (0.0, 0.0, float(width), float(height)))
    # One that was resized has its proportions but for whole pixels.
    alike = min(abs(h - height * w / width), abs(w - width * h / height)) <= 1
    if squashed or alike or resized == "squashed":
        return whole
    if resized is None:
        return OTHER_SIZE
    scale = max(w / width, h / height)
    left, top = (width - w / scale) / 2, (height - h / scale) / 2
    return Window(annotated, (left, top, width - left, height - top))
