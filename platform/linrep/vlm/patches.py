"""The vision tower's patches of a sample: where each lies, and the image token that it is a part of."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int16, Int64

from linrep.vlm.card import ModelCard
from linrep.vlm.families import family_of, layout
from linrep.vlm.prepared import Prepared
from linrep.vlm.tokens import Layout


@dataclass(frozen=True)
class Patches:
    """The patches of all images of a sample, in the order in which the tower gives them.

    Attributes:
        position: Place in the sequence of the image token that a patch is a part of; -1 where there is none.
        tile: 0 for the base view, 1.. for the crops in reading order.
        row: Row on the tower's own grid, see `Family.tower_places`.
        col: Column likewise.
        image: Which of the sample's images it is of, from 0.
        padding: Whether it shows padding alone, so that the model drops it.
    """

    position: Int64[np.ndarray, " n"]
    tile: Int16[np.ndarray, " n"]
    row: Int16[np.ndarray, " n"]
    col: Int16[np.ndarray, " n"]
    image: Int16[np.ndarray, " n"]
    padding: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.position)


def patches_of(prepared: Prepared, card: ModelCard) -> Patches:
    """The vision tower's patches of a sample; none of a text.

    Args:
        prepared: The sample.
        card: Of the model.
    """
    among = len(prepared.image_sizes) > 1
    images = [_of_layout(layout(size, card, among), card.family, card.vision) for size in prepared.image_sizes]
    position = [np.empty(0, np.int64)]
    for i, (token, *_) in enumerate(images):
        own = np.flatnonzero(prepared.image == i)
        position.append(np.where(token >= 0, own[token], -1))
    number = np.repeat(np.arange(len(images), dtype=np.int16), [len(token) for token, *_ in images])
    places = np.concatenate([np.empty((3, 0), np.int16), *(own for _, own, _ in images)], axis=1)
    padding = np.concatenate([np.empty(0, bool), *(own for *_, own in images)])
    tile, row, col = places
    return Patches(np.concatenate(position), tile, row, col, number, padding)


@lru_cache(maxsize=256)
def _of_layout(
    plan: Layout, model_type: str, vision: Any
) -> tuple[Int64[np.ndarray, " n"], Int16[np.ndarray, "3 n"], Bool[np.ndarray, " n"]]:
    """Token, place and padding of an image's patches; images of one size share them."""
    family = family_of(model_type)
    token, places = family.tower_tokens(plan, vision), family.tower_places(plan, vision)
    return token.reshape(-1).astype(np.int64), places.reshape(3, -1), family.tower_padding(plan, vision).reshape(-1)
