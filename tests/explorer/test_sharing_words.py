"""The words on the sharing curves say what the numbers say: what rises, what falls, what is within the noise."""

import pyarrow as pa

from linrep.explorer.sharing import layer_figures, summary_lines
from linrep.explorer.sharing_words import plain_words, sharing_headline
from linrep.sharing.trends import trends
from linrep.store.tables import table_of
from schemas.sharing import SHARING, SHARING_TRENDS


def row(metric: str, layer: int, value: float, reach: float, null: float | None, model: str = "trained") -> dict:
    return {
        "model": model, "layer": layer, "level": "geometry", "sae": None, "metric": metric, "pooling": "mean", "attribute": None,
        "value": value, "low": value - reach, "high": value + reach, "null": null, "null_low": None, "null_high": None,
        "half_one": value, "half_two": value, "n": 100, "note": None, "parents": "0",
        "n_high_norm_image": 0, "high_norm_positions_image": [], "n_high_norm_text": 0, "high_norm_positions_text": [],
    }  # fmt: skip


def both(rows: list[dict]) -> tuple[pa.Table, pa.Table]:
    """The tables of some rows, and of their trends; layers count as independent."""
    return table_of(rows, SHARING), table_of(trends(rows, [], 0), SHARING_TRENDS)


def words(*values: tuple[float, float], null: float = 0.0, metric: str = "hub_centred", untrained: float = 0.0) -> str:
    rows = [row(metric, layer, value, reach, null) for layer, (value, reach) in enumerate(values)]
    rows += [row(metric, layer, untrained, 0.001, null, "untrained") for layer in range(len(values))]
    return plain_words(*both(rows))


def test_a_small_measure_that_loses_a_third_falls():
    said = words((0.050, 0.002), (0.031, 0.002))
    assert "the centred hub score falls from layer 0 to 1: 0.05 to 0.03, -0.02 [-0.02, -0.02]" in said
    assert "Against it: the centred hub score falls with depth" in said


def test_a_change_within_the_noise_is_undecided_and_one_of_less_than_a_tenth_is_flat():
    """By hand: two independent intervals of .1 either way make one of .14, which holds 0 and more than a tenth of .38."""
    said = words((0.30, 0.1), (0.38, 0.1))
    assert "the centred hub score is undecided from layer 0 to 1: 0.30 to 0.38, +0.08 [-0.06, +0.22]" in said
    said = words((0.500, 0.001), (0.520, 0.001))
    assert "the centred hub score is flat" in said
    assert "the centred hub score does not rise" in said


def test_how_much_a_change_is_counts_from_the_null():
    """From .52 to .56 is little of .56 and two thirds of what lies above .5."""
    assert "the centred hub score rises" in words((0.52, 0.001), (0.56, 0.001), null=0.5)
    assert "the centred hub score is flat" in words((0.52, 0.001), (0.56, 0.001), null=0.0)


def test_a_rise_agrees_with_the_claim():
    assert words((0.01, 0.001), (0.2, 0.001), (0.4, 0.001)).endswith("above its null.")
    assert "No curve is against it." in words((0.01, 0.001), (0.2, 0.001), (0.4, 0.001))


def test_what_an_untrained_model_has_too_is_not_called_learned():
    assert "untrained model's last layer hub_centred are above their nulls too" in words((0.1, 0.01), (0.3, 0.01), untrained=0.2)
    assert "none of hub_centred" in words((0.1, 0.01), (0.3, 0.01), untrained=0.04)


def test_summary_and_figure_show_the_tables_own_numbers():
    rows = [
        row("hub_centred", 0, 0.1, 0.01, 0.0),
        row("hub_centred", 1, 0.3, 0.02, 0.0),
        row("hub_centred", 1, 0.05, 0.01, 0.0, "untrained"),
    ]
    table = both(rows)
    line, trend = (line for line in summary_lines(*table) if line.strip().startswith("hub_centred "))
    assert trend.split(maxsplit=2)[2] == "rises from layer 0 to 1: 0.10 to 0.30, +0.20 [+0.18, +0.22]"
    assert line.split() == ["hub_centred", "0.100", "[0.090,", "0.110]", "0.300", "[0.280,", "0.320]", "0.000", "0.050"]
    (panel,) = layer_figures(*table)["sharing_geometry"].axes
    drawn = {str(curve.get_label()): list(curve.get_ydata()) for curve in panel.lines}
    assert drawn["trained"] == [0.1, 0.3]


