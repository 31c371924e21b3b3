"""Scanning a folder of photographs: names and sizes only, no file is opened."""

from itertools import compress

import numpy as np
import pyarrow as pa

from linrep.corpora.classes import find_names, read_names, select
from linrep.corpora.config import ImageFolder
from linrep.corpora.runs import RUNS, Scan, choose, hashes
from linrep.errors import CorpusError
from linrep.places import Place, place

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def scan_folder(source: ImageFolder) -> Scan:
    """One run for every photograph taken, sorted by path; its class is the first folder of its path.

    Raises:
        CorpusError: The folder is missing or holds no photograph, or a wanted class is unknown.
    """
    folder = place(source.path)
    if not folder.is_folder():
        raise CorpusError(f"no folder of photographs at {folder}")
    paths, sizes = _photographs(folder)
    if not len(paths):
        raise CorpusError(f"no photograph in {folder}: files should end in {', '.join(ENDINGS)}")
    # "" stands for the photographs that lie directly in the folder and so have no class.
    folders = [path[: max(path.find("/"), 0)] for path in paths.to_pylist()]
    names = find_names(folder) if source.names is None else read_names(source.names)
    classes = select(set(folders) - {""}, names, source.classes, folder)
    number = {known.id: i for i, known in enumerate(classes)}
    labels = np.fromiter((number.get(name, -1) for name in folders), dtype=np.int32, count=len(folders))
    taken = labels >= 0 if source.classes is not None else np.ones(len(folders), dtype=bool)
    if source.per_class is not None or source.max_samples is not None:
        left = np.flatnonzero(taken)
        ids = (f"images/{path}" for path in compress(paths.to_pylist(), taken))
        taken[left] = choose(hashes(ids), labels[left], source.per_class, source.max_samples)
    return Scan(_runs(paths, sizes, labels, taken), classes, {"kind": source.kind})


def _photographs(folder: Place) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Paths, sorted by their bytes, and sizes."""
    paths: list[str] = []
    sizes: list[int] = []
    for path, size in folder.walk():
        if path.lower().endswith(ENDINGS):
            paths.append(path)
            sizes.append(size)
    try:
        found = pa.table({"path": pa.array(paths, pa.string()), "size": pa.array(sizes, pa.int64())}).sort_by("path")
    except UnicodeEncodeError as error:
        raise CorpusError(f"a file name in {folder} is not UTF-8: {error.object!r}") from error
    return found["path"], found["size"].to_numpy()


def _runs(paths: pa.ChunkedArray, sizes: np.ndarray, labels: np.ndarray, taken: np.ndarray) -> pa.Table:
    n = int(taken.sum())
    values = pa.array(labels[taken], mask=labels[taken] < 0)
    columns = {
        "path": paths.filter(pa.array(taken)),
        "size": pa.array(sizes[taken]),
        "content": pa.nulls(n, pa.string()),
        "start": pa.array(np.zeros(n, np.int64)),
        "offset": pa.nulls(n, pa.int64()),
        "count": pa.array(np.ones(n, np.int32)),
        "rows": pa.nulls(n, RUNS.field("rows").type),
        "labels": pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), values),
    }
    return pa.table(columns, schema=RUNS)
