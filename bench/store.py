"""How fast a store is read: `python -m bench.store`.

Vectors from parquet to a tensor, against a copy of the same bytes in memory (the floor) and against the form that most tools
write, a fixed-size list of float16. Files lie in the page cache for all.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.timing import interleave, report, timed
from linrep.places import place
from linrep.store.selection import Selection
from linrep.store.statistics import Sums
from linrep.store.write import samples_table, vector_column, writing_chunk
from schemas import vectors


def write(folder: Path, x: np.ndarray) -> Selection:
    """A store of one view and layer, and the same vectors as a list column beside it."""
    schema = vectors(x.shape[1], "float16")
    n = len(x)
    columns = {
        "sample_id": pa.array([f"images/{i // 64}" for i in range(n)]),
        "norm": pa.array(np.ones(n, np.float32)),
        "split": pa.array(["train"] * n),
        "vector": vector_column(x),
    }
    table = pa.Table.from_arrays([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema)
    with writing_chunk(place(folder), 0, schema) as writer:
        writer.vectors("tokens", 0, "image", table)
        commit = writer.commit(samples_table([]), {(0, "image"): Sums.zero(x.shape[1])}, n, n, (), 0.0, "float32")
    as_list = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    pq.write_table(pa.table({"vector": as_list}), folder / "list.parquet", compression="NONE", use_dictionary=False)
    files = tuple(file for file in commit.files if file.path.startswith("tokens/"))
    return Selection(place(folder), files, x.shape[1], "float16", None)


def read_list(path: Path, width: int) -> torch.Tensor:
    """The list column as a tensor."""
    column = pq.read_table(path, memory_map=True)["vector"].combine_chunks()
    return torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((args.rows, args.width), np.float32).astype(np.float16)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        selection = write(folder, x)
        source = torch.from_numpy(x)
        assert torch.equal(selection.torch(), source)
        assert torch.equal(read_list(folder / "list.parquet", args.width), source)

        def stream() -> None:
            for batch in selection.batches(["vector"]):
                np.frombuffer(batch["vector"].buffers()[1], np.float16)

        rates = interleave(
            {
                "memory copy": lambda: timed(x.nbytes, lambda: source.clone()),
                "store to tensor": lambda: timed(x.nbytes, selection.torch),
                "store, streamed": lambda: timed(x.nbytes, stream),
                "list column to tensor": lambda: timed(x.nbytes, lambda: read_list(folder / "list.parquet", args.width)),
            },
            args.rounds,
            "bytes",
        )
    report(
        f"reading {x.nbytes / 1e6:,.0f} MB of vectors, d {args.width}, float16",
        rates,
        [
            ("store to tensor", "memory copy", 0.5),
            ("store, streamed", "memory copy", None),
            ("store to tensor", "list column to tensor", 15.0),
        ],
    )


if __name__ == "__main__":
    main()
