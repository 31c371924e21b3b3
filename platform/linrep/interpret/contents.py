"""What samples look like: images with places of their patches, windows of text with their tokens; and the truth of scenes."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from PIL import Image

from linrep.demo.paint import object_mask
from linrep.demo.scene import Scene
from linrep.errors import CorpusError
from linrep.interpret.views import Token, View
from linrep.places import Place
from linrep.sample import Sample, Skipped, unit_hash
from linrep.vlm.card import ModelCard
from linrep.vlm.image import decode
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from linrep.vlm.tokens import layout, patch_box

Box = tuple[float, float, float, float]
PART = "\ufffd"
"""How tokenizers decode part of a character."""


@dataclass(frozen=True)
class Window:
    """A stretch of a text.

    Attributes:
        positions: Place of each token in the sequence.
        pieces: What each token stands for, spaces included: together they are the text.
    """

    positions: tuple[int, ...]
    pieces: tuple[str, ...]


@runtime_checkable
class Contents(Protocol):
    """Images and texts of samples by name; several threads may ask at once."""

    def load(self, names: Iterable[str]) -> None:
        """Hold these images, and no others any more."""
        ...

    def image(self, name: str) -> Image.Image:
        """The image of a sample that was loaded."""
        ...

    def boxes(self, name: str, tokens: Iterable[Token], source: tuple[int, int] | None = None) -> list[Box]:
        """Where patches lie in the image, in its pixels: left, top, right, bottom.

        Args:
            name: The sample.
            tokens: Patches; newlines are no place and are left out.
            source: Height and width of the image as it is; None if the model saw it so.
        """
        ...

    def window(self, view: View) -> Window:
        """The tokens around a view's centre; around a place that the sample's name decides where it has none."""
        ...


class StoredContents:
    """The contents of a store's samples.

    Args:
        samples: The store's samples table.
        card: Of the model that the store was harvested from.
        preparer: How the harvest made sequences of texts.
        fetch: Encoded images by name.
        around: Tokens of a window on either side of its centre.
    """

    def __init__(
        self,
        samples: pa.Table,
        card: ModelCard,
        preparer: Preparer,
        fetch: Callable[[Iterable[str]], Mapping[str, bytes]],
        around: int,
    ) -> None:
        self._number = {name: i for i, name in enumerate(samples["sample_id"].to_pylist())}
        self._samples, self._card, self._preparer, self._fetch, self._around = samples, card, preparer, fetch, around
        self._images: dict[str, Image.Image] = {}
        self._windows: dict[tuple[str, int | None], Window] = {}
        self._lock = threading.Lock()

    def load(self, names: Iterable[str]) -> None:
        """Hold these images, and no others any more."""
        wanted = set(names)
        kept = {name: image for name, image in self._images.items() if name in wanted}
        missing = sorted(wanted - kept.keys())
        self._images = kept | {name: decode(data) for name, data in self._fetch(missing).items()} if missing else kept

    def image(self, name: str) -> Image.Image:
        """The image of a sample that was loaded."""
        return self._images[name]

    def boxes(self, name: str, tokens: Iterable[Token], source: tuple[int, int] | None = None) -> list[Box]:
        """As the layout of the image says that the model saw."""
        row = self._number[name]
        seen = layout((self._samples["height"][row].as_py(), self._samples["width"][row].as_py()), self._card)
        return [patch_box(seen, t.tile, t.row, t.col, source) for t in tokens if t.is_patch]

    def window(self, view: View) -> Window:
        """The tokens around a view's centre; around a place that the sample's name decides where it has none."""
        key = view.sample, view.centre
        with self._lock:  # tokenizers may not be asked by two threads at once
            if key not in self._windows:
                if len(self._windows) > 20_000:
                    self._windows.clear()
                self._windows[key] = self._window(*key)
            return self._windows[key]

    def _window(self, name: str, centre: int | None) -> Window:
        text = self._samples["text"][self._number[name]].as_py()
        sample = Sample(id=name, corpus="text", modality="text", uri="", split="train", text=text)
        prepared = self._preparer(sample)
        if isinstance(prepared, Skipped):
            raise CorpusError(f"the text of {name} cannot be read any more: {prepared.reason}")
        own = np.flatnonzero(prepared.role == Role.TEXT)
        middle = int(own[int(unit_hash(name, "window") * len(own))]) if centre is None else centre
        positions = own[np.abs(own - middle) <= self._around]
        return Window(tuple(positions.tolist()), self._pieces(prepared.input_ids[positions].tolist()))

    def _pieces(self, ids: list[int]) -> tuple[str, ...]:
        """A token's piece is what the text gains by it: decoded alone it would lose its space."""
        return pieces(lambda n: str(self._preparer.tokenizer.decode(ids[:n])), len(ids))


