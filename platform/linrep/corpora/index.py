"""The index: what the corpora hold, found once, stored, and cut into chunks.

An index knows no absolute path and no time of change, so that two machines that hold the same files get the same bytes.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from linrep.corpora.classes import together
from linrep.corpora.config import Corpora, corpus_of, field_of
from linrep.corpora.containers import scan_containers
from linrep.corpora.documents import scan_documents
from linrep.corpora.folder import scan_folder
from linrep.corpora.kinds import ImageFolder, TextFiles
from linrep.corpora.pins import at_pins, find_pins, hub_lines
from linrep.corpora.runs import RUNS, Class, Scan, labels_of, numbered
from linrep.errors import CorpusError
from linrep.places import Place, place, redacted

_FORMAT = 3
_CORPORA = ("images", "text", "pairs", "documents")
_SLICE = 1 << 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """The unit of work, retry and commit: successive records of one source.

    Attributes:
        number: Its place among all chunks, from 0; the same for the same index and chunk size.
        source: Which source, see `Corpora.sources`.
        n_samples: How many samples it gives, skipped ones included.
        n_records: How many files or rows it covers; a pair with its caption alone is one record and two samples.
        skip: Records of the first run that belong to the chunk before.
        runs: What to read, a table of schema `RUNS`.
        names: Number and name of every class that occurs in it.
    """

    number: int
    source: str
    n_samples: int
    n_records: int
    skip: int
    runs: pa.Table = field(repr=False, hash=False)
    names: tuple[tuple[int, str], ...] = field(repr=False)

    @property
    def corpus(self) -> str:
        """images, text, pairs or documents."""
        return corpus_of(self.source)


class CorpusSummary(NamedTuple):
    """What one source amounts to.

    Attributes:
        n_records: Files of a folder, rows of containers.
        n_samples: Samples that they give, skipped ones included.
        n_files: Files to read.
        n_bytes: Their size; of containers all of it, even where only some rows are taken.
        classes: Records of each class, by its name (by its id where two classes share a name), in order of their labels.
        n_unlabelled: Images without a class.
        left_out: How much of what lies there is no sample, by what it is ("files", "records", "members") and why.
        digest: Names all that decides its samples, see `Index.digests`.
    """

    n_records: int
    n_samples: int
    n_files: int
    n_bytes: int
    classes: dict[str, int]
    n_unlabelled: int
    left_out: dict[str, dict[str, int]]
    digest: str


@dataclass(frozen=True)
class Index:
    """All records of the corpora, in their fixed order.

    Attributes:
        runs: For each source in the order of `Corpora.sources` its runs, a table of schema `RUNS`.
        classes: For each source the classes of its corpus; a label is a place in here.
        facts: What else decides the samples: splits, and for each source kind, columns and a hash of its ids.
        digest: Names all of the above; equal for equal content, wherever it lies.
        digests: For each source the name of what decides its samples; other sources change it only where they change its labels.
        left_out: For each source, how much of what lies there is no sample, see `CorpusSummary`. Nothing that decides a sample.
        pins: For each source that lies on the hub the commit that was indexed, see `linrep.corpora.pins`. It is no part of the
            digest: a commit that changes no file of a source does not change what is indexed.
    """

    runs: dict[str, pa.Table]
    classes: dict[str, tuple[Class, ...]]
    facts: dict[str, Any]
    digest: str
    digests: dict[str, str]
    left_out: dict[str, dict[str, dict[str, int]]]
    pins: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def n_samples(self) -> int:
        """Samples that all chunks give together, skipped ones included."""
        return sum(one.n_samples for one in self.summary().values())

    def chunks(self, chunk_size: int) -> list[Chunk]:
        """The chunks, in order; none mixes sources.

        Args:
            chunk_size: Records (files or rows) a chunk; only the last one of a source may have fewer.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size should be at least 1, not {chunk_size}")
        chunks: list[Chunk] = []
        for source in self.runs:
            chunks.extend(self._cut(source, chunk_size, len(chunks)))
        return chunks

    def summary(self) -> dict[str, CorpusSummary]:
        """Counts of each source."""
        return {source: self._summarise(source) for source in self.runs}

    def pinned(self, corpora: Corpora) -> Corpora:
        """The corpora that were indexed, held to the commits that were there then where they lie on the hub."""
        return at_pins(corpora, self.pins)

    def write(self, folder: str | Place) -> None:
        """Store it as index.parquet and, written last, index.json."""
        where = place(folder)
        table = pa.concat_tables(
            runs.add_column(0, "corpus", pa.array([source] * len(runs), pa.string())) for source, runs in self.runs.items()
        )
        buffer = io.BytesIO()
        pq.write_table(table.combine_chunks(), buffer, compression="zstd", row_group_size=1 << 18)
        (where / "index.parquet").write_bytes(buffer.getvalue())
        head: dict[str, Any] = {"table": xxhash.xxh3_64_hexdigest(buffer.getvalue())}
        head |= {"format": _FORMAT, "digest": self.digest, "n_runs": len(table), "facts": self.facts, "classes": self.classes}
        head |= {"digests": self.digests, "left_out": self.left_out}
        head |= {"pins": self.pins} if self.pins else {}
        head["check"] = _check(head)
        (where / "index.json").write_bytes(json.dumps(head, indent=1, sort_keys=True, ensure_ascii=False).encode())

    @classmethod
    def read(cls, folder: str | Place) -> "Index":
        """The index that was stored in a folder.

        Raises:
            CorpusError: There is none, it is damaged, or of another format version.
        """
        where = place(folder)
        try:
            head = json.loads((where / "index.json").read_bytes())
            raw = (where / "index.parquet").read_bytes()
            if head["format"] != _FORMAT:
                raise CorpusError(f"the index in {where} has format {head['format']}, not {_FORMAT}: build it anew")
            if head.pop("check", None) != _check(head) or head["table"] != xxhash.xxh3_64_hexdigest(raw):
                raise CorpusError(f"the index in {where} is damaged (it is not as it was written): delete it and build it anew")
            table = pq.read_table(pa.BufferReader(raw))
            order = sorted(head["facts"]["corpora"], key=lambda source: (_CORPORA.index(corpus_of(source)), source))
            runs = {source: table.filter(pc.field("corpus") == source).drop_columns("corpus").cast(RUNS) for source in order}
            classes = {source: tuple(Class(*one) for one in head["classes"][source]) for source in order}
        except CorpusError:
            raise
        except FileNotFoundError as error:
            raise CorpusError(f"no index in {where}: build it with build_index(...).write(folder)") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
            said = " ".join(str(error).split())[:200]
            raise CorpusError(f"the index in {where} is damaged ({said}): delete it and build it anew") from error
        left_out, pins = head.get("left_out", {}), head.get("pins", {})
        return cls(runs, classes, head["facts"], head["digest"], head["digests"], left_out, pins)

    def _cut(self, source: str, size: int, number: int) -> Iterator[Chunk]:
        runs, each = self.runs[source].combine_chunks(), self._samples_each(source)
        ends = np.cumsum(runs["count"].to_numpy(), dtype=np.int64)
        starts = ends - runs["count"].to_numpy()
        for first in range(0, int(ends[-1]) if len(ends) else 0, size):
            last = min(first + size, int(ends[-1]))
            i, j = int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, last, "left"))
            # take, not slice: a slice keeps, and pickles, the whole table.
            own = runs.take(pa.array(np.arange(i, j + 1)))
            present = np.unique(labels_of(own)).tolist()
            names = tuple((label, self.classes[source][label].name) for label in present)
            yield Chunk(number, source, (last - first) * each, last - first, first - int(starts[i]), own, names)
            number += 1

    def _samples_each(self, source: str) -> int:
        return 2 if self.facts["corpora"][source].get("caption_alone") else 1

    def _summarise(self, source: str) -> CorpusSummary:
        runs, classes = self.runs[source], self.classes[source]
        n = int(runs["count"].to_numpy().sum())
        files = runs.group_by("path").aggregate([("size", "max")])
        labels = labels_of(runs)
        counts = np.bincount(labels, minlength=len(classes))
        names = [one.name for one in classes]
        keys = [one.name if names.count(one.name) == 1 else one.id for one in classes]
        alone = sum(corpus_of(one) == corpus_of(source) for one in self.runs) == 1
        own = {key: n for key, n in zip(keys, counts.tolist(), strict=True) if n or alone}
        return CorpusSummary(
            n_records=n,
            n_samples=n * self._samples_each(source),
            n_files=len(files),
            n_bytes=int(files["size_max"].to_numpy().sum()),
            classes=own,
            n_unlabelled=n - len(labels) if corpus_of(source) == "images" else 0,
            left_out=self.left_out.get(source, {}),
            digest=self.digests[source],
        )


