"""The active latents of every token, on disk: encoded once, a file for each chunk and modality.

So an SAE's encoder runs over the store once, however many passes the statistics take; a file is written whole or not at
all, and one that is there is not made again. Within a file rows stand by sample and position. What is held in memory is one
file's codes: a chunk of the store, however many chunks there are.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float32, Int16, Int32, Int64
from torch import Tensor

from linrep.encoder import Encoder, active
from linrep.places import Place
from linrep.store.blocks import Block, blocks
from linrep.store.commit import WrittenFile
from linrep.store.layout import Modality
from linrep.store.read import Store
from linrep.store.tables import read_table, write_table
from schemas.features import FEATURE_CODES

COLUMNS = ("position", "token_id", "tile", "row", "col")


@dataclass(frozen=True)
class ActiveLatents:
    """The active latents of n tokens with s entries, by sample and position.

    Attributes:
        sample: Number of each token's sample, rising.
        position: Place in the sequence.
        token_id: Token there.
        tile: 0 the base view, 1.. the crops; -1 for text.
        row: Row of the patch; -1 for text.
        col: Column likewise.
        offsets: Where each token's entries begin, and their number at the end.
        latents: Latent of each entry, rising within a token.
        values: Its activation, above 0.
    """

    sample: Int64[np.ndarray, " n"]
    position: Int32[np.ndarray, " n"]
    token_id: Int32[np.ndarray, " n"]
    tile: Int16[np.ndarray, " n"]
    row: Int16[np.ndarray, " n"]
    col: Int16[np.ndarray, " n"]
    offsets: Int64[np.ndarray, " n_1"]
    latents: Int32[np.ndarray, " s"]
    values: Float32[np.ndarray, " s"]

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def token(self) -> Int64[np.ndarray, " s"]:
        """The token of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def pieces(self, most: int) -> Iterator["ActiveLatents"]:
        """The same in pieces of whole samples, each of no more entries than that, or of one sample."""
        starts = np.flatnonzero(np.diff(self.sample, prepend=-1))
        ends = np.append(starts[1:], len(self))
        first = 0
        for i, end in enumerate(ends):
            if i + 1 == len(ends) or self.offsets[ends[i + 1]] - self.offsets[first] > most:
                yield self.tokens(first, int(end))
                first = int(end)

    def tokens(self, first: int, last: int) -> "ActiveLatents":
        """A run of tokens."""
        own = slice(first, last)
        entries = slice(int(self.offsets[first]), int(self.offsets[last]))
        return ActiveLatents(
            self.sample[own], self.position[own], self.token_id[own], self.tile[own], self.row[own], self.col[own],
            self.offsets[first : last + 1] - self.offsets[first], self.latents[entries], self.values[entries],
        )  # fmt: skip


def codes_file(folder: str, modality: Modality, file: WrittenFile) -> str:
    """Name, in the artefact, of the codes of a file of the store."""
    found = re.search(r"part-\d+\.parquet$", file.path)
    assert found is not None, file.path
    return f"codes/{folder}/{modality}/{found.group()}"


def encode_file(store: Store, file: WrittenFile, wanted: Bool[np.ndarray, " s"], encoder: Encoder, target: Place) -> int:
    """Write the codes of one file of the store, unless they are there; gives the number of tokens encoded now.

    Args:
        store: The activations.
        file: One file of the tokens view.
        wanted: Samples whose tokens count.
        encoder: The SAE.
        target: Where the codes go.
    """
    if target.is_file():
        return 0
    parts = [_encode(block, encoder) for block in blocks(store, (file,), "tokens", wanted, COLUMNS)]
    coded = _by_sample(together(parts))
    write_table(target.parent, target.name, to_table(coded))
    return len(coded)


def _encode(block: Block, encoder: Encoder) -> ActiveLatents:
    with torch.no_grad():
        found = active(encoder, block.x.float())
    return coded_of(found.row, found.latent, found.value, block)


def coded_of(row: Tensor, latent: Tensor, value: Tensor, block: Block) -> ActiveLatents:
    """Entries of a block's rows, as codes."""
    offsets = np.concatenate([[0], np.bincount(row.cpu().numpy(), minlength=len(block.sample)).cumsum()]).astype(np.int64)
    columns = {name: values.astype(FEATURE_CODES.field(name).type.to_pandas_dtype()) for name, values in block.columns.items()}
    entries = {"latents": latent.cpu().numpy().astype(np.int32), "values": value.float().cpu().numpy()}
    return ActiveLatents(sample=block.sample, **columns, offsets=offsets, **entries)


def together(parts: list[ActiveLatents]) -> ActiveLatents:
    """The tokens of several, one after the other."""
    if not parts:
        nothing = {np.int64: np.zeros(0, np.int64), np.int32: np.zeros(0, np.int32), np.int16: np.zeros(0, np.int16)}
        whole, small = nothing[np.int32], nothing[np.int16]
        offsets = np.zeros(1, np.int64)
        return ActiveLatents(nothing[np.int64], whole, whole, small, small, small, offsets, whole, np.zeros(0, np.float32))
    ends = np.concatenate([[0], np.cumsum([part.offsets[-1] for part in parts])])
    offsets = np.concatenate([[0], *(part.offsets[1:] + end for part, end in zip(parts, ends, strict=False))])
    columns = ("sample", *COLUMNS)
    named = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*columns, "latents", "values")}
    return ActiveLatents(**named, offsets=offsets.astype(np.int64))


def _by_sample(coded: ActiveLatents) -> ActiveLatents:
    order = np.lexsort((coded.position, coded.sample))
    if (np.diff(order) == 1).all():
        return coded
    counts = np.diff(coded.offsets)[order]
    offsets = np.concatenate([[0], counts.cumsum()])
    entries = np.repeat(coded.offsets[:-1][order] - offsets[:-1], counts) + np.arange(offsets[-1])
    named = {name: getattr(coded, name)[order] for name in ("sample", *COLUMNS)}
    return ActiveLatents(**named, offsets=offsets, latents=coded.latents[entries], values=coded.values[entries])


def to_table(coded: ActiveLatents) -> pa.Table:
    """Codes in the `FEATURE_CODES` contract."""
    ends = pa.py_buffer(coded.offsets * 4)
    lists = [
        pa.Array.from_buffers(pa.large_binary(), len(coded), [None, ends, pa.py_buffer(np.ascontiguousarray(values))])
        for values in (coded.latents.astype("<i4"), coded.values.astype("<f4"))
    ]
    return pa.Table.from_arrays([*(pa.array(getattr(coded, n)) for n in ("sample", *COLUMNS)), *lists], schema=FEATURE_CODES)


def read_codes(where: Place) -> ActiveLatents:
    """The codes of one file.

    Raises:
        StoreError: It is missing or damaged.
    """
    table = read_table(where.parent, where.name).combine_chunks()
    columns = {name: table[name].to_numpy() for name in ("sample", *COLUMNS)}
    if not len(table):
        return together([])
    latents, values = (table[name].chunk(0).buffers() for name in ("latents", "values"))
    ends = np.frombuffer(latents[1], np.int64, len(table) + 1) // 4
    n = int(ends[-1])
    return ActiveLatents(**columns, offsets=ends, latents=_numbers(latents[2], "<i4", n), values=_numbers(values[2], "<f4", n))


def _numbers(buffer: pa.Buffer | None, kind: str, n: int) -> np.ndarray:
    return np.frombuffer(buffer, kind, n) if buffer is not None and n else np.zeros(0, kind)
