"""Figures of steering draw the numbers of the tables: effects as lines, controls dashed, doses from the unedited run on."""

import pytest

from linrep.explorer.dose import dose_figure, harm_figure, layer_figure, lens_figure, trade_figure
from linrep.store.tables import table_of
from schemas.steering import EFFECTS, LENS


def row(measure, value, layer=None, direction=None, strength=None, site=None):
    edit = "none" if site is None else "add"
    fields = {"site": site, "layer": layer, "edit": edit, "direction": direction, "strength": strength, "measure": measure}
    return {
        **fields,
        "control": direction == "random",
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "n_pairs": 3,
        "n": 9,
    }


@pytest.fixture
def effects():
    rows = [row("p_target", 0.2)]
    for layer in (0, 1):
        for direction, gain in (("class_mean", 0.3), ("random", 0.01)):
            for strength in (1.0, 2.0):
                rows.append(row("p_target", 0.2 + gain * strength, layer, direction, strength, "image"))
                rows.append(row("damage", 0.1 * strength, layer, direction, strength, "image"))
    return table_of(rows, EFFECTS)


def lines(figure, panel=0):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()), line.get_linestyle())
        for line in figure.axes[panel].lines
    }


def test_layer_curves_are_of_the_largest_strength(effects):
    found = lines(layer_figure(effects, "p_target", "p"))
    assert found["class mean"] == ([0, 1], pytest.approx([0.8, 0.8]), "-")
    assert found["random"] == ([0, 1], pytest.approx([0.22, 0.22]), "--")


def test_doses_begin_at_the_unedited_run(effects):
    figure = dose_figure(effects, "p_target", "p", "image")
    assert [axes.get_title() for axes in figure.axes[:2]] == ["image tokens, layer 0", "image tokens, layer 1"]
    assert lines(figure)["class mean"][:2] == ([0, 1, 2], pytest.approx([0.2, 0.5, 0.8]))


def test_harm_is_to_the_right_and_efficacy_upwards(effects):
    assert lines(harm_figure(effects, "image"))["class mean"][:2] == (pytest.approx([0.1, 0.2]), pytest.approx([0.5, 0.8]))


def test_the_trade_is_shown_on_the_half_that_nothing_was_chosen_on(effects):
    assert trade_figure(effects) is None
    rows = [
        {**row, "half_one": row["value"] + 0.05 * (row["layer"] or 0), "half_two": row["value"] - 0.02}
        | {"half_two_low": row["value"] - 0.1, "half_two_high": row["value"] + 0.1}
        for row in effects.to_pylist()
    ]
    figure = trade_figure(table_of(rows, EFFECTS))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_title() == "image tokens, layer 1"  # the better one by the first half
    found = lines(figure)
    assert found["class mean"][:2] == (pytest.approx([0.08, 0.18]), pytest.approx([0.48, 0.78]))
    assert found["random"][2] == "--"
    assert found["best trade"][:2] == (pytest.approx([0.18]), pytest.approx([0.78]))


def test_the_lens_has_its_control_and_chance():
    rows = [
        {"sample_id": f"s{i}", "class_name": "ab"[i % 2], "layer": layer, "n_tokens": 9, "n_high_norm": 0, "n_classes": 5}
        | {"p_class": 0.1 * (layer + i), "p_others": 0.05, "top_class": 0.5}
        for i in range(4)
        for layer in (0, 1)
    ]
    figure = lens_figure(table_of(rows, LENS))
    assert lines(figure)["the right class"][1] == pytest.approx([0.15, 0.25])
    assert lines(figure)["other classes, mean"][2] == "--"
    assert lines(figure, 1)["chance"][1] == [0.2, 0.2]