def build_index(corpora: Corpora) -> Index:
    """Look at all corpora once and list what they hold.

    Raises:
        CorpusError: The hub does not answer, or a corpus is missing or empty, lacks a column, repeats an id, or has not a
            class that is wanted.
    """
    pins = find_pins(corpora)
    scans = {key: _scan(key, source) for key, source in at_pins(corpora, pins).sources.items()}
    classes, places = {}, {}
    for corpus in dict.fromkeys(map(corpus_of, scans)):
        every, own = together({key: scan.classes for key, scan in scans.items() if corpus_of(key) == corpus})
        classes |= dict.fromkeys(own, every)
        places |= own
    runs = {key: numbered(scan.runs, places[key]) for key, scan in scans.items()}
    facts = {"splits": corpora.splits.model_dump(mode="json"), "corpora": {key: scan.facts for key, scan in scans.items()}}
    left_out = {key: scan.left_out for key, scan in scans.items()}
    digests = {key: _digest_of(key, runs[key], classes[key], facts) for key in scans}
    return Index(runs, classes, facts, _digest(runs, classes, facts), digests, left_out, pins)


def _scan(key: str, source: Any) -> Scan:
    with hub_lines(key, source):
        match source:
            case ImageFolder():
                scan = scan_folder(key, source)
            case TextFiles(documents="files"):
                scan = scan_documents(key, source)
            case _:
                scan = scan_containers(key, source)
    if not len(scan.runs):
        raise CorpusError(
            f"{field_of(key)} takes nothing of {redacted(source.path)}: loosen its classes, per_class, weight or max_samples"
        )
    return scan


def _check(head: dict[str, Any]) -> str:
    own = json.loads(json.dumps(head))
    return xxhash.xxh3_64_hexdigest(json.dumps(own, sort_keys=True, separators=(",", ":")).encode())


def _digest_of(source: str, runs: pa.Table, classes: tuple[Class, ...], facts: dict[str, Any]) -> str:
    """Names a source: with the classes that it has itself, under the numbers that stand in its rows."""
    own = tuple((label, *classes[label]) for label in np.unique(labels_of(runs)).tolist())
    about = {"splits": facts["splits"], "corpora": facts["corpora"][source], "classes": own}
    return _digest({source: runs}, {}, about)


def _digest(runs: dict[str, pa.Table], classes: dict[str, tuple[Class, ...]], facts: dict[str, Any]) -> str:
    seen = hashlib.sha256(_plain([_FORMAT, facts, classes]))
    for source, table in runs.items():
        seen.update(_plain(source))
        for start in range(0, len(table), _SLICE):
            seen.update(_plain(table.slice(start, _SLICE).to_pydict()))
    return seen.hexdigest()[:10]


def _plain(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
