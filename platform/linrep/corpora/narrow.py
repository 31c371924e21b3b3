"""A few records out of a chunk, to be read without the rest."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from linrep.corpora.index import Chunk
from linrep.corpora.runs import RUNS


def narrow(chunk: Chunk, records: Sequence[int]) -> Chunk:
    """The chunk with some of its records only.

    Args:
        chunk: As the index cut it.
        records: Places of records in the chunk, rising; a pair with its caption alone is one record.

    Raises:
        ValueError: The places do not rise, or one is outside the chunk.
    """
    if not records or list(records) != sorted(set(records)) or records[0] < 0 or records[-1] >= chunk.n_records:
        raise ValueError(f"records must rise within 0..{chunk.n_records - 1}, got {list(records)[:5]}")
    wanted, kept = set(records), []
    at = -chunk.skip  # place in the chunk of the run's first record
    for run in chunk.runs.to_pylist():
        own = [i for i in range(run["count"]) if at + i >= 0 and at + i in wanted]
        at += run["count"]
        if not own:
            continue
        rows = own if run["rows"] is None else [run["rows"][i] for i in own]
        whole = run["rows"] is None and len(own) == run["count"]
        labels = None if run["labels"] is None else [run["labels"][i] for i in own]
        kept.append({**run, "count": len(own), "rows": None if whole else rows, "labels": labels})
    each = chunk.n_samples // chunk.n_records
    runs = pa.Table.from_pylist(kept, schema=RUNS)
    return replace(chunk, n_samples=each * len(records), n_records=len(records), skip=0, runs=runs)
