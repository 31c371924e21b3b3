"""Interleaved documents: texts in which images stand, in either of the two forms that they have in rows of a file.

A row has a text with `<image>` in the place of each of its images; or, as OBELICS has it, two lists of one length, of texts and
of images, of which one is given at each place.
"""

from typing import Any, NamedTuple

from linrep.corpora.kinds import DocumentFiles
from linrep.sample import IMAGE

BETWEEN = "\n"
"""What is put between the places of two lists."""


class Interleaved(NamedTuple):
    """A document.

    Attributes:
        text: With `<image>` in the place of each image.
        images: What stands in the row for each image: bytes, a path, or a mapping of both.
    """

    text: str | bytes
    images: list[Any]


def interleaved(text: Any, images: Any, source: DocumentFiles) -> Interleaved:
    """The document of a row.

    Args:
        text: What the column of texts holds.
        images: What the column of images holds.
        source: Names the columns, and says how many images a document may show.

    Raises:
        ValueError: Says why the row is none.

    >>> interleaved(["a", None, "b"], [None, "1.jpg", None], DocumentFiles(path="x"))
    Interleaved(text='a\\n<image>\\nb', images=['1.jpg'])
    """
    if text is None:
        raise ValueError(f"no text in column {source.text_column!r}")
    if images is not None and not isinstance(images, list):
        raise ValueError(f"column {source.images_column!r} holds {type(images).__name__}, not a list of images")
    if not isinstance(text, str | bytes | list):
        raise ValueError(f"column {source.text_column!r} holds {type(text).__name__}, not a text or a list of texts")
    found = _lists(text, images or []) if isinstance(text, list) else _places(text, images or [])
    if not found.images:
        raise ValueError("the document shows no image")
    if len(found.images) > source.max_images:
        raise ValueError(f"the document shows more images than max_images ({source.max_images}): {len(found.images)}")
    return found


def _places(text: str | bytes, images: list[Any]) -> Interleaved:
    n = text.count(IMAGE) if isinstance(text, str) else text.count(IMAGE.encode())
    if n != len(images):
        raise ValueError(f"the text has other places than images: {n} and {len(images)}")
    return Interleaved(text, images)


def _lists(texts: list[Any], images: list[Any]) -> Interleaved:
    if len(texts) != len(images):
        raise ValueError(f"the lists of texts and images differ in length: {len(texts)} and {len(images)}")
    parts, shown = [], []
    for place, (text, image) in enumerate(zip(texts, images, strict=True), start=1):
        if _given(text) == _given(image):
            raise ValueError(f"a place of the lists holds {'a text and an image' if _given(text) else 'nothing'}: number {place}")
        if _given(image):
            shown.append(image)
        parts.append(IMAGE if _given(image) else _words(text, place))
    return Interleaved(BETWEEN.join(parts), shown)


def _words(text: Any, place: int) -> str:
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise ValueError(f"a text of the list is not UTF-8: number {place}") from None
    if not isinstance(text, str):
        raise ValueError(f"a text of the list is {type(text).__name__}: number {place}")
    if IMAGE in text:
        raise ValueError(f"a text of the list holds {IMAGE} itself: number {place}")
    return text


def _given(value: Any) -> bool:
    """Files spell what is absent in several ways: null, an empty text, a struct of two nulls."""
    return any(value.values()) if isinstance(value, dict) else value is not None and value not in ("", b"")
