"""Texts as folders of plain files, each of which is one document: it stands for itself, and no other file touches it."""

import hashlib
from collections import Counter
from itertools import compress
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from linrep.corpora.fetch import Loaded, ahead, fetch
from linrep.corpora.files import format_of
from linrep.corpora.find import ending, find_files
from linrep.corpora.kinds import TextFiles
from linrep.corpora.lines import LONGEST
from linrep.corpora.runs import RUNS, Scan, choose, hashes
from linrep.corpora.streams import decoded, unpacked
from linrep.errors import CorpusError
from linrep.places import Place, redacted

FORMATS = ("txt", "md")
_KINDS = ".txt or .md"


class Document(NamedTuple):
    """The text of a file.

    Attributes:
        text: The text; None where it cannot be read.
        trouble: Why it cannot be used.
    """

    text: str | None
    trouble: str | None = None


def document_id(key: str, path: str) -> str:
    """The id of a document: where its file lies in the corpus, whatever else lies there."""
    return f"{key}/{path}"


def read_document(file: Place, size: int) -> tuple[Document, str | None]:
    """The document in a file, and a hash of the file's bytes; no hash where these cannot be read.

    Args:
        file: The file.
        size: Its bytes as the index has them.

    Raises:
        OSError: An object store does not answer; a second try may succeed.
    """
    loaded = fetch(file, size, LONGEST)
    content = None if loaded.data is None else hashlib.sha256(loaded.data).hexdigest()
    return _document(loaded), content


def scan_documents(key: str, source: TextFiles) -> Scan:
    """One run for every file taken, sorted by path. Only these are read.

    Args:
        key: The word that ids begin with.
        source: Where the files lie, and which to take.

    Raises:
        CorpusError: There is no such file, or no document can be read.
    """
    found = find_files(source.path, _unfit)
    if not found.files:
        raise CorpusError(f"no {_KINDS} file at {redacted(source.path)}")
    order = hashes(document_id(key, path) for path, _ in found.files)
    taken = choose(order, max_samples=source.max_samples, weight=source.weight)
    files = list(compress(found.files, taken))
    seen = list(ahead(lambda file: _scanned(found.root, *file), files))
    if files and all(trouble for trouble, _ in seen):
        raise CorpusError(f"no document in {found.root} can be read: {files[0][0]}: {seen[0][0]}")
    left_out = {"files": found.left_out, "records": Counter({"not chosen": int((~taken).sum())} if not taken.all() else {})}
    counts = {what: dict(sorted(some.items())) for what, some in left_out.items() if some}
    return Scan(_runs(files, [content for _, content in seen]), (), {"kind": source.kind, "documents": source.documents}, counts)


def _unfit(path: str) -> str | None:
    return None if format_of(path) in FORMATS else f"no {_KINDS} file ({ending(path)})"


def _scanned(root: Place, path: str, size: int) -> tuple[str | None, str | None]:
    """Why a document cannot be used, and the hash of its file; without the text, since all files are scanned at once."""
    document, content = read_document(root / path, size)
    return document.trouble, content


def _document(loaded: Loaded) -> Document:
    """What a file says: line ends inside are line feeds, and those at its end are no part of the document."""
    if loaded.data is None or loaded.trouble is not None:
        return Document(None, loaded.trouble)
    try:
        text = decoded(unpacked(loaded.data, LONGEST))
    except ValueError as error:
        return Document(None, f"the file {'is ' * str(error).startswith('not')}{error}")
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    return Document(text, None if text.strip() else "empty text")


def _runs(files: list[tuple[str, int]], contents: list[str | None]) -> pa.Table:
    n = len(files)
    columns = {
        "path": pa.array([path for path, _ in files], pa.string()),
        "size": pa.array([size for _, size in files], pa.int64()),
        "content": pa.array(contents, pa.string()),
        "start": pa.array(np.zeros(n, np.int64)),
        "offset": pa.nulls(n, pa.int64()),
        "count": pa.array(np.ones(n, np.int32)),
        "rows": pa.nulls(n, RUNS.field("rows").type),
        "labels": pa.nulls(n, RUNS.field("labels").type),
        "trouble": pa.nulls(n, pa.string()),
    }
    return pa.table(columns, schema=RUNS)
