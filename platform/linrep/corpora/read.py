"""Reading: a chunk becomes samples, in a fixed order; what cannot be used becomes a `Skipped` with its reason."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from linrep.corpora.columns import read_columns
from linrep.corpora.config import Corpora, Splits, field_of
from linrep.corpora.confine import Fence, Outside
from linrep.corpora.documents import document_id, read_document
from linrep.corpora.fetch import Loaded, ahead, fetch
from linrep.corpora.files import format_of, record_id
from linrep.corpora.find import encodes, root_of
from linrep.corpora.index import Chunk
from linrep.corpora.interleaved import interleaved
from linrep.corpora.kinds import Containers, DocumentFiles, ImageFolder, ImageParquet, ImageTar, PairFiles, PairTar, TextFiles
from linrep.corpora.lines import Record, read_lines
from linrep.corpora.runs import Piece, pieces
from linrep.corpora.shards import read_shard
from linrep.corpora.streams import NUL
from linrep.errors import CorpusError
from linrep.places import Place
from linrep.repository.streamed import open_place
from linrep.sample import LARGEST_IMAGE, Sample, Skipped, Split, split_of


def read(chunk: Chunk, corpora: Corpora) -> Iterator[Sample | Skipped]:
    """The samples of a chunk, `chunk.n_samples` of them, always in the same order; images come as encoded bytes.

    An image is not decoded here, so one that is damaged inside is still a sample. A pair whose image or caption is
    missing is skipped in both its forms, so that the corpus stays balanced. Whatever is wrong with one record is its own reason.

    Raises:
        CorpusError: A container is missing or has changed since it was indexed.
        OSError: An object store does not answer; a second try may succeed.
    """
    source = corpora.sources.get(chunk.source)
    if source is None:
        raise CorpusError(f"chunk {chunk.number} is of {field_of(chunk.source)}, which this recipe does not have")
    own = list(pieces(chunk.runs, chunk.skip, chunk.n_records))
    names = dict(chunk.names)
    match source:
        case ImageFolder():
            return _image_files(chunk.source, own, source, names, corpora.splits)
        case ImageParquet() | ImageTar():
            return _stored_images(chunk.source, own, source, names, corpora.splits)
        case TextFiles(documents="files"):
            return _documents(chunk.source, own, source, corpora.splits)
        case TextFiles():
            return _texts(chunk.source, own, source, corpora.splits)
        case PairFiles() | PairTar():
            return _pairs(chunk.source, own, source, corpora.splits)
        case DocumentFiles():
            return _interleaved(chunk.source, own, source, corpora.splits)


def _image_files(
    key: str, own: list[Piece], source: ImageFolder, names: dict[int, str], splits: Splits
) -> Iterator[Sample | Skipped]:
    folder = open_place(source.path)

    def one(piece: Piece) -> Sample | Skipped:
        label = piece.labels[0]
        sample = Sample(
            id=f"{key}/{piece.path}",
            corpus="images",
            modality="image",
            uri=piece.path,
            split=_split(_base(piece.path), splits),
            label=label,
            class_name=None if label is None else names[label],
        )
        return _with_image(sample, fetch(folder / piece.path, piece.size, LARGEST_IMAGE))

    return ahead(one, own)


def _stored_images(
    key: str, own: list[Piece], source: ImageParquet | ImageTar, names: dict[int, str], splits: Splits
) -> Iterator[Sample | Skipped]:
    for path, record, label in _records(own, source, [source.image_column, source.id_column]):
        name = record_id(key, path, record.row, record.values.get(source.id_column))
        stored = _stored_image(record.values.get(source.image_column), source.image_column)
        sample = Sample(
            id=name,
            corpus="images",
            modality="image",
            uri=path,
            split=_split(_base(stored.path) if stored.path else name, splits),
            label=label,
            class_name=None if label is None else names[label],
        )
        missing = None if stored.image is not None else "a path without bytes"
        yield _with_image(sample, Loaded(stored.image, record.trouble or stored.trouble or missing))


def _texts(key: str, own: list[Piece], source: TextFiles, splits: Splits) -> Iterator[Sample | Skipped]:
    for path, record, _ in _records(own, source, [source.column, source.id_column]):
        name = record_id(key, path, record.row, record.values.get(source.id_column))
        text, trouble = _text(record, source.column)
        sample = Sample(id=name, corpus="text", modality="text", uri=path, split=_split(name, splits), text=text)
        yield Skipped(sample, trouble) if trouble else sample


def _documents(key: str, own: list[Piece], source: TextFiles, splits: Splits) -> Iterator[Sample | Skipped]:
    root, _ = root_of(source.path)

    def one(piece: Piece) -> Sample | Skipped:
        name = document_id(key, piece.path)
        (text, trouble), _ = read_document(root / piece.path, piece.size)
        sample = Sample(id=name, corpus="text", modality="text", uri=piece.path, split=_split(name, splits), text=text)
        return Skipped(sample, trouble) if trouble else sample

    return ahead(one, own)


def _pairs(key: str, own: list[Piece], source: PairFiles | PairTar, splits: Splits) -> Iterator[Sample | Skipped]:
    root, _ = root_of(source.path)
    images = None if source.image_root is None else open_place(source.image_root)
    fence = Fence(images or root, source.outside, field_of(key))

    def both(item: tuple[str, Record, int | None]) -> list[Sample | Skipped]:
        path, record, _ = item
        name = record_id(key, path, record.row, record.values.get(source.id_column))
        stored = _stored_image(record.values.get(source.image_column), source.image_column)
        text, trouble = _text(record, source.text_column)
        split = _split(_base(stored.path) if stored.path else name, splits)
        sample = Sample(id=name, corpus="pairs", modality="pair", uri=stored.path or path, split=split, text=text, pair_id=name)
        bad = record.trouble or trouble
        pair = _with_image(sample, Loaded(None, bad) if bad else _listed(stored, fence, images or (root / path).parent))
        if not source.caption_alone:
            return [pair]
        caption = replace(sample, id=f"{name}#caption", modality="text", uri=path)
        return [pair, Skipped(caption, pair.reason) if isinstance(pair, Skipped) else caption]

    for forms in ahead(both, _records(own, source, [source.image_column, source.text_column, source.id_column])):
        yield from forms


def _interleaved(key: str, own: list[Piece], source: DocumentFiles, splits: Splits) -> Iterator[Sample | Skipped]:
    root, _ = root_of(source.path)
    images = None if source.image_root is None else open_place(source.image_root)
    fence = Fence(images or root, source.outside, field_of(key))

    def one(item: tuple[str, Record, int | None]) -> Sample | Skipped:
        path, record, _ = item
        name = record_id(key, path, record.row, record.values.get(source.id_column))
        sample = Sample(id=name, corpus="documents", modality="document", uri=path, split=_split(name, splits))
        if record.trouble:
            return Skipped(sample, record.trouble)
        try:
            written, shown = interleaved(record.values.get(source.text_column), record.values.get(source.images_column), source)
        except ValueError as reason:
            return Skipped(sample, str(reason))
        text, trouble = _text(Record(record.row, {source.text_column: written}), source.text_column)
        sample = replace(sample, text=text)
        if trouble:
            return Skipped(sample, trouble)
        data = []
        for i, image in enumerate(shown):
            loaded = _listed(_stored_image(image, source.images_column), fence, images or (root / path).parent)
            trouble = _unusable(loaded)
            if trouble:
                return Skipped(sample, f"image {i + 1} of {len(shown)}: {trouble}")
            data.append(loaded.data)
        return replace(sample, images=tuple(data))

    return ahead(one, _records(own, source, [source.text_column, source.images_column, source.id_column]))


def _records(own: list[Piece], source: Containers, columns: list[str]) -> Iterator[tuple[str, Record, int | None]]:
    """Path, record and label of every wanted row."""
    root, _ = root_of(source.path)
    for path, group in groupby(own, key=lambda piece: piece.path):
        wanted, file = list(group), root / path
        _refuse_changed(file, wanted[0].size)
        labels = (label for piece in wanted for label in piece.labels)
        if wanted[0].trouble is not None:  # what is wrong with a whole file is wrong with each of its records
            records: Iterator[Record] = (Record(row, {}, piece.trouble) for piece in wanted for row in piece.rows)
        elif isinstance(source, ImageTar | PairTar):
            records = read_shard(file, path, wanted, source)
        elif format_of(path) == "parquet":
            records = read_columns(file, wanted, columns)
        else:
            records = read_lines(file, wanted, columns[0])
        yield from ((path, record, label) for record, label in zip(records, labels, strict=True))


def _refuse_changed(file: Place, size: int) -> None:
    try:
        now = file.size()
    except FileNotFoundError as error:
        raise CorpusError(f"{file} was indexed and is now missing") from error
    if now != size:
        raise CorpusError(f"{file} has {now} bytes, the index says {size}: it changed; build the index anew (--reindex)")


class _StoredImage(NamedTuple):
    image: bytes | None
    path: str | None
    trouble: str | None = None


def _stored_image(value: Any, column: str) -> _StoredImage:
    """Bytes, path or both, from bytes, a path or the hub's struct of both."""
    image, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
    image = image if isinstance(image, bytes) else None
    path = path if isinstance(path, str) and path and encodes(path) else None
    return _StoredImage(image, path, None if image is not None or path else f"no image in column {column!r}")


