"""Figures show the values they were given, bands and controls included."""

import pytest
from matplotlib.collections import LineCollection, PolyCollection

from linrep.explorer.figures import Curve, Panel, matrix, panels

PROBE = Curve("ridge", (0.0, 1.0, 2.0), (0.1, 0.5, 0.9), (0.0, 0.4, 0.8), (0.2, 0.6, 1.0))
CONTROL = Curve("shuffled labels", (0.0, 1.0, 2.0), (0.1, 0.1, 0.1), control=True)


def test_the_lines_are_the_values_and_a_control_is_dashed():
    figure = panels("", [Panel("t", "layer", "top-1", (PROBE, CONTROL), (0.0625, "chance"))])
    (axes,) = figure.axes
    by_label = {line.get_label(): line for line in axes.lines}
    assert by_label.keys() == {"ridge", "shuffled labels", "chance"}
    assert list(by_label["ridge"].get_ydata()) == [0.1, 0.5, 0.9]
    assert by_label["ridge"].get_linestyle() == "-"
    assert by_label["shuffled labels"].get_linestyle() == "--"
    assert list(by_label["chance"].get_ydata()) == [0.0625, 0.0625]
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(0.0)
    assert heights.max() == pytest.approx(1.0)


def test_intervals_of_many_curves_stand_side_by_side_and_those_of_controls_are_one_band():
    many = [Curve(f"c{i}", (0.0, 1.0), (0.5, 0.6), (0.4, 0.5), (0.6, 0.7)) for i in range(3)]
    controls = [Curve(f"k{i}", (0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.3 + i / 10, 0.3), control=True) for i in range(2)]
    (axes,) = panels("", [Panel("t", "layer", "y", (*many, *controls), x_whole=True)]).axes
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(0.4)
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert len(bars) == 3
    places = [bar.get_segments()[0][0][0] for bar in bars]
    assert len(set(places)) == 3
    assert max(map(abs, places)) < 0.5
    assert {tuple(end[1] for end in bar.get_segments()[0]) for bar in bars} == {(0.4, 0.6)}


@pytest.mark.parametrize(("x", "x_log", "step"), [((0.5, 1.0, 2.0), False, 0.5), ((16.0, 32.0, 128.0), True, 2.0)])
def test_bars_stand_aside_by_less_than_half_a_step_of_their_axis_and_values_that_are_measured_stay(x, x_log, step):
    many = [Curve(f"c{i}", x, (0.5, 0.6, 0.7), (0.4,) * 3, (0.8,) * 3) for i in range(4)]
    (axes,) = panels("", [Panel("t", "strength", "y", tuple(many), x_log=x_log)]).axes
    assert not [c for c in axes.collections if isinstance(c, PolyCollection)]
    lines = [line for line in axes.lines if str(line.get_label()).startswith("c")]
    for i, own in enumerate(x):
        places = [float(line.get_xdata()[i]) for line in lines]
        assert len(set(places)) == 4
        assert max(max(a / own, own / a) if x_log else 1 + abs(a - own) for a in places) < (step**0.5 if x_log else 1 + step / 2)
    measured = [Curve(f"c{i}", (15.0 + i, 31.0 + i), (0.5, 0.6), (0.4, 0.4), (0.8, 0.8)) for i in range(3)]
    (axes,) = panels("", [Panel("t", "L0", "y", tuple(measured), x_log=x_log)]).axes
    assert [tuple(line.get_xdata()) for line in axes.lines] == [curve.x for curve in measured]


def test_panels_of_one_measure_have_the_same_ends():
    small, large = (Panel("t", "layer", "y", (Curve("c", (0.0, 1.0), (0.0, top)),)) for top in (0.01, 1.0))
    one, other = panels("", [small, large], alike="y").axes
    assert one.get_ylim() == other.get_ylim()


def test_a_grid_draws_every_panel_and_hides_what_is_left(tmp_path):
    parts = [Panel(f"p{i}", "layer", "top-1", (PROBE,), x_whole=True) for i in range(4)]
    figure = panels("all", parts, n_columns=3)
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == ["p0", "p1", "p2", "p3"]
    assert len(figure.axes) == 6
    figure.savefig(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_a_matrix_shows_its_values_in_their_places():
    figure = matrix("confusion", [[5.0, 1.0], [0.0, 4.0]], ["a", "b"], ["a", "b"], "samples")
    assert figure.axes[0].images[0].get_array().tolist() == [[5.0, 1.0], [0.0, 4.0]]
