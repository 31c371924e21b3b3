"""The truth of a drawn world's images: what they show, and which pixels the objects cover."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from linrep.contents.stored import Box
from linrep.demo.paint import object_mask
from linrep.demo.scene import Scene
from linrep.errors import CorpusError
from linrep.places import Place


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
