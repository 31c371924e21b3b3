"""Codes turned over, latent by latent: a run of latents reads its own entries and no others, however many runs there are.

The codes of a part of the store are turned once, into files of whole samples with about `PIECE` entries, whatever the size of a
chunk. They are scratch: made of the codes, and gone when the artefact is complete. The list of a part's files is written last.

    samples    int64 [m]       numbers of the samples, rising
    ends       int64 [m + 1]   where the tokens of each sample begin, and their number
    position, token_id  int32 [t];  tile, row, col  int16 [t]       of the tokens, by sample and position
    starts     int64 [f + 1]   where the entries of each latent begin, and their number
    entries    [s] of int32 which of the samples, int32 position, float32 activation: by latent, sample and position
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from jaxtyping import Float32, Int16, Int32, Int64
from scipy import sparse

from linrep.errors import StoreError
from linrep.features.codes import Coded, read_codes, together
from linrep.places import Place
from linrep.records import inside, read_record, write_record
from linrep.store.layout import MODALITIES, Modality

PIECE = 2**20
"""Entries of a file, about: whole samples, at least one."""
LIST = "files.json"
_ENTRY = np.dtype([("which", "<i4"), ("position", "<i4"), ("value", "<f4")])
_TOKENS = {"position": "<i4", "token_id": "<i4", "tile": "<i2", "row": "<i2", "col": "<i2"}
_AHEAD = 4096
"""Bytes read beyond what was asked for, at most: a run's entries may be few."""


@dataclass(frozen=True)
class Fired:
    """Where the latents of a run fire: s entries by latent, sample and position, on t tokens of m samples.

    Attributes:
        latent: Numbered from 0 in the run.
        sample: Number of the sample.
        position: Place in the sequence.
        value: Activation, above 0.
        samples: All samples, rising: on some nothing fires.
        tokens: t.
    """

    latent: Int64[np.ndarray, " s"]
    sample: Int64[np.ndarray, " s"]
    position: Int32[np.ndarray, " s"]
    value: Float32[np.ndarray, " s"]
    samples: Int64[np.ndarray, " m"]
    tokens: int


@dataclass(frozen=True)
class Held:
    """The t tokens of m samples, by sample and position.

    Attributes:
        samples: The samples, rising.
        ends: Where the tokens of each begin, and their number at the end.
        position: Place in the sequence.
        token_id: Token there.
        tile: 0 the base view, 1.. the crops; -1 for text.
        row: Row of the patch; -1 for text.
        col: Column likewise.
    """

    samples: Int64[np.ndarray, " m"]
    ends: Int64[np.ndarray, " m_1"]
    position: Int32[np.ndarray, " t"]
    token_id: Int32[np.ndarray, " t"]
    tile: Int16[np.ndarray, " t"]
    row: Int16[np.ndarray, " t"]
    col: Int16[np.ndarray, " t"]


@dataclass(frozen=True)
class Shape:
    """What a file of turned codes holds.

    Attributes:
        name: Its name in the folder of its part.
        modality: Of its tokens.
        first: The first of its samples.
        last: The last.
        samples: How many there are.
        tokens: Tokens of theirs.
        latents: f, of the dictionary.
        entries: Entries.
    """

    name: str
    modality: Modality
    first: int
    last: int
    samples: int
    tokens: int
    latents: int
    entries: int

    @property
    def arrays(self) -> dict[str, tuple[np.dtype, int]]:
        """The arrays of the file, in order: what they hold, and how long they are."""
        tokens = {name: (np.dtype(kind), self.tokens) for name, kind in _TOKENS.items()}
        whole = np.dtype("<i8")
        return {
            "samples": (whole, self.samples), "ends": (whole, self.samples + 1), **tokens,
            "starts": (whole, self.latents + 1), "entries": (_ENTRY, self.entries),
        }  # fmt: skip


