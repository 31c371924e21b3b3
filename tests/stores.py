"""Two stores compared row for row."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from linrep.places import Place
from linrep.store import Store
from linrep.store.layout import MODALITIES


def sorted_rows(table: pa.Table) -> pa.Table:
    """Rows in an order that does not depend on who wrote them when."""
    keys = [("sample_id", "ascending")] + ([("position", "ascending")] if "position" in table.column_names else [])
    return table.take(pc.sort_indices(table, sort_keys=keys)).combine_chunks()


def contents(store: Store) -> dict[str, pa.Table]:
    """Every table of a store, sorted, by name."""
    tables = {
        f"{view}/{layer}/{modality}": sorted_rows(store.select(view, layer, modality).table())
        for view in store.manifest.views
        for layer in store.manifest.layers
        for modality in MODALITIES
    }
    return {**tables, "samples": sorted_rows(store.samples())}


def assert_equal(one: Store, other: Store) -> None:
    """Both hold the same rows, bit for bit, and the same statistics."""
    left, right = contents(one), contents(other)
    assert left.keys() == right.keys()
    for name, table in left.items():
        assert table.equals(right[name]), f"{name}: {len(table)} and {len(right[name])} rows, or other values"
    mine, theirs = one.statistics(), other.statistics()
    assert mine.keys() == theirs.keys()
    for key, sums in mine.items():
        assert sums.n == theirs[key].n
        assert sums.n_nonfinite == theirs[key].n_nonfinite
        assert (sums.total == theirs[key].total).all()
        assert (sums.squares == theirs[key].squares).all()
        assert (sums.norm_counts == theirs[key].norm_counts).all()


def files_in(folder: Path | Place) -> set[str]:
    """All files below a folder, unfinished ones included."""
    root = Path(folder.path if isinstance(folder, Place) else folder)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
