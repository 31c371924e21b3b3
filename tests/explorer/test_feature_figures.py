"""The features' figures and lines tell what the table holds, random directions apart."""

import polars as pl
import pyarrow as pa
import pytest

from linrep.explorer.features import feature_figures, feature_metrics, flat, numbers, summary_lines
from schemas.features import FEATURES


def table() -> pa.Table:
    rows = []
    for dictionary, f1 in (("d", [0.9, 0.95, 0.1, None]), ("d/random", [0.1, 0.2, 0.9, 0.3])):
        for i, value in enumerate(f1):
            row = {field.name: ["a", "b"] if pa.types.is_string(getattr(field.type, "value_type", None) or pa.null()) else [] if
                   pa.types.is_list(field.type) else None if field.nullable else 0 for field in FEATURES}  # fmt: skip
            fires = value is not None
            rows.append({**row, "layer": 3, "dictionary": dictionary, "latent": i, "f1": value, "rate_image": 0.1 * fires})
    return pa.Table.from_pylist(rows, schema=FEATURES)


def test_numbers_are_those_of_the_latents_by_hand():
    own = numbers(pl.DataFrame(pl.from_arrow(table())).filter(pl.col("dictionary") == "d"))
    assert own["alive"] == own["alive_image"] == 0.75
    assert own["alive_text"] == 0
    assert own["told"] == 0.5
    assert own["median_f1"] == pytest.approx(0.9)
    assert own["median_entropy"] is None
    assert feature_metrics(table())["told_d/random_layer03"] == 0.25


def test_figures_draw_controls_dashed_and_leave_out_what_is_not_there():
    (figure,) = feature_figures(table()).values()
    titles = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    assert "monosemanticity" not in titles
    lines = {line.get_label(): line for line in titles["best class or attribute: F1"].lines}
    assert lines["d/random"].get_linestyle() == "--"
    assert sum(lines["d"].get_ydata()) == pytest.approx(0.75)


def test_lines_and_lists_can_be_read():
    lines = summary_lines(table(), 0.125)
    assert "0.500" in lines[1]
    assert lines[-1].endswith("0.125")
    assert flat(table())["words_up"][0].as_py() == "a | b"
