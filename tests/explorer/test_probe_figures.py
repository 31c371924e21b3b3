"""The probes' figures draw the table's own numbers, each kind in one colour, with control and chance beside it."""

import numpy as np
import pytest

from linrep.explorer.probes import layer_figures, summary_lines
from linrep.store.tables import table_of
from schemas.probes import PROBES


def row(kind: str, layer: int, top1: float, **more) -> dict:
    base = {
        "attribute": "class", "view": "pooled", "layer": layer, "kind": kind, "tested_on": "image", "fitted_on": "image",
        "centred": False, "n_classes": 4, "n_train": 80, "n_test": 20, "n_test_samples": 20, "chance": 0.3,
        "top1": top1, "top1_low": top1 - 0.1, "top1_high": top1 + 0.1, "top5": 1.0, "top5_low": 1.0, "top5_high": 1.0,
        "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95, "n_high_norm": 0, "high_norm_positions": [],
    }  # fmt: skip
    control = {"shuffled": 0.25, "shuffled_low": 0.1, "shuffled_high": 0.4, "control_task": 0.45, "control_type": "attributes"}
    own = more.get("k") is None and more.get("n_per_class") is None and more.get("fitted_on", "image") == "image"
    return {**base, **(control if own else {}), **more}


ROWS = [
    row("ridge", 4, 0.8), row("ridge", 0, 0.4), row("lda", 0, 0.5), row("lda", 4, 0.7),
    row("lda", 0, 0.45, view="tokens"), row("lda", 4, 0.5, view="tokens"),
    row("sparse", 0, 0.3, k=2), row("sparse", 4, 0.35, k=2),
    row("ridge", 0, 0.2, n_per_class=5), row("ridge", 4, 0.3, n_per_class=5),
    row("ridge", 0, 0.31, fitted_on="text"), row("ridge", 4, 0.6, fitted_on="text", centred=True),
]  # fmt: skip


def test_every_curve_is_the_tables_own_with_its_control_and_chance():
    figures = layer_figures(table_of(ROWS, PROBES))
    assert figures.keys() == {"layers_class", "sparse_class", "samples_class", "transfer_class"}
    pooled, tokens = figures["layers_class"].axes[:2]
    lines = {line.get_label(): line for line in pooled.lines}
    assert list(lines["ridge"].get_xdata()) == [0, 4]
    assert list(lines["ridge"].get_ydata()) == [0.4, 0.8]
    assert list(lines["ridge, shuffled labels"].get_ydata()) == [0.25, 0.25]
    assert lines["most frequent class"].get_ydata()[0] == pytest.approx(0.3)
    elsewhere = {line.get_label(): line for line in tokens.lines}
    assert elsewhere["LDA"].get_color() == lines["LDA"].get_color() != lines["ridge"].get_color()


def test_the_summary_names_the_probe_that_validation_chose_its_control_and_what_was_left_out():
    rows = [{**row, "validation": 0.9 if (row["kind"], row["layer"]) == ("lda", 4) else 0.6} for row in ROWS]
    lines = summary_lines(table_of(rows, PROBES), {"place of image": ["top left"]})
    assert "lda, layer 4" in lines[2]  # ridge there is higher on test: .8
    assert "0.700 [0.600, 0.800]" in lines[2]
    assert "0.250 [0.100, 0.400]" in lines[2]
    assert lines[-1].endswith("place of image: top left")


def test_the_best_of_many_equal_probes_is_not_read_where_it_is_chosen():
    """Fifty-two cells whose truth is .47, each seen on 32 validation and 32 test samples: the best on test reads far above it."""
    rng, shown, best = np.random.default_rng(0), [], []
    for _ in range(40):
        val, test = rng.binomial(32, 0.47, (2, 52)) / 32
        rows = [{**row("ridge", i, test[i]), "validation": val[i]} for i in range(52)]
        line = summary_lines(table_of(rows, PROBES), {})[2]
        shown.append(float(line.split("[")[0].split()[-1]))
        best.append(test.max())
    assert np.mean(best) > 0.62
    assert abs(np.mean(shown) - 0.47) < 3 * (0.47 * 0.53 / 32 / 40) ** 0.5


def test_a_setting_at_the_edge_of_its_grid_is_told():
    rows = [row("ridge", 0, 0.5, setting=1e3, setting_edge="highest"), row("ridge", 1, 0.5, setting=1.0)]
    (line,) = (line for line in summary_lines(table_of(rows, PROBES), {}) if "warning" in line)
    assert "1 of 2 ridge probes chose the highest setting tried (1000): extend probe.alphas" in line


def test_one_legend_stands_beside_the_panels_and_none_on_data():
    figure = layer_figures(table_of(ROWS, PROBES))["layers_class"]
    assert [axes.get_legend() for axes in figure.axes] == [None] * len(figure.axes)
    (legend,) = figure.legends
    controls = {"ridge, shuffled labels", "ridge, control task by attributes", "most frequent class"}
    assert {text.get_text() for text in legend.get_texts()} == {"ridge", "LDA"} | controls
