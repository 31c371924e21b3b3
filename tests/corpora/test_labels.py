"""Laws of labels: what says that there is none makes no class, what is integral is an integer, the rest is refused by name."""

import datetime
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from linrep.corpora.labels import class_id
from linrep.errors import CorpusError
from tests.corpora.test_shards import write_tar

NONE = (
    None,
    -1,
    -1.0,
    float("nan"),
    "",
    "  ",
    "\n",
    "-1",
    " -1 ",
    "-1.0",
    "nan",
    "NaN",
    "None",
    "null",
    "<NA>",
    b"",
    b"-1",
    Decimal("NaN"),
)
KNOWN = (
    (0, "0"), (7, "7"), (2.0, "2"), (-0.0, "0"), ("2.0", "2"), ("2.50", "2.50"), ("boat", "boat"), (" boat ", "boat"),
    (b"boat", "boat"),
    ("007", "007"), ("none", "none"), ("船", "船"), (2**63, "9223372036854775808"), (10**30, "1" + "0" * 30),
    (Decimal("3.00"), "3"),
    (1e15, "1000000000000000"), ("-1x", "-1x"), ("1e3", "1e3"),
)  # fmt: skip
REFUSED = (
    True, False, 2.5, float("inf"), -float("inf"), -2, -100, "-2", "-100", -2.0, [1], {"a": 1}, Decimal("2.5"), b"\xff", "a\0b",
    "\ud800", "x" * 2000, 10**5000, datetime.date(2020, 1, 1), datetime.timedelta(1),
)  # fmt: skip


@pytest.mark.parametrize("value", NONE)
def test_values_that_say_there_is_no_label(value):
    assert class_id(value) is None


@pytest.mark.parametrize(("value", "name"), KNOWN)
def test_values_that_name_a_class(value, name):
    assert class_id(value) == name


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: f"{type(value).__name__}")
def test_values_that_are_neither_are_refused_in_one_line(value):
    with pytest.raises(ValueError, match=r".") as caught:
        class_id(value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


TYPES = {
    "int64": (pa.int64(), [0, -1, 1, None, 0]),
    "int8": (pa.int8(), [0, -1, 1, None, 0]),
    "float32": (pa.float32(), [0.0, -1.0, 1.0, None, 0.0]),
    "float64 with NaN": (pa.float64(), [0.0, float("nan"), 1.0, None, 0.0]),
    "decimal": (pa.decimal128(5, 2), [Decimal("0"), Decimal("-1"), Decimal("1"), None, Decimal("0")]),
    "string": (pa.string(), ["0", "", "1", None, "0"]),
    "large_string": (pa.large_string(), ["0", "nan", "1", None, "0"]),
    "string_view": (pa.string_view(), ["0", "None", "1", None, "0"]),
    "binary": (pa.binary(), [b"0", b"-1", b"1", None, b"0"]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["0", " ", "1", None, "0"]),
    "dictionary of integers": (pa.dictionary(pa.int32(), pa.int64()), [0, -1, 1, None, 0]),
}


@pytest.mark.parametrize("kind", TYPES)
def test_a_column_of_labels_has_two_classes_and_two_that_are_none(world, kind):
    column = pa.array(TYPES[kind][1], TYPES[kind][0])
    path = world.parquet("p.parquet", {"image": [b"0", b"1", b"2", b"3", b"4"], "label": column})
    images = {"kind": "parquet", "path": path}
    assert [s.class_name for s in world.samples(images=images)] == ["0", None, "1", None, "0"]
    summary = world.index(images=images).summary()["images"]
    assert (summary.classes, summary.n_unlabelled) == ({"0": 2, "1": 1}, 2)


def test_a_column_without_a_value_has_no_label(world):
    path = world.parquet("p.parquet", {"image": [b"0", b"1"], "label": pa.nulls(2)})
    assert [s.label for s in world.samples(images={"kind": "parquet", "path": path})] == [None, None]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([True]), "bool"),
        (pa.array([[1]]), "list<"),
        (pa.array([{"a": 1}]), "struct<"),
        (pa.array([datetime.date(2020, 1, 1)]), "date32"),
        (pa.array([1], pa.timestamp("s")), "timestamp"),
        (pa.array([1], pa.duration("s")), "duration"),
        (pa.array([1], pa.time32("s")), "time32"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "map<"),
    ],
    ids=str,
)
def test_a_column_of_another_type_is_refused_by_name(world, column, kind):
    path = world.parquet("p.parquet", {"image": [b"0"], "label": column})
    with pytest.raises(CorpusError, match=rf"column 'label' of .*p.parquet should hold classes .*, not {kind}") as caught:
        world.index(images={"kind": "parquet", "path": path})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[0.0, 2.5], [0, -7], ["a", "-3"], [float("inf"), 1.0]])