def test_the_words_speak_of_latents_of_both_models_beside_random_directions():
    rows = [row("hub_centred", layer, 0.2, 0.01, 0.0) for layer in (0, 1)]
    for model, sae, values in (
        ("trained", "sae", (0.1, 0.4)), ("trained", "sae/random", (0.7, 0.8)), ("untrained", "sae", (0.6, 0.3)),
    ):  # fmt: skip
        for layer, value in enumerate(values):
            rows.append({**row("bimodal_mass", layer, value, 0.01, 1.0, model), "level": "latent", "sae": sae})
    said = plain_words(*both(rows))
    share = "the share of activation on bimodal latents"
    assert f"Of the trained model's latents in sae: {share} rises (0.10 in layer 0, 0.40 in layer 1, null 1.00, of" in said
    assert "of random directions 0.80)" in said
    assert f"Of the untrained model's latents in sae: {share} falls (0.60 in layer 0, 0.30 in layer 1, null 1.00)" in said
    curves = {str(c.get_label()) for c in layer_figures(*both(rows))["sharing_latent"].axes[0].lines}
    assert {"sae", "sae/random", "untrained, sae"} <= curves


def test_the_words_put_directions_from_texts_beside_those_from_images():
    """Chosen by the first half, said from the second; an image-derived one without a twin from texts does not count."""
    rows = [row("hub_centred", layer, 0.2, 0.01, 0.0) for layer in (0, 1)]
    for metric, values in (
        ("turned_by_text_class_mean_at_image_1", (0.1, 0.2)), ("turned_by_class_mean_at_image_1", (0.7, 0.6)),
        ("turned_by_ridge_at_image_1", (0.9, 0.9)),
    ):  # fmt: skip
        rows += [
            {**row(metric, layer, value, 0.1, 0.03 * layer), "level": "concept", "half_two": value - 0.08}
            for layer, value in enumerate(values)
        ]
    said = plain_words(*both(rows))
    assert "texts turn 0.12 of the answers about images, those found in images 0.62, a random one there 0.03" in said
    assert "Directions found in texts" not in words((0.1, 0.01), (0.2, 0.01))


def test_a_measure_without_a_value_says_why_in_words_and_summary():
    none = {"value": None, "low": None, "high": None, "half_one": None, "half_two": None, "note": "the directions are noise"}
    rows = [row("hub_centred", layer, 0.2, 0.01, 0.0) for layer in (0, 1)]
    rows += [{**row("direction_cosine", layer, 0.2, 0.01, 0.0), **none} for layer in (0, 1)]
    table = both(rows)
    assert "Direction cosine has no value in layer 0, 1: the directions are noise." in plain_words(*table)
    assert "  note: direction_cosine, layer 0, 1, trained: the directions are noise" in summary_lines(*table)


def test_the_headline_counts_verdicts_of_each_choice_of_tokens_and_what_the_untrained_model_does():
    """The layer with the highest value is not spoken of: nothing is selected."""
    rows = [row("hub_centred", layer, value, 0.01, 0.0) for layer, value in ((9, 0.42), (3, 0.11), (6, 0.77))]
    rows += [row("cka_debiased", layer, value, 0.01, 0.0) for layer, value in ((3, 0.53), (6, 0.6), (9, 0.24))]
    rows += [row("hub_centred", layer, value, 0.01, 0.0, "untrained") for layer, value in ((3, 0.05), (9, 0.31))]
    last = [{**row("direction_cosine", layer, value, 0.01, 0.0), "pooling": "last"} for layer, value in ((3, 0.2), (9, 0.6))]
    assert sharing_headline(*both([*rows, *last])) == [
        "Whether sharing rises with depth depends on what is compared: of means of all tokens 1 of 2 measures rise, "
        "of the last token under one question 1 of 1 measures rise.",
        "Of means of all tokens, from layer 3 to 9: 1 rises (the centred hub score 0.11 to 0.42); 1 falls (CKA 0.53 to 0.24).",
        "Of the last token under one question, from layer 3 to 9: 1 rises (the cosine of class directions 0.20 to 0.60).",
        "Of the 1 that rise and that the untrained model has too, 1 rise by more than there.",
    ]
    assert sharing_headline(*both(last))[0] == "Sharing rises with depth."
    assert sharing_headline(*both([r for r in rows if r["metric"] == "cka_debiased"]))[0] == "Sharing does not rise with depth."
    wide = [row("hub_centred", layer, value, 0.1, 0.0) for layer, value in ((3, 0.3), (9, 0.25))]
    assert sharing_headline(*both(wide))[0] == "No measure of sharing is seen to rise with depth, and some are undecided."
