"""Scanning a folder of images: names and sizes only, no file is opened."""

from collections import Counter
from itertools import compress

import numpy as np
import pyarrow as pa

from linrep.corpora.classes import find_names, read_names, select
from linrep.corpora.find import CorpusFiles, ending, find_files
from linrep.corpora.kinds import ImageFolder
from linrep.corpora.labels import class_id
from linrep.corpora.runs import RUNS, Scan, choose, hashes
from linrep.errors import CorpusError
from linrep.places import Place
from linrep.repository.streamed import open_place
from linrep.sample import IMAGE_ENDINGS

ENDINGS = IMAGE_ENDINGS
_OTHER_IMAGES = frozenset(
    {
        ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".ico", ".icns", ".psd", ".svg", ".eps", ".ppm",
        ".pgm", ".pbm", ".pnm", ".tga", ".dds", ".exr", ".hdr", ".pcx", ".dng", ".cr2", ".cr3", ".nef", ".arw",
        ".orf", ".rw2", ".raf", ".raw", ".wmf", ".emf", ".xcf", ".qoi", ".sgi", ".pfm", ".fits", ".dcm", ".pdf",
    }
)  # fmt: skip


def scan_folder(key: str, source: ImageFolder) -> Scan:
    """One run for every image taken, sorted by path; its class is the first folder of its path.

    Args:
        key: The word that ids begin with.
        source: Where the images lie, and which to take.

    Raises:
        CorpusError: The folder is missing or holds no image, or a wanted class is unknown.
    """
    folder = open_place(source.path)
    if not folder.is_folder():
        raise CorpusError(f"no folder of images at {folder}")
    found = find_files(source.path, _unfit)
    if not found.files:
        raise CorpusError(f"no image in {folder}: files should end in {', '.join(ENDINGS)}{_instead(found)}")
    paths, sizes = _sorted(found)
    ids = {name: _class_of(name, folder) for name in {path[: max(path.find("/"), 0)] for path in paths.to_pylist()}}
    # None stands for the images that lie directly in the folder, or in one whose name says so, and so have no class.
    folders = [ids[path[: max(path.find("/"), 0)]] for path in paths.to_pylist()]
    names = find_names(folder) if source.names is None else read_names(source.names)
    classes = select({name for name in folders if name is not None}, names, source.classes, folder)
    number: dict[str | None, int] = {known.id: i for i, known in enumerate(classes)}
    labels = np.fromiter((number.get(name, -1) for name in folders), dtype=np.int32, count=len(folders))
    taken = labels >= 0 if source.classes is not None else np.ones(len(folders), dtype=bool)
    if source.per_class is not None or source.max_samples is not None or source.weight < 1:
        left = np.flatnonzero(taken)
        given = (f"{key}/{path}" for path in compress(paths.to_pylist(), taken))
        taken[left] = choose(hashes(given), labels[left], source.per_class, source.max_samples, source.weight)
    left_out = {"files": found.left_out, "records": Counter({"not chosen": int((~taken).sum())} if not taken.all() else {})}
    counts = {what: dict(sorted(some.items())) for what, some in left_out.items() if some}
    return Scan(_runs(paths, sizes, labels, taken), classes, {"kind": source.kind}, counts)


def _unfit(path: str) -> str | None:
    end = ending(path)
    if end in ENDINGS:
        return None
    return f"of an image format that is not decoded ({end})" if end in _OTHER_IMAGES else f"no image ({end})"


def _instead(found: CorpusFiles) -> str:
    there = ", ".join(f"{n:,} {reason}" for reason, n in found.left_out.most_common(3))
    return f"; there are {there}" if there else ""


def _class_of(name: str, folder: Place) -> str | None:
    try:
        return None if class_id(name) is None else name
    except ValueError as error:
        raise CorpusError(f"the folder {name!r} in {folder} is no class: {error}") from error


def _sorted(found: CorpusFiles) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Paths, sorted by their bytes, and sizes."""
    paths, sizes = zip(*found.files, strict=True)
    table = pa.table({"path": pa.array(paths, pa.string()), "size": pa.array(sizes, pa.int64())}).sort_by("path")
    return table["path"], table["size"].to_numpy()


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
        "trouble": pa.nulls(n, pa.string()),
    }
    return pa.table(columns, schema=RUNS)