def pieces(decoded: Callable[[int], str], n: int) -> tuple[str, ...]:
    """What a text gains by each of its tokens; a character that takes several tokens is gained by its last one.

    Args:
        decoded: Gives the text of the first tokens, by their number.
        n: How many there are.
    """
    found, before = [], ""
    for i in range(1, n + 1):
        after = decoded(i)
        if after.endswith(PART) and i < n:
            found.append("")
            continue
        same = next((k for k, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
        found.append(after[same:])
        before = after
    return tuple(found)


class Scenes:
    """The truth of a drawn world's images.

    Args:
        rows: Lines of scenes.jsonl.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = {str(row["id"]): row for row in rows}
        self._mask = lru_cache(maxsize=4096)(self._paint)

    @classmethod
    def read(cls, file: Place) -> "Scenes":
        """The scenes of a file.

        Raises:
            CorpusError: It is missing, or no such file.
        """
        if not file.is_file():
            raise CorpusError(f"interpret.scenes: no file at {file}")
        try:
            rows = [json.loads(line) for line in file.read_bytes().splitlines()]
            return cls(row for row in rows if Scene.from_row(row))
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"interpret.scenes: {file} holds no scenes: {type(error).__name__} {error}") from None

    def attributes(self, name: str) -> dict[str, str]:
        """What an image shows, in words; nothing of a sample that is no scene."""
        row = self._rows.get(_scene(name), {})
        return {key: value for key, value in row.items() if isinstance(value, str)}

    def size(self, name: str) -> tuple[int, int] | None:
        """Height and width of the image in pixels."""
        row = self._rows.get(_scene(name))
        return None if row is None else (int(row["height"]), int(row["width"]))

    def shares(self, name: str, boxes: Iterable[Box]) -> list[float]:
        """What share of each box the objects cover; 0 everywhere in a sample that is no scene."""
        corners = np.array(list(boxes), float).reshape(-1, 4)
        if _scene(name) not in self._rows or not len(corners):
            return [0.0] * len(corners)
        return _covered(self._mask(_scene(name)), corners).tolist()

    def _paint(self, name: str) -> Bool[np.ndarray, "h w"]:
        scene = Scene.from_row(dict(self._rows[name]))
        return np.logical_or.reduce([object_mask(scene, i) for i in range(len(scene.things))])


def _scene(name: str) -> str:
    """A sample's name ends with that of its file, which is the scene's."""
    return name.rsplit("/", 1)[-1].partition(".")[0]


def _covered(mask: Bool[np.ndarray, "h w"], boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Share of each box that the mask covers; pixels on the border count in part, an empty box is not covered."""
    # Sums from the corner on; between whole pixels they are linear in either direction, so interpolation is exact.
    sums = np.pad(mask.astype(float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def upto(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        i, j = np.minimum(y.astype(int), mask.shape[0] - 1), np.minimum(x.astype(int), mask.shape[1] - 1)
        v, u = y - i, x - j
        near = (1 - u) * sums[i, j] + u * sums[i, j + 1]
        return (1 - v) * near + v * ((1 - u) * sums[i + 1, j] + u * sums[i + 1, j + 1])

    left, top, right, bottom = boxes.T
    covered = upto(bottom, right) - upto(top, right) - upto(bottom, left) + upto(top, left)
    area = (right - left) * (bottom - top)
    return np.divide(covered, area, out=np.zeros(len(boxes)), where=area > 0).clip(0, 1)
