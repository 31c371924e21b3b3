"""The k largest keys of every latent, exactly, whatever the order in which they come.

A key holds all that decides: activation first and then the sample's rank among the hashes (the strongest samples, ties broken
the same everywhere), or the rank first (a fair draw of samples). Keys differ where a sample is offered to a latent once; of equal
ones, which a sample's tokens may have, those that were offered first go first.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64
from scipy import sparse

WAITING = 2**20
"""Keys that wait, of those that may be among the largest, before they are sorted in."""
_LOW = np.uint64(32)
_ALL = np.uint64(2**32 - 1)


def strength_key(value: Float32[np.ndarray, " n"], rank: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Larger for larger activations (above 0), then for smaller ranks."""
    return (_bits(value) << _LOW) | (_ALL - rank.astype(np.uint64))


def draw_key(value: Float32[np.ndarray, " n"], rank: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Larger for smaller ranks; the activation goes along."""
    return ((_ALL - rank.astype(np.uint64)) << _LOW) | _bits(value)


def _bits(value: Float32[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    return np.ascontiguousarray(value).view(np.uint32).astype(np.uint64)  # of numbers above 0 they rise with the number


def of_strength(key: UInt64[np.ndarray, " n"]) -> tuple[Float32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Activation and rank of keys of strength."""
    return (key >> _LOW).astype(np.uint32).view(np.float32), (_ALL - (key & _ALL)).astype(np.int64)


def of_draw(key: UInt64[np.ndarray, " n"]) -> tuple[Float32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Activation and rank of keys of a draw."""
    return (key & _ALL).astype(np.uint32).view(np.float32), (_ALL - (key >> _LOW)).astype(np.int64)


@dataclass(frozen=True)
class Entries:
    """What some latents keep, latent by latent and from the largest key down."""

    latent: Int64[np.ndarray, " n"]
    key: UInt64[np.ndarray, " n"]
    position: Int32[np.ndarray, " n"]


class Largest:
    """The k largest keys of each of f latents, and a position that goes with each key; of equal keys those that came first.

    Bytes: 12 f k, and what waits.
    """

    def __init__(self, f: int, k: int) -> None:
        self._keys = np.zeros((f, k), np.uint64)  # falling; 0 is an empty place
        self._positions = np.zeros((f, k), np.int32)
        self._waiting: list[Entries] = []
        self._n_waiting = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Latents, and keys that each keeps."""
        f, k = self._keys.shape
        return f, k

    def offer(self, latent: Int64[np.ndarray, " n"], key: UInt64[np.ndarray, " n"], position: Int32[np.ndarray, " n"]) -> None:
        """Take keys in. What is below a latent's k-th key is passed over at once."""
        may = key > self._keys[latent, -1]
        if may.all():
            may = slice(None)
        entries = Entries(latent[may], key[may], position[may])
        self._waiting.append(entries)
        self._n_waiting += len(entries.key)
        if self._n_waiting > WAITING:
            self._settle()

    def merge(self, other: "Largest") -> None:
        """Take in what another one kept."""
        own = other.entries()
        self.offer(own.latent, own.key, own.position)

    def entries(self) -> Entries:
        """What is kept."""
        self._settle()
        latent, place = np.nonzero(self._keys)
        return Entries(latent, self._keys[latent, place], self._positions[latent, place])

    def _settle(self) -> None:
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        if not waiting:
            return
        f, k = self._keys.shape
        latent, key, position = (np.concatenate([getattr(w, n) for w in waiting]) for n in ("latent", "key", "position"))
        # By latent, from the largest key down: the counting sort leaves the keys of a latent in the order in which they come.
        falling = np.argsort(~key, kind="stable")
        order = np.asarray(sparse.csr_matrix((falling, latent[falling], [0, len(key)]), (1, f)).tocsc().data, np.int64)
        latent, key, position = latent[order], key[order], position[order]
        starts = np.flatnonzero(np.diff(latent, prepend=-1))
        lengths = np.diff(np.append(starts, len(latent)))
        rank = np.arange(len(latent)) - np.repeat(starts, lengths)
        may = rank < k
        there = latent[starts]
        nth = np.repeat(np.arange(len(there)), lengths)[may]
        # What is kept and what has come, side by side: a row for each latent.
        keys, positions = np.zeros((len(there), 2 * k), np.uint64), np.zeros((len(there), 2 * k), np.int32)
        keys[:, :k], positions[:, :k] = self._keys[there], self._positions[there]
        keys[nth, k + rank[may]], positions[nth, k + rank[may]] = key[may], position[may]
        best = np.argsort(~keys, axis=1, kind="stable")[:, :k]
        self._keys[there] = np.take_along_axis(keys, best, 1)
        self._positions[there] = np.take_along_axis(positions, best, 1)

    def __getstate__(self) -> dict[str, np.ndarray]:
        self._settle()
        return {"keys": self._keys, "positions": self._positions}

    def __setstate__(self, state: dict[str, np.ndarray]) -> None:
        # What another process sent may be read-only.
        self._keys, self._positions = state["keys"].copy(), state["positions"].copy()
        self._waiting, self._n_waiting = [], 0
