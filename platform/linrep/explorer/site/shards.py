"""Shards: data as scripts, because a page that is opened from disk may load scripts and nothing else.

A shard calls `LineOfSight.shard(name, value)`. Everything in it is ASCII, and no character of it can end a script element,
whatever the data holds. Numbers of many rows travel as typed arrays in base64.
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import xxhash
from jaxtyping import Num

from linrep.places import Place

KINDS = {"float32": "f4", "int32": "i4", "uint32": "u4", "uint16": "u2", "uint8": "u1", "int16": "i2"}
"""Number formats that browsers have arrays of, by numpy's name."""
LONGEST = 4000
"""Characters of a text of somebody's that a page shows: an explanation, a name."""
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@dataclass
class Site:
    """A site that is being written.

    Attributes:
        place: Its folder.
        written: Bytes of each file that was written, by its path.
    """

    place: Place
    written: dict[str, int] = field(default_factory=dict)

    def shard(self, name: str, value: Any) -> None:
        """Write a shard.

        Args:
            name: Its name, which is its path below `data` without the ending.
            value: Plain values; NaN and infinities become null.
        """
        self.file(f"data/{name}.js", shard_bytes(name, value))

    def file(self, path: str, data: bytes) -> None:
        """Write a file of the site."""
        (self.place / path).write_bytes(data)
        self.written[path] = len(data)


def shard_bytes(name: str, value: Any) -> bytes:
    """The script of a shard."""
    return f"LineOfSight.shard({_literal(name)},{_literal(value)});\n".encode("ascii")


def numbers(values: Num[np.ndarray, " n"]) -> dict[str, str]:
    """A column of numbers, as `LineOfSight.numbers` reads it: a typed array in base64, little-endian.

    Raises:
        ValueError: Browsers have no array of this number format.
    """
    kind = KINDS.get(values.dtype.name)
    if kind is None:
        raise ValueError(f"browsers have no arrays of {values.dtype}: {', '.join(KINDS)}")
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {"kind": kind, "data": base64.b64encode(little.tobytes()).decode()}


def words(values: list[str | None]) -> dict[str, Any]:
    """A column of texts that repeat, as `LineOfSight.words` reads it: each text once, and its number in each row; -1 for none."""
    known: dict[str, int] = {}
    rows = [-1 if value is None else known.setdefault(value, len(known)) for value in values]
    return {"texts": list(known), "rows": numbers(np.array(rows, np.int32))}


def shortened(table: pl.DataFrame) -> pl.DataFrame:
    """A table whose texts are cut to what a page shows of them."""
    return table.with_columns(pl.col(pl.String).str.slice(0, LONGEST))


def file_name(text: str) -> str:
    """A name for a file that stands for any text, the same on every machine."""
    return xxhash.xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))


def _literal(value: Any) -> str:
    text = json.dumps(_finite(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _finite(value: Any) -> Any:
    """The same value without numbers that JSON lacks."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