def test_a_value_that_is_no_class_is_refused_with_file_column_and_row(world, values):
    path = world.parquet("p.parquet", {"image": [b"0", b"1"], "kind": values})
    with pytest.raises(CorpusError, match=r"no class in column 'kind' of .*p.parquet, row [01]: "):
        world.index(images={"kind": "parquet", "path": path, "label_column": "kind"})


def test_bytes_of_labels_that_are_not_utf8_are_refused_by_name(world):
    raw = pa.array([b"good", b"b\xffd"]).view(pa.string())
    path = world.parquet("p.parquet", {"image": [b"0", b"1"], "label": raw})
    with pytest.raises(CorpusError, match=r"no class in column 'label' of .*, row 1: .* is not UTF-8"):
        world.index(images={"kind": "parquet", "path": path})


def test_labels_in_shards_follow_the_same_law(world):
    values = {
        "a": -1,
        "b": None,
        "c": "",
        "d": 3,
        "e": 3.0,
        "f": "3.0",
        "g": "nan",
        "h": float("nan"),
        "i": 2.5,
        "j": -7,
        "k": True,
    }
    members = [
        one
        for key, v in values.items()
        for one in ((f"{key}.jpg", key.encode()), (f"{key}.json", json.dumps({"label": v}).encode()))
    ]
    members += [("x.jpg", b"x"), ("x.cls", b"-1\n"), ("y.jpg", b"y"), ("y.cls", b" 3.0 "), ("z.jpg", b"z"), ("z.cls", b"-7")]
    images = {"kind": "tar", "path": write_tar(world.root / "s.tar", members)}
    skipped = world.skipped(images=images)
    assert {key[-1] for key in skipped} == {"i", "j", "k", "z"}
    found = {one.id[-1]: one.class_name for one in world.outcomes(images=images) if not hasattr(one, "reason")}
    assert found == {**dict.fromkeys("abcghx"), **dict.fromkeys("defy", "3")}
    summary = world.index(images=images).summary()["images"]
    assert summary.classes == {"3": 4}


def test_folders_whose_names_say_that_there_is_no_label(world):
    for folder in ("boat", "-1", "nan", "2.0"):
        world.bytes(f"d/{folder}/a{folder}.jpg", b"x")
    found = {s.uri.partition("/")[0]: s.class_name for s in world.samples(images={"path": str(world.root / "d")})}
    assert found == {"boat": "boat", "-1": None, "nan": None, "2.0": "2.0"}


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_label_column_that_the_recipe_names_and_nothing_has_is_an_error(world, kind):
    if kind == "parquet":
        path = world.parquet("p.parquet", {"image": [b"0"], "label": [1]})
    else:
        path = write_tar(world.root / "s.tar", [("a.jpg", b"1"), ("a.json", b'{"label": 1}')])
    with pytest.raises(CorpusError, match="fine"):
        world.index(images={"kind": kind, "path": path, "label_column": "fine"})


def hub(world, name, names):
    schema = pa.schema(
        {"image": pa.binary(), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})},
    )
    return world.parquet(f"d/{name}", {"image": [b"1", b"2", b"3"], "label": [0, 1, -1]}, schema=schema)


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["tench, Tinca tinca", "chain_saw"], ["tench", "chain saw"]),
        (["crane", "crane, tower"], ["crane", "crane, tower"]),
        (["n01440764", "n03000684"], ["tench", "chain saw"]),
        (["tench"], ["tench", "1"]),
        ("ab", ["0", "1"]),
        ([1, 2], ["0", "1"]),
        (None, ["0", "1"]),
    ],
)
def test_names_in_the_schema_are_words_or_none(world, names, called):
    path = hub(world, "p.parquet", names)
    assert list(world.index(images={"kind": "parquet", "path": path}).summary()["images"].classes) == called


def test_files_that_give_one_label_two_names_are_refused(world):
    hub(world, "1.parquet", ["tench", "boat"])
    hub(world, "2.parquet", ["boat", "tench"])
    with pytest.raises(CorpusError, match=r"label 0 is 'tench' in .*1.parquet and 'boat' in .*2.parquet"):
        world.index(images={"kind": "parquet", "path": str(world.root / "d")})
