"""Shards carry any data and nothing that a browser could run; numbers and texts arrive as they were."""

import base64
import json

import numpy as np
import pytest

from linrep.explorer.site.shards import file_name, numbers, shard_bytes, words
from tests.explorer.site.painted import HOSTILE


def parsed(data: bytes) -> list:
    text = data.decode("ascii").removeprefix("LineOfSight.shard(").removesuffix(");\n")
    return json.loads(f"[{text}]")


@pytest.mark.parametrize("text", [*HOSTILE, "\ud800 half a pair", "😀", ""])
def test_a_shard_is_ascii_that_ends_no_script_and_says_what_was_put_in(text):
    data = shard_bytes("a/b", {text: [text, {"x": text}]})
    assert not set(data.decode("ascii")) & set("<>&\r\x00\u2028\u2029")
    assert data.count(b"\n") == 1
    assert parsed(data) == ["a/b", {text: [text, {"x": text}]}]


def test_numbers_that_json_lacks_are_null():
    assert parsed(shard_bytes("a", [1.5, float("nan"), [float("inf")], True, None, 3])) == [
        "a",
        [1.5, None, [None], True, None, 3],
    ]


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "uint16", "uint8", "int16", ">i4"])
def test_a_column_of_numbers_is_its_bytes_little_endian(dtype):
    values = np.array([0, 1, 200, 7], dtype)
    column = numbers(values)
    back = np.frombuffer(base64.b64decode(column["data"]), "<" + column["kind"])
    assert back.tolist() == values.tolist()


def test_numbers_that_browsers_have_no_arrays_of_are_refused():
    with pytest.raises(ValueError, match="browsers have no arrays of float64"):
        numbers(np.zeros(2))


def test_texts_that_repeat_stand_once():
    column = words(["b", None, "a", "b"])
    assert column["texts"] == ["b", "a"]
    assert np.frombuffer(base64.b64decode(column["rows"]["data"]), "<i4").tolist() == [0, -1, 1, 0]


def test_any_text_gives_a_name_for_a_file_and_two_texts_give_two():
    names = [file_name(text) for text in (*HOSTILE, "../x", "a/b", "\ud800")]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() for name in names)
