"""Tables as columns of a shard, as `LineOfSight.columns` reads them: numbers as typed arrays, texts once each."""

from typing import Any

import numpy as np
import polars as pl

from linrep.explorer.site.shards import numbers, words

MOST = 2**31 - 1
"""Largest whole number that travels exactly."""


def columns(frame: pl.DataFrame) -> dict[str, Any]:
    """All columns of a table, with the number of its rows under `n`.

    Shares and other fractions keep seven digits. Lists become texts with commas. Null is NaN among numbers, none among texts.
    """
    return {"n": len(frame), "columns": {name: _column(frame[name]) for name in frame.columns}}


def _column(values: pl.Series) -> dict[str, Any]:
    if values.dtype == pl.List:
        values = values.list.eval(pl.element().cast(pl.String)).list.join(", ")
    if values.dtype == pl.Boolean:
        values = values.replace_strict({True: "yes", False: "no"}, return_dtype=pl.String)
    if values.dtype == pl.String:
        return words(values.to_list())
    whole = values.dtype.is_integer() and not values.null_count() and (not len(values) or abs(int(values.abs().max())) <= MOST)  # pyright: ignore[reportArgumentType]
    if whole:
        return numbers(values.cast(pl.Int32).to_numpy())
    return numbers(np.ascontiguousarray(values.cast(pl.Float32).fill_null(float("nan")).to_numpy()))