def _listed(stored: _StoredImage, fence: Fence, base: Place) -> Loaded:
    """An image that a list names or holds."""
    if stored.image is not None or stored.trouble is not None:
        return Loaded(stored.image, stored.trouble)
    try:
        return fetch(fence.find(base, stored.path or ""), None, LARGEST_IMAGE)
    except Outside as reason:
        return Loaded(None, str(reason))


def _with_image(sample: Sample, loaded: Loaded) -> Sample | Skipped:
    trouble = _unusable(loaded)
    return replace(sample, image=loaded.data) if trouble is None else Skipped(sample, trouble)


def _unusable(loaded: Loaded) -> str | None:
    """Why an image cannot be used; None where it can."""
    if loaded.trouble is not None:
        return loaded.trouble
    if not loaded.data:
        return "empty file"
    return f"more than {LARGEST_IMAGE} bytes are not read" if len(loaded.data) > LARGEST_IMAGE else None


def _text(record: Record, column: str) -> tuple[str | None, str | None]:
    """The text, and why it cannot be used."""
    text = record.values.get(column)
    if record.trouble:
        return None, record.trouble
    if text is None:
        return None, f"no text in column {column!r}"
    if isinstance(text, bytes):
        try:
            text = text.rstrip(b"\0").decode("utf-8-sig")  # columns of fixed width are filled up with zeros
        except UnicodeDecodeError:
            return None, "text is not UTF-8"
    if not isinstance(text, str):
        return None, f"column {column!r} holds {type(text).__name__}, not a text"
    if not encodes(text):
        return None, "text has half a surrogate pair and cannot be written as UTF-8"
    if "\0" in text:
        return None, f"text {NUL}"
    return (text, None) if text.strip() else (text, "empty text")


def _split(key: str, splits: Splits) -> Split:
    return split_of(key, splits.val, splits.test)


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]
