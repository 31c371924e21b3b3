"""Rows of a store as blocks of vectors with the numbers of their samples, a file at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from linrep.store.commit import WrittenFile
from linrep.store.layout import Modality, View
from linrep.store.read import Store
from linrep.store.selection import as_array, as_tensor, raw_kind

BATCH_BYTES = 2**25


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        x: The vectors, in the store's number format.
        sample: Which sample each row is of, as its number in the store.
        columns: Further columns that were asked for; -1 where a number is missing.
    """

    x: Shaped[Tensor, "n d"]
    sample: Int64[np.ndarray, " n"]
    columns: dict[str, Shaped[np.ndarray, " n"]] = field(default_factory=dict)

    def of(self, chosen: Bool[np.ndarray, " n"]) -> "Block":
        """Some of the rows."""
        if chosen.all():
            return self
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return Block(self.x[torch.from_numpy(chosen)], self.sample[chosen], columns)


def files_of(store: Store, view: View, layer: int, modality: Modality, n_parts: int) -> list[tuple[WrittenFile, ...]]:
    """The files of a selection in runs of neighbours, at most `n_parts`, of about equal numbers of rows."""
    files = store.select(view, layer, modality).files
    total, parts, done = sum(file.rows for file in files), [[] for _ in range(n_parts)], 0
    for file in files:
        parts[min(n_parts - 1, done * n_parts // max(total, 1))].append(file)
        done += file.rows
    return [tuple(part) for part in parts if part]


def blocks(
    store: Store, files: Sequence[WrittenFile], view: View, wanted: Bool[np.ndarray, " s"], columns: Sequence[str] = ()
) -> Iterator[Block]:
    """The rows of some samples in some files, in their order, never more than a piece at a time.

    Single tokens that are not the sample's own (start, prompt, template), those of high norm and the learned vectors that end a
    row of patches are left out, and so is a row that the store's number format could not hold.

    Args:
        store: The store.
        files: Files of one view, layer and modality.
        view: Their view.
        wanted: Which samples' rows to give.
        columns: Further columns of numbers to give.
    """
    first = store.first_sample
    names = ["sample_id", "vector", *columns] + (["is_special", "is_newline"] if view == "tokens" else [])
    manifest = store.manifest
    rows = max(1, BATCH_BYTES // (raw_kind(manifest.dtype).itemsize * manifest.width))
    for file in files:
        chunk = file.chunk
        ids = store.samples_of(chunk, ["sample_id"])["sample_id"].combine_chunks()
        for batch in store.reading((file,)).batches(names, rows):
            # Ids repeat row after row and stand in the order of the samples; looked up among the chunk's own they are few.
            found_at = pc.call_function("index_in", [_plain(batch["sample_id"])], pc.SetLookupOptions(value_set=ids))
            sample = first[chunk] + found_at.to_numpy(zero_copy_only=False).astype(np.int64)
            more = {name: pc.fill_null(batch[name], -1).to_numpy(zero_copy_only=False) for name in columns}
            block = Block(_vectors(batch["vector"], manifest.width, manifest.dtype), sample, more)
            keep = wanted[sample]
            for column in ("is_special", "is_newline"):
                if column in names:
                    keep = keep & ~pc.fill_null(batch[column], False).to_numpy(zero_copy_only=False)
            if keep.any():
                block = block.of(keep)
                finite = block.x.isfinite().all(dim=1).numpy()
                yield block.of(finite)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def _vectors(column: pa.FixedSizeBinaryArray, width: int, dtype: str) -> Shaped[Tensor, "n d"]:
    # The buffer is read-only, and torch has no such tensors.
    return as_tensor(as_array(column, width, raw_kind(dtype)).copy(), dtype)
