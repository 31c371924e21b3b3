"""The headline of interpretations says the table's own numbers, and how random directions do beside them."""

import pyarrow as pa
import pytest

from linrep.explorer.interpret import interpret_headline, score_metrics
from schemas.interpret import SCORES

SPREAD = (-0.02, 0.0, 0.02, 0.0)


def rows(sae: str, modality: str, task: str, control: str, mean: float, n: int = 40, layer: int = 2) -> list[dict]:
    row = {
        "layer": layer, "sae": sae, "modality": modality, "task": task, "control": control, "source": "truth",
        "n_positive": 20, "n_negative": 20, "n_hard": 0, "n_unanswered": 0,
    }  # fmt: skip
    return [{**row, "latent": i, "value": mean + SPREAD[i % 4]} for i in range(n)]


def table(random: float, n: int = 40) -> pa.Table:
    some = []
    for modality, mean in (("image", 0.72), ("text", 0.81)):
        some += rows("sae", modality, "detection", "own", mean, n)
        some += rows("sae", modality, "detection", "shuffled", 0.5, n)
        some += rows("sae/random", modality, "detection", "own", random, n)
        some += rows("sae/random", modality, "detection", "shuffled", 0.47, n)
    some += rows("sae", "image", "overlap", "own", 0.3, n)
    return pa.Table.from_pylist(some, SCORES)


def test_the_headline_says_the_means_of_the_table_beside_both_controls() -> None:
    image, text, random = interpret_headline(table(0.61))
    assert image.startswith("Of image trials, explanations get .72 [.")
    assert "another latent's explanation .50, random directions .61; 40 latents" in image
    assert text.startswith("Of text trials, explanations get .81 [.")
    assert "overlap" not in image + text
    assert random == "Random directions are harder to explain in image detection, text detection."


def test_random_directions_that_score_as_high_are_named() -> None:
    assert interpret_headline(table(0.82))[2].startswith("Random directions are as easy to explain here")


def test_few_latents_decide_nothing() -> None:
    image, _, random = interpret_headline(table(0.72, n=1))
    assert "get .70 [no interval: too few rows that differ] right in detection" in image
    assert random == "Random directions compare so: too few latents to decide in image detection, text detection."
    assert interpret_headline(SCORES.empty_table()) == ["No latent has enough answers for a score."]


def test_right_answers_alone_still_have_an_interval() -> None:
    every = pa.Table.from_pylist([row | {"value": 1.0} for row in rows("sae", "image", "detection", "own", 1.0)], SCORES)
    (sentence,) = interpret_headline(every)
    assert "1.00 [.91, 1.00]" in sentence


def test_metrics_are_curves_over_layers() -> None:
    both = rows("sae", "text", "fuzzing", "own", 0.9, layer=2) + rows("sae", "text", "fuzzing", "own", 0.6, layer=5)
    curves = score_metrics(pa.Table.from_pylist(both, SCORES))
    assert curves["mean/fuzzing_text_own_sae"] == pytest.approx({2: 0.9, 5: 0.6})
    assert curves["good/fuzzing_text_own_sae"] == {2: 1.0, 5: 0.0}
