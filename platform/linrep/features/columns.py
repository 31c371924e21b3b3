"""Codes turned over, latent by latent: a run of latents reads its own entries and little more, however many runs there are.

The codes of a part of the store are turned once, in pieces of whole samples with about `PIECE` entries, whatever the size of a
chunk. They are scratch: made of the codes, and gone when the artefact is complete. A piece is three Arrow IPC files:

    NAME.latents.arrow   a row a latent: its entries, by sample and position; a record batch holds about `BATCH` entries
    NAME.tokens.arrow    a row a token, by sample and position
    NAME.samples.arrow   a row a sample, rising: its number and how many tokens it has

`files.json` is written last. It lists the pieces of a part, and for each record batch its first latent and where it begins in
the file: a run of latents is one read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int16, Int32, Int64
from scipy import sparse

from linrep.errors import StoreError
from linrep.features.codes import COLUMNS, ActiveLatents, read_codes, together
from linrep.places import Place
from linrep.records import inside, read_record, write_record
from linrep.store.layout import MODALITIES, Modality
from linrep.store.sealed import one_line
from schemas.columns import column
from schemas.features import FEATURE_CODES

PIECE = 2**20
"""Entries of a piece, about: whole samples, at least one."""
BATCH = 2**11
"""Entries of a record batch, about: whole latents, at least one. Runs that share a batch both read it."""
LIST = "files.json"
_ENTRY = pa.struct(
    [
        column("which", pa.int32(), "Row of its sample in the piece"),
        column("position", pa.int32(), "Place in the sequence"),
        column("value", pa.float32(), "Activation, above 0", "model's own scale"),
    ]
)
_LATENTS = pa.schema([pa.field("entries", pa.list_(pa.field("item", _ENTRY, nullable=False)), nullable=False)])
_TOKENS = pa.schema([FEATURE_CODES.field(name) for name in COLUMNS])
_SAMPLES = pa.schema([FEATURE_CODES.field("sample"), column("n_tokens", pa.int64(), "Tokens that it has", "tokens")])
_SCHEMAS = {"latents": _LATENTS, "tokens": _TOKENS, "samples": _SAMPLES}
_AHEAD = 4096
"""Bytes read beyond what was asked for, at most: a run's entries may be few."""


@dataclass(frozen=True)
class Firings:
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
class TokenRows:
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
    """What a piece of turned codes holds.

    Attributes:
        name: What its files' names begin with.
        modality: Of its tokens.
        first: The first of its samples.
        last: The last.
        samples: How many there are.
        tokens: Tokens of theirs.
        latents: f, of the SAE.
        entries: Entries.
        batches: First latent of each record batch, and f.
        begins: Where each begins in its file, and where the last ends, in bytes.
    """

    name: str
    modality: Modality
    first: int
    last: int
    samples: int
    tokens: int
    latents: int
    entries: int
    batches: tuple[int, ...]
    begins: tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """The pieces of a part."""

    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Columns:
    """A piece of turned codes.

    Attributes:
        place: Where its files lie: their names without the endings.
        shape: What they hold.
    """

    place: Place
    shape: Shape

    def fired(self, run: tuple[int, int]) -> Firings:
        """The entries of a run of latents.

        Raises:
            StoreError: A file is missing or damaged.
        """
        samples = self._read("samples")["sample"].to_numpy()
        lists = self._entries(run)
        counts, entries = lists.value_lengths().to_numpy(), lists.flatten()
        which, position, value = (entries.field(name).to_numpy() for name in _ENTRY.names)
        if len(which) and not 0 <= which.min() <= which.max() < len(samples):
            raise self._damaged("latents", "it names samples that it lacks")
        return Firings(np.repeat(np.arange(len(lists)), counts), samples[which], position, value, samples, self.shape.tokens)

    def token_rows(self) -> TokenRows:
        """The tokens.

        Raises:
            StoreError: A file is missing or damaged.
        """
        samples, tokens = self._read("samples"), self._read("tokens")
        ends = np.concatenate([[0], samples["n_tokens"].to_numpy().cumsum()])
        if ends[-1] != len(tokens):
            raise self._damaged("tokens", f"it has {len(tokens)} rows instead of {ends[-1]}")
        return TokenRows(samples["sample"].to_numpy(), ends, *(tokens[name].to_numpy() for name in COLUMNS))

    def _entries(self, run: tuple[int, int]) -> pa.ListArray:
        """A row a latent of a run; the record batches that hold them are read at once."""
        first, last = run
        starts = np.array(self.shape.batches)
        low, high = int(np.searchsorted(starts, first, side="right")) - 1, int(np.searchsorted(starts, last))
        if first == last:
            return pa.array([], _LATENTS.field(0).type)
        begin, end = self.shape.begins[low], self.shape.begins[high]
        file = _file(self.place, "latents")
        try:
            with file.open(_AHEAD) as stream:
                stream.seek(begin)
                raw = stream.read(end - begin)
            messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(raw))
            batches = [pa.ipc.read_record_batch(messages.read_next_message(), _LATENTS) for _ in range(low, high)]
            for batch in batches:
                batch.validate(full=True)
        except (pa.ArrowException, StopIteration, OSError) as error:
            raise self._mended("latents", error) from None
        lists = pa.chunked_array([batch.column(0) for batch in batches])
        if len(lists) != starts[high] - starts[low]:
            raise self._damaged("latents", f"{len(lists)} latents instead of {starts[high] - starts[low]}")
        return lists.slice(first - int(starts[low]), last - first).combine_chunks()

    def _read(self, kind: str) -> pa.Table:
        """The whole of one of the small files."""
        try:
            with _file(self.place, kind).open(_AHEAD) as stream, pa.ipc.open_file(pa.py_buffer(stream.read())) as reader:
                table = reader.read_all().combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise self._mended(kind, error) from None
        if not table.schema.equals(_SCHEMAS[kind]) or any(values.null_count for values in table.columns):
            raise self._damaged(kind, "its columns are others than were written")
        return table

    def _mended(self, kind: str, error: Exception) -> Exception:
        """What to raise for an error in reading."""
        file = _file(self.place, kind)
        if isinstance(error, FileNotFoundError):
            return StoreError(f"no turned codes at {file}: delete {file.parent} and run the job again")
        return error if file.may_pass(error) else self._damaged(kind, one_line(error))

    def _damaged(self, kind: str, what: str) -> StoreError:
        file = _file(self.place, kind)
        return StoreError(f"{file} is damaged ({what}): delete {file.parent} and run the job again")


