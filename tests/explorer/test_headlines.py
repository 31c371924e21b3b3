"""Headlines say the tables' own numbers: chosen on one half, reported from the other, beside the control."""

from linrep.explorer.saes import sae_headline
from linrep.explorer.steering import best_cell, steer_examples, steer_headline
from linrep.store.tables import table_of
from schemas.saes import QUALITY
from schemas.steering import EFFECTS, VERDICTS

CELL = {"site": "last", "layer": 5, "edit": "add", "strength": 1.0, "control": False, "n_pairs": 4, "n": 40, "value": 0.5}


def effect(direction: str, measure: str, one: float, two: float, **more: object) -> dict[str, object]:
    ends = {"half_two_low": two - 0.1, "half_two_high": two + 0.1}
    return {**CELL, "direction": direction, "measure": measure, "half_one": one, "half_two": two, **ends, **more}


EFFECTS_ROWS = [
    effect("class_mean", "success", 0.8, 0.6),
    effect("class_mean", "success_over_random", 0.8, 0.55),
    effect("class_mean", "turned", 0.9, 0.7),
    effect("class_mean", "damage", 0.1, 0.02),
    # More turned on both halves, and fewer successes on the half that chooses: not chosen.
    effect("ridge", "turned", 0.95, 1.0),
    effect("ridge", "success", 0.1, 1.0),
    effect("random", "success", 0.99, 0.05, control=True),
]


def verdict(source: str, text: str, score: float, direction: str = "class_mean") -> dict[str, object]:
    return {
        "site": "last", "layer": 5, "edit": "add", "direction": direction, "strength": 1.0, "source": source, "target": "star",
        "sample_id": f"{source}.png", "question": 0, "about": "class", "text": text, "n_tokens": 2, "plain": f"{source} .",
        "score": score,
    }  # fmt: skip


def table(rows: list[dict[str, object]]):
    return table_of([{name: row.get(name) for name in VERDICTS.names} for row in rows], VERDICTS)


def test_the_best_trade_is_chosen_on_one_half_and_reported_from_the_other():
    effects = table_of(EFFECTS_ROWS, EFFECTS)
    best = best_cell(effects)
    assert best is not None
    assert best["direction"] == "class_mean"
    verdicts = table([verdict("leaf", "star .", 1.0), verdict("boat", "boat .", -1.0), verdict("leaf", "moon .", 0.0, "random")])
    headline = steer_headline(effects, verdicts)
    assert headline[0].startswith("Best trade: the last token, layer 5, class mean x1: 0.60 [0.50, 0.70] of the answers turned")
    assert "with every other attribute kept, 0.55 [0.45, 0.65] above a random direction there, 0.70 turned in all" in headline[0]
    assert "damage 0.02" in headline[0]
    assert "a random direction there 0.05" in headline[0]
    assert headline[1] == 'For example "leaf ." became "star ." (leaf to star, leaf.png).'


def test_examples_are_of_different_classes():
    rows = [verdict(name, "star .", 1.0) for name in ("leaf", "leaf", "boat", "key")]
    assert [line.before for line in steer_examples(table(rows), CELL | {"direction": "class_mean"}, 2)] == [
        "leaf .",
        "boat .",
    ]


def test_without_halves_nothing_is_chosen():
    rows = [{**EFFECTS_ROWS[0], "half_one": None, "half_two": None}]
    assert best_cell(table_of(rows, EFFECTS)) is None
    assert "No edit could be chosen" in steer_headline(table_of(rows, EFFECTS), table([verdict("leaf", "star .", 1.0)]))[0]


def quality(
    sae: str, measure: str, value: float | None, modality: str = "image", control: float | None = 0.9
) -> dict[str, object]:
    return {"layer": 4, "sae": sae, "modality": modality, "measure": measure, "value": value, "control": control}


def test_the_sae_to_use_is_the_one_with_the_lowest_fvu():
    rows = [quality(name, "fvu", fvu, m) for name, fvu in (("a", 0.3), ("b", 0.2)) for m in ("image", "text")]
    rows += [quality(name, "l0", l0, control=None) for name, l0 in (("a", 8.0), ("b", 16.0))]
    rows += [quality("b", "kl_spliced", 0.0123, "both", 0.45), quality("b", "kl_resample", 3.76, "both", None)]
    rows += [quality("a", "kl_spliced", 9.0, "both", 9.0)]
    headline = sae_headline(table_of(rows, QUALITY))
    assert headline[0].startswith(
        "Use b: FVU 0.20 at layer 4 with 16 latents active a token (random directions 0.90), the lowest of 2"
    )
    assert headline[1] == (
        "With it in the place of the stream, predictions move by a KL of 0.012 nats a token, random directions 0.45; another "
        "sample's tokens move them by 3.8."
    )
    assert sae_headline(table_of([quality("a", "fvu", None)], QUALITY)) == [
        "No SAE has an FVU: the held-out rows do not vary. summary.txt has what there is."
    ]
