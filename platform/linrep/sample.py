"""The sample record: what every corpus becomes before the model sees it."""

import hashlib
from dataclasses import dataclass
from typing import Literal

Modality = Literal["image", "text", "pair", "document"]
OF_ONE_IMAGE: tuple[Modality, ...] = ("image", "pair")
"""Modalities of samples that have exactly one image, which goes by the name of the sample."""

Split = Literal["train", "val", "test"]

IMAGE = "<image>"
"""What stands in a text in the place of an image, whatever the model calls it."""

IMAGE_FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
}
"""The image formats that are decoded, by their names in Pillow, and the endings of their files. Nothing else is ever decoded."""

IMAGE_ENDINGS = tuple(ending for endings in IMAGE_FORMATS.values() for ending in endings)

LARGEST_IMAGE = 256 << 20
"""Bytes of an encoded image that is read at all: a damaged size, or an endless file, must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, one text, one image with its caption, or a document: a text in which images stand.

    Attributes:
        id: Stable across runs and machines: the corpus and the path or the id within it, never an absolute path.
        corpus: Which section of the recipe it came from: images, text, pairs or documents.
        modality: What it holds.
        uri: Where its image or its container lies, relative to the corpus where that is a folder.
        label: Class number (the rank of the class among the sorted class ids), where there is one.
        class_name: The class in words.
        text: The text or the caption; of a document with `<image>` in the place of each image.
        pair_id: Shared by the samples made from one image-caption pair.
        split: Fixed by a hash of the sample, see `split_of`.
        image: The image's encoded bytes (JPEG, PNG, ...), None for texts and documents.
        images: Those of a document's images, in the order of their places.
    """

    id: str
    corpus: str
    modality: Modality
    uri: str
    split: Split
    label: int | None = None
    class_name: str | None = None
    text: str | None = None
    pair_id: str | None = None
    image: bytes | None = None
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be used, and why."""

    sample: Sample
    reason: str


def unit_hash(key: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on nothing but the two strings, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8], "big") / 2**64


def split_of(key: str, val: float, test: float) -> Split:
    """The split of a sample, from a hash of its key.

    Args:
        key: What must not be divided between splits: for images the file's name, so that an image and its caption
            fall on one side whichever corpus they came through; for texts the sample's id.
        val: Share of the validation split.
        test: Share of the test split.
    """
    u = unit_hash(key, "split")
    return "test" if u < test else "val" if u < test + val else "train"
