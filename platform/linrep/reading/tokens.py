"""What the positions of a sequence are: patches, newlines, text and template, from a prepared sample or from rows of a store."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int16, Int32, UInt8

from linrep.store.layout import Modality
from linrep.vlm.card import ModelCard
from linrep.vlm.families import layout
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.tokens import patch_box

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tokens:
    """Some positions of a sequence, in order.

    Attributes:
        position: Place in the sequence.
        token_id: Token there; of images the placeholder's.
        role: A `Role` each.
        tile: 0 the base view, 1.. the crops; -1 where there is no patch.
        row: Row of the patch likewise.
        col: Column likewise.
    """

    position: Int32[np.ndarray, " t"]
    token_id: Int32[np.ndarray, " t"]
    role: UInt8[np.ndarray, " t"]
    tile: Int16[np.ndarray, " t"]
    row: Int16[np.ndarray, " t"]
    col: Int16[np.ndarray, " t"]

    def __len__(self) -> int:
        return len(self.position)

    @property
    def of_image(self) -> Bool[np.ndarray, " t"]:
        """Patches and newlines."""
        return self.role >= int(Role.IMAGE)

    @property
    def of_text(self) -> Bool[np.ndarray, " t"]:
        """The sample's own text, without prompt and template."""
        return self.role == int(Role.TEXT)

    @classmethod
    def of(cls, one: Prepared) -> "Tokens":
        """All positions of a sequence."""
        at = np.arange(len(one), dtype=np.int32)
        return cls(at, one.input_ids, one.role, one.tile, one.row, one.col)

    @classmethod
    def stored(cls, rows: pa.Table, modality: Modality) -> "Tokens":
        """Positions that a store's tokens view holds.

        Args:
            rows: Rows of one modality's files.
            modality: Which.
        """
        special, newline = (rows[name].fill_null(False).to_numpy() for name in ("is_special", "is_newline"))
        own = int(Role.IMAGE) if modality == "image" else int(Role.TEXT)
        role = np.where(special, int(Role.TEMPLATE), np.where(newline, int(Role.NEWLINE), own)).astype(np.uint8)
        position, token_id = (rows[name].to_numpy().astype(np.int32) for name in ("position", "token_id"))
        tile, row, col = (rows[name].fill_null(-1).to_numpy().astype(np.int16) for name in ("tile", "row", "col"))
        return cls(position, token_id, role, tile, row, col)

    def boxes(self, seen: tuple[int, int] | None, card: ModelCard) -> list[Box | None]:
        """Where each patch lies: left, top, right and bottom as shares of the image's width and height; None for what is none.

        Args:
            seen: Height and width of the image as the processor saw it; None without an image.
            card: Of the model.
        """
        if seen is None:
            return [None] * len(self)
        plan, (height, width) = layout(seen, card), seen
        found: list[Box | None] = []
        for role, tile, row, col in zip(self.role, self.tile, self.row, self.col, strict=True):
            if role != int(Role.IMAGE):
                found.append(None)
                continue
            left, top, right, bottom = patch_box(plan, int(tile), int(row), int(col))
            found.append((left / width, top / height, right / width, bottom / height))
        return found


def joined(parts: list[Tokens]) -> Tokens:
    """The positions of several, one after the other."""
    return Tokens(*(np.concatenate([getattr(one, name) for one in parts]) for name in Tokens.__dataclass_fields__))
