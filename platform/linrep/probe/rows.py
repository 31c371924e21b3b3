"""The rows of a view and layer, as often as probes ask for them: of the residual stream, or an autoencoder's latents of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from linrep.encoder import Encoder
from linrep.store.blocks import Block, blocks
from linrep.store.commit import WrittenFile
from linrep.store.layout import Modality, View
from linrep.store.read import Store
from schemas.activations import BYTES_PER_VALUE

KEPT_BYTES = 2**29
"""Rows of one modality are kept after the first pass up to this, else read anew by each."""
LATENT_BYTES = 2**26
"""Latents held at once: all of them, of as many rows as this has room for."""


@runtime_checkable
class Rows(Protocol):
    """Gives the rows of some samples, again and again, in one order."""

    @property
    def width(self) -> int:
        """Dimensions of a row."""
        ...

    def blocks(self, modality: Modality, wanted: Bool[np.ndarray, " s"]) -> Iterator[Block]:
        """The rows of a modality, those of some samples."""
        ...


class StreamRows:
    """Rows as the store has them.

    Args:
        store: The store.
        view: Which rows.
        files: Their files, by modality.
        keep: Whether rows stay in memory after the first pass, where they fit.
        columns: Further columns of numbers to give.
    """

    def __init__(
        self,
        store: Store,
        view: View,
        files: Mapping[Modality, Sequence[WrittenFile]],
        keep: bool = True,
        columns: Sequence[str] = (),
    ) -> None:
        self._store, self._files, self._keep, self._columns = store, files, keep, columns
        self._view: View = view
        self._kept: dict[Modality, Block] = {}

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self._store.manifest.width

    def blocks(self, modality: Modality, wanted: Bool[np.ndarray, " s"]) -> Iterator[Block]:
        """The rows of a modality, those of some samples."""
        if not self._keep or self._bytes(modality) > KEPT_BYTES:
            yield from blocks(self._store, self._files[modality], self._view, wanted, self._columns)
            return
        if modality not in self._kept:
            every = np.ones(len(wanted), bool)
            self._kept[modality] = _one(blocks(self._store, self._files[modality], self._view, every, self._columns))
        whole = self._kept[modality]
        if len(whole.sample):
            yield whole.of(wanted[whole.sample])

    def _bytes(self, modality: Modality) -> int:
        manifest = self._store.manifest
        return sum(file.rows for file in self._files[modality]) * manifest.width * BYTES_PER_VALUE[manifest.dtype]


class LatentRows:
    """An autoencoder's latents of the rows.

    Those of a mean over tokens would be latents of a vector that no token has and that the autoencoder never saw; where probes
    ask for means, they get the mean of the tokens' latents.

    Args:
        rows: Rows of the residual stream, single ones.
        encoder: The autoencoder.
        mean: One row a sample: the mean over its rows.
        only: Some latents, in this order; all if None.

    Raises:
        ValueError: The rows are of another width than the autoencoder.
    """

    def __init__(self, rows: Rows, encoder: Encoder, mean: bool, only: Int64[Tensor, " m"] | None = None) -> None:
        if rows.width != encoder.d_model:
            raise ValueError(f"rows of width {rows.width} for an autoencoder of width {encoder.d_model}")
        self._rows, self._encoder, self._mean, self._only = rows, encoder, mean, only

    @property
    def width(self) -> int:
        """How many latents a row has."""
        return self._encoder.n_latents if self._only is None else len(self._only)

    def of(self, latents: Int64[Tensor, " m"]) -> "LatentRows":
        """The same rows with fewer latents."""
        return LatentRows(self._rows, self._encoder, self._mean, latents)

    def blocks(self, modality: Modality, wanted: Bool[np.ndarray, " s"]) -> Iterator[Block]:
        """The rows of a modality, those of some samples."""
        single = self._encoded(modality, wanted)
        return _means(single) if self._mean else single

    def _encoded(self, modality: Modality, wanted: Bool[np.ndarray, " s"]) -> Iterator[Block]:
        step = max(1, LATENT_BYTES // (4 * self._encoder.n_latents))
        for block in self._rows.blocks(modality, wanted):
            for start in range(0, len(block.sample), step):
                z = self._encoder.encode(block.x[start : start + step].float())
                yield Block(z if self._only is None else z[:, self._only], block.sample[start : start + step])


def _means(single: Iterator[Block]) -> Iterator[Block]:
    """The mean over each run of rows of one sample; a run may go on in the next block."""
    sample, total, n = -1, torch.empty(0), 0
    for block in single:
        starts = np.flatnonzero(np.diff(block.sample, prepend=-1))
        samples, counts = block.sample[starts], np.diff(starts, append=len(block.sample))
        run = torch.from_numpy(np.repeat(np.arange(len(starts)), counts))
        sums = block.x.new_zeros(len(starts), block.x.shape[1]).index_add_(0, run, block.x)
        if sample == samples[0]:
            sums[0] += total
            counts[0] += n
        elif sample >= 0:
            yield Block(total[None] / n, np.array([sample]))
        if len(starts) > 1:
            yield Block(sums[:-1] / torch.from_numpy(counts[:-1, None]), samples[:-1])
        sample, total, n = int(samples[-1]), sums[-1], int(counts[-1])
    if sample >= 0:
        yield Block(total[None] / n, np.array([sample]))


def _one(some: Iterator[Block]) -> Block:
    read = list(some)
    if not read:
        return Block(torch.empty(0, 0), np.empty(0, np.int64))
    columns = {name: np.concatenate([block.columns[name] for block in read]) for name in read[0].columns}
    return Block(torch.cat([block.x for block in read]), np.concatenate([block.sample for block in read]), columns)
