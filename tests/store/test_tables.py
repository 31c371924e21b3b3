"""Result tables: read back as written, whole or not at all, wrong ones named."""

import pyarrow as pa
import pytest

from linrep.errors import StoreError
from linrep.places import place
from linrep.store.tables import read_table, table_of, write_table
from schemas import column
from tests.stores import files_in

SCHEMA = pa.schema([column("layer", pa.int32(), "Layer k"), column("value", pa.float64(), "Some value", nullable=True)])


def test_a_table_is_read_back_with_its_meanings(tmp_path):
    table = table_of([{"layer": 3, "value": 0.5}, {"layer": 4}], SCHEMA)
    write_table(place(tmp_path), "a/b.parquet", table)
    read = read_table(place(tmp_path), "a/b.parquet")
    assert read.to_pylist() == [{"layer": 3, "value": 0.5}, {"layer": 4, "value": None}]
    assert read.schema.field("value").metadata[b"meaning"] == b"Some value"
    assert files_in(tmp_path) == {"a/b.parquet"}


def test_an_empty_table_keeps_its_columns(tmp_path):
    write_table(place(tmp_path), "t.parquet", table_of([], SCHEMA))
    assert read_table(place(tmp_path), "t.parquet").schema.names == ["layer", "value"]


def test_wrong_rows_and_files_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"unknown \['colour'\], missing \['layer'\]"):
        table_of([{"colour": 1}], SCHEMA)
    with pytest.raises(StoreError, match=r"/none\.parquet is missing: delete"):
        read_table(place(tmp_path), "none.parquet")
    (tmp_path / "no.parquet").write_bytes(b"hello")
    with pytest.raises(StoreError, match=r"no\.parquet is no whole parquet file"):
        read_table(place(tmp_path), "no.parquet")
