"""The truth of a drawn world's images: what they show, and which pixels the objects cover."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from linrep.contents.stored import Box
from linrep.demo.paint import object_masks
from linrep.demo.scene import Scene
from linrep.errors import CorpusError
from linrep.places import Place
from linrep.regions.areas import Area, of_mask


class Scenes:
    """The truth of a drawn world's images.

    Args:
        rows: Lines of scenes.jsonl.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = {str(row["id"]): row for row in rows}
        self._area = lru_cache(maxsize=4096)(self._paint)

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
        return self._area(_scene(name)).shares(corners).tolist()

    def _paint(self, name: str) -> Area:
        return of_mask(np.logical_or.reduce(object_masks(Scene.from_row(dict(self._rows[name])))))


def _scene(name: str) -> str:
    """A sample's name ends with that of its file, which is the scene's."""
    return name.rsplit("/", 1)[-1].partition(".")[0]