def _file(stem: Place, kind: str) -> Place:
    return stem.parent / f"{stem.name}.{kind}.arrow"


def turn(files: Sequence[tuple[Modality, Place]], n_latents: int, folder: Place) -> None:
    """Turn the codes of a part over, unless that was done.

    Args:
        files: The part's files of codes, samples rising in each modality.
        n_latents: f, of the SAE.
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


def in_pieces(columns: Sequence[Columns], run: tuple[int, int]) -> Iterator[tuple[Modality, Firings]]:
    """The entries of a run of latents from some files, in pieces of about `PIECE` of one modality.

    A run of few latents has few entries in each file, and what is done with a piece costs by latents too. Within a piece entries
    stand file by file, and in each by latent, sample and position; no sample is in two files.
    """
    waiting: list[Firings] = []
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


def _joined(parts: Sequence[Firings]) -> Firings:
    names = ("latent", "sample", "position", "value", "samples")
    return Firings(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names}, tokens=sum(p.tokens for p in parts))


def _pieces(files: Iterator[Place]) -> Iterator[ActiveLatents]:
    """The tokens of some files in pieces of whole samples, each of about `PIECE` entries."""
    waiting: list[ActiveLatents] = []
    for file in files:
        for coded in read_codes(file).pieces(PIECE):
            if waiting and sum(len(c.latents) for c in (*waiting, coded)) > PIECE:
                yield together(waiting)
                waiting = []
            if len(coded):
                waiting.append(coded)
    if waiting:
        yield together(waiting)


def _write(coded: ActiveLatents, n_latents: int, folder: Place, modality: Modality, number: int) -> Shape:
    starts = np.flatnonzero(np.diff(coded.sample, prepend=-1))
    samples, counts = coded.sample[starts], np.diff(starts, append=len(coded))
    # From rows to columns: a counting sort, in which the tokens of a latent keep their order.
    rows = sparse.csr_matrix((np.arange(len(coded.latents)), coded.latents, coded.offsets), (len(coded), n_latents))
    columns = rows.tocsc()
    token, entry = columns.indices, np.asarray(columns.data, np.int64)
    which = np.repeat(np.arange(len(samples), dtype=np.int32), counts)[token]
    values = [which, coded.position[token], coded.values[entry]]
    entries = pa.StructArray.from_arrays([pa.array(some) for some in values], fields=list(_ENTRY))
    lists = pa.ListArray.from_arrays(pa.array(columns.indptr.astype(np.int32)), entries, type=_LATENTS.field(0).type)
    table = pa.record_batch([lists], schema=_LATENTS)
    # A latent that begins beyond the next multiple of BATCH begins a record batch.
    firsts = [0, *(np.flatnonzero(np.diff(columns.indptr[:-1] // BATCH)) + 1).tolist(), n_latents]
    stem = folder / f"{modality}-{number:06d}"
    begins = _write_file(stem, "latents", [table.slice(a, b - a) for a, b in pairwise(firsts)])
    _write_file(stem, "tokens", [pa.record_batch([getattr(coded, name) for name in COLUMNS], schema=_TOKENS)])
    _write_file(stem, "samples", [pa.record_batch([samples, counts], schema=_SAMPLES)])
    return Shape(
        name=stem.name,
        modality=modality,
        first=int(samples[0]),
        last=int(samples[-1]),
        samples=len(samples),
        tokens=len(coded),
        latents=n_latents,
        entries=len(coded.latents),
        batches=tuple(firsts),
        begins=tuple(begins),
    )


def _write_file(stem: Place, kind: str, batches: Sequence[pa.RecordBatch]) -> list[int]:
    """Write one of a piece's files; gives where each record batch begins, and where the last one ends, in bytes."""
    with _file(stem, kind).writing() as stream, pa.ipc.new_file(stream, _SCHEMAS[kind]) as writer:
        begins = []
        for batch in batches:
            writer.write_batch(batch)
            # The schema is written with the first one, so what a batch takes is counted from its end.
            begins.append(stream.tell() - pa.ipc.get_record_batch_size(batch))
        return [*begins, stream.tell()]
