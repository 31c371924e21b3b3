"""Words, curves and figure of the lenses name the ends of all layers, each value beside its controls."""

import numpy as np
import pyarrow as pa
import pytest

from linrep.explorer.sharing_lens import lens_curves, lens_figure, lens_headline, lens_lines
from linrep.store.tables import table_of
from schemas.sharing import SHARING_LENS

LAYERS = (0, 2, 5)


def table(contexts: str, value: float, attribute: str = "class", model: str = "trained", over: float = 0.2) -> pa.Table:
    """Shares that rise by .01 a layer; at layer 0 nothing is beyond other images."""
    rows = []
    for i in reversed(LAYERS):
        beyond = over if i else 0.0
        at = value + 0.01 * i
        rows.append(
            {
                "model": model, "image_layer": i, "contexts": contexts, "attribute": attribute, "value": at, "low": at - 0.1,
                "high": at + 0.1, "permuted": at - beyond, "over": beyond, "over_low": beyond - 0.1, "over_high": beyond + 0.1,
                "random": 0.07, "text_layer": None if contexts == "logit" else 2.5, "text_layer_low": None,
                "text_layer_high": None, "tokens": 90, "images": 9, "parents": "0",
            }
        )  # fmt: skip
    return table_of(rows, SHARING_LENS)


WHOLE = pa.concat_tables(
    [
        table("all", 0.4, attribute="colour"), table("all", 0.5), table("own", 0.4), table("first", 0.2, over=0.0),
        table("logit", 0.3), table("all", 0.1, model="untrained", over=0.0), table("own", 0.1, model="untrained"),
    ]
)  # fmt: skip


def test_the_headline_names_the_first_layer_above_0_and_the_last_beside_all_controls():
    assert lens_headline(WHOLE) == [
        "LatentLens: at image layers 2 and 5 a nearest context names the class for 0.52 [0.42, 0.62] and 0.55 [0.45, 0.65] of "
        "image tokens (other images' 0.32 and 0.35, contexts at random 0.07 and 0.07), and a likeliest word of the logit lens "
        "for 0.32 [0.22, 0.42] and 0.35 [0.25, 0.45] (other images' 0.12 and 0.15).",
        "LatentLens is beyond other images at 2 of 3 layers, the logit lens at 2 of 3 layers, the untrained model at "
        "0 of 3 layers.",
    ]
    assert lens_headline(WHOLE.slice(0, 0)) == []
    # Without classes it is about the first attribute, without an output matrix there is no logit lens.
    (first, second) = lens_headline(table("all", 0.4, attribute="colour"))
    assert "names the colour for 0.42 [" in first
    assert "logit lens" not in first + second


def test_lines_are_of_each_lens_attribute_and_model():
    head, *lines = lens_lines(WHOLE)
    assert "share of image tokens" in head
    assert [line.split(": layer")[0].strip() for line in lines] == [
        "class, LatentLens", "class, contexts of the same layer", "class, word embeddings", "class, logit lens",
        "untrained model: class, LatentLens", "colour, LatentLens",
    ]  # fmt: skip
    assert lines[2] == (
        "  class, word embeddings: layer 2 0.22 [0.12, 0.32], other images' 0.22, at random 0.07, beyond others +0.00 "
        "[-0.10, +0.10]; layer 5 0.25 [0.15, 0.35], other images' 0.25, at random 0.07, beyond others +0.00 [-0.10, +0.10]; "
        "above at 0 of 3 layers"
    )
    assert lens_lines(WHOLE.slice(0, 0)) == []


def test_curves_are_of_classes_by_layer():
    curves = lens_curves(WHOLE)
    assert set(curves) == {
        "latent_lens", "latent_lens_permuted", "latent_lens_over", "latent_lens_over/untrained", "logit_lens", "logit_lens_over",
    }  # fmt: skip
    assert curves["latent_lens"] == pytest.approx({0: 0.5, 2: 0.52, 5: 0.55})
    assert curves["latent_lens_over/untrained"] == pytest.approx({0: 0, 2: 0, 5: 0})
    assert curves["logit_lens_over"] == pytest.approx({0: 0, 2: 0.2, 5: 0.2})
    assert lens_curves(WHOLE.slice(0, 0)) == {}


def test_each_value_is_drawn_beside_its_controls():
    figure = lens_figure(WHOLE)
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [
        "class: share that names it", "class: beyond other images' values", "colour: share that names it",
        "colour: beyond other images' values", "Where nearest contexts lie",
    ]  # fmt: skip
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in panels[0].lines}
    assert drawn["LatentLens"] == pytest.approx([0.5, 0.52, 0.55])
    assert drawn["LatentLens, other images' values"] == pytest.approx([0.5, 0.32, 0.35])
    assert drawn["contexts drawn at random"] == pytest.approx([0.07] * 3)
    assert drawn["logit lens, other images' values"] == pytest.approx([0.3, 0.12, 0.15])
    assert drawn["untrained model"] == pytest.approx([0.1, 0.12, 0.15])
    assert {str(line.get_label()) for line in panels[1].lines} == {
        "LatentLens", "contexts of the same layer", "word embeddings", "logit lens", "untrained model", "none",
    }  # fmt: skip
    assert lens_figure(WHOLE.slice(0, 0)) is None