@dataclass(frozen=True)
class Shapes:
    """The files of a part."""

    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Columns:
    """A file of turned codes.

    Attributes:
        file: Where it lies.
        shape: What it holds.
    """

    file: Place
    shape: Shape

    def fired(self, run: tuple[int, int]) -> Fired:
        """The entries of a run of latents.

        Raises:
            StoreError: The file is missing or damaged.
        """
        first, last = run
        samples, starts = self._read({"samples": slice(0, self.shape.samples), "starts": slice(first, last + 1)})
        (entries,) = self._read({"entries": slice(int(starts[0]), int(starts[-1]))})
        latent = np.repeat(np.arange(last - first), np.diff(starts))
        position, value = (np.ascontiguousarray(entries[name]) for name in ("position", "value"))
        return Fired(latent, samples[entries["which"]], position, value, samples, self.shape.tokens)

    def held(self) -> Held:
        """The tokens.

        Raises:
            StoreError: The file is missing or damaged.
        """
        arrays = self.shape.arrays
        names = ("samples", "ends", *_TOKENS)
        return Held(*self._read({name: slice(0, arrays[name][1]) for name in names}))

    def _read(self, wanted: dict[str, slice]) -> list[np.ndarray]:
        """Pieces of some of the arrays."""
        arrays = self.shape.arrays
        begin = dict(zip(arrays, accumulate((kind.itemsize * n for kind, n in arrays.values()), initial=0), strict=False))
        found = []
        try:
            with self.file.open(_AHEAD) as stream:
                for name, own in wanted.items():
                    kind = arrays[name][0]
                    stream.seek(begin[name] + kind.itemsize * own.start)
                    raw = stream.read(kind.itemsize * (own.stop - own.start))
                    if len(raw) < kind.itemsize * (own.stop - own.start):
                        raise StoreError(f"{self.file} is cut short: delete {self.file.parent} and run the job again")
                    found.append(np.frombuffer(raw, kind))
        except FileNotFoundError:
            raise StoreError(f"no turned codes at {self.file}: delete {self.file.parent} and run the job again") from None
        return found


def turn(files: Sequence[tuple[Modality, Place]], n_latents: int, folder: Place) -> None:
    """Turn the codes of a part over, unless that was done.

    Args:
        files: The part's files of codes, samples rising in each modality.
        n_latents: f, of the dictionary.
        folder: Where the turned files go.
    """
    if (folder / LIST).is_file():
        return
    shapes = []
    for modality in MODALITIES:
        for i, coded in enumerate(_pieces(file for m, file in files if m == modality)):
            shapes.append(_write(coded, n_latents, folder, modality, i))
    write_record(folder / LIST, Shapes(tuple(shapes)))


def turned(folder: Place) -> list[Columns]:
    """The turned codes of a part."""
    repair = f"delete {folder} and run the job again"
    shapes = read_record(folder / LIST, Shapes, repair).shapes
    return [Columns(inside(folder, shape.name, folder / LIST, repair), shape) for shape in shapes]


def in_pieces(columns: Sequence[Columns], run: tuple[int, int]) -> Iterator[tuple[Modality, Fired]]:
    """The entries of a run of latents from some files, in pieces of about so many of one modality.

    A run of few latents has few entries in each file, and what is done with a piece costs by latents too. Within a piece entries
    stand file by file, and in each by latent, sample and position; no sample is in two files.
    """
    waiting: list[Fired] = []
    modality = None
    for one in columns:
        fired = one.fired(run)
        if modality is not None and (modality != one.shape.modality or sum(len(w.value) for w in (*waiting, fired)) > PIECE):
            yield modality, _joined(waiting)
            waiting = []
        modality = one.shape.modality
        waiting.append(fired)
    if modality is not None:
        yield modality, _joined(waiting)


def _joined(parts: Sequence[Fired]) -> Fired:
    names = ("latent", "sample", "position", "value", "samples")
    return Fired(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names}, tokens=sum(p.tokens for p in parts))


def _pieces(files: Iterator[Place]) -> Iterator[Coded]:
    """The tokens of some files in pieces of whole samples, each of about so many entries."""
    waiting: list[Coded] = []
    for file in files:
        for coded in read_codes(file).pieces(PIECE):
            if waiting and sum(len(c.latents) for c in (*waiting, coded)) > PIECE:
                yield together(waiting)
                waiting = []
            if len(coded):
                waiting.append(coded)
    if waiting:
        yield together(waiting)


def _write(coded: Coded, n_latents: int, folder: Place, modality: Modality, number: int) -> Shape:
    starts = np.flatnonzero(np.diff(coded.sample, prepend=-1))
    samples, ends = coded.sample[starts], np.append(starts, len(coded))
    entries = np.empty(len(coded.latents), _ENTRY)
    # From rows to columns: a counting sort, in which the tokens of a latent keep their order.
    rows = sparse.csr_matrix((np.arange(len(coded.latents)), coded.latents, coded.offsets), (len(coded), n_latents))
    columns = rows.tocsc()
    token, entry = columns.indices, np.asarray(columns.data, np.int64)
    entries["which"] = np.repeat(np.arange(len(samples)), np.diff(ends))[token]
    entries["position"] = coded.position[token]
    entries["value"] = coded.values[entry]
    shape = Shape(
        name=f"{modality}-{number:06d}.bin",
        modality=modality,
        first=int(samples[0]),
        last=int(samples[-1]),
        samples=len(samples),
        tokens=len(coded),
        latents=n_latents,
        entries=len(entries),
    )
    values = {"samples": samples, "ends": ends, "starts": columns.indptr, "entries": entries}
    values |= {name: getattr(coded, name) for name in _TOKENS}
    with (folder / shape.name).writing() as stream:
        for name, (kind, _) in shape.arrays.items():
            stream.write(np.ascontiguousarray(values[name], kind).data.cast("B"))
    return shape
