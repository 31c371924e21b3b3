"""The features' figures and lines show what the table holds, random directions apart."""

import polars as pl
import pyarrow as pa
import pytest

from linrep.explorer.features import feature_figures, feature_metrics, features_headline, flat, numbers, summary_lines
from linrep.stats.wilson import wilson
from schemas.features import FEATURES


def table() -> pa.Table:
    rows = []
    for sae, f1 in (("d", [0.9, 0.95, 0.1, None]), ("d/random", [0.1, 0.2, 0.9, 0.3])):
        for i, value in enumerate(f1):
            row = {field.name: ["a", "b"] if pa.types.is_string(getattr(field.type, "value_type", None) or pa.null()) else [] if
                   pa.types.is_list(field.type) else None if field.nullable else 0 for field in FEATURES}  # fmt: skip
            fires = value is not None
            rows.append({**row, "layer": 3, "sae": sae, "latent": i, "f1": value, "rate_image": 0.1 * fires})
    return pa.Table.from_pylist(rows, schema=FEATURES)


def test_numbers_are_those_of_the_latents_by_hand():
    own = numbers(pl.DataFrame(pl.from_arrow(table())).filter(pl.col("sae") == "d"))
    assert own["alive"] == own["alive_image"] == 0.75
    assert own["alive_text"] == 0
    assert own["good_f1"] == 0.5
    assert own["median_f1"] == pytest.approx(0.9)
    assert own["median_entropy"] is None
    assert feature_metrics(table())["good_f1/d/random"] == {3: 0.25}


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


def planted(layers: int = 1) -> pa.Table:
    """40 latents that fire of 50, 30 of them on texts too; 10 separate a label better than nearly all of 40 random directions."""
    (blank, *_) = table().to_pylist()
    rows = []
    for layer in range(layers):
        for i in range(50):
            own = {
                "f1": 0.9 if i < 10 else 0.2,
                "rate_image": 0.1 * (i < 40),
                "rate_text": 0.1 * (i < 30),
                "monosemanticity": 0.6,
            }
            rows.append({**blank, "layer": layer, "sae": "d", "latent": i, **own})
        for i in range(40):
            own = {"f1": 0.01 * i, "rate_image": 0.1, "rate_text": 0.0, "monosemanticity": 0.25}
            rows.append({**blank, "layer": layer, "sae": "d/random", "latent": i, **own})
    return pa.Table.from_pylist(rows, schema=FEATURES)


def test_the_headline_says_the_numbers_of_the_table_beside_those_of_random_directions():
    (sentence,) = features_headline(planted())
    low, high = wilson(0.25, 40)
    assert sentence == (
        "Layer 0, SAE d: 40 of 50 latents fire, 30 of them on both image and text tokens; "
        f"10 of 40 (25%, 95% interval {low:.0%} to {high:.0%}) separate a label better than F1 0.38 on samples that it was not "
        "chosen on; 2% of random directions do; median monosemanticity is 0.60, of random directions 0.25."
    )
    assert features_headline(planted(5))[:2] == [sentence, sentence.replace("Layer 0", "Layer 1")]
    assert features_headline(planted(5))[2:] == ["3 more SAEs were looked into: the lines below have a row for each."]


def test_a_headline_without_labels_or_other_encoder_says_nothing_of_them():
    bare = planted()
    for name in ("f1", "monosemanticity"):
        bare = bare.set_column(FEATURES.get_field_index(name), FEATURES.field(name), pa.nulls(len(bare), pa.float64()))
    assert features_headline(bare) == ["Layer 0, SAE d: 40 of 50 latents fire, 30 of them on both image and text tokens."]
