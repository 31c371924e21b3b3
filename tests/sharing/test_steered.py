"""Steering by directions from texts becomes rows of the concept level: read from the table of effects, not worked out again."""

from linrep.sharing.steered import steered
from linrep.store.tables import table_of
from schemas.steering import EFFECTS


def effect(direction: str | None, value: float, layer: int | None = 4, strength: float | None = 2.0, **changes) -> dict:
    """A row of the effects: by default of an addition, the share that turned."""
    control = direction in ("random", "text_shuffled_mean")
    return {
        "site": "image", "layer": layer, "edit": "add", "direction": direction, "strength": strength, "control": control,
        "measure": "turned", "value": value, "low": value - 0.125, "high": value + 0.125, "n_pairs": 8, "n": 30, **changes,
    }  # fmt: skip


ROWS = [
    effect(None, 0.0, None, None, site=None, edit="none"),
    effect("class_mean", 0.75),
    effect("text_class_mean", 0.5),
    effect("text_shuffled_mean", 0.25),
    effect("random", 0.125),
    effect("text_class_mean", 0.375, strength=0.5),
    effect("text_class_mean", 0.9, measure="p_target"),
    effect(None, 0.9, strength=None, edit="zero"),
    effect("class_mean", 0.8, layer=6),
]


def test_the_direction_from_texts_stands_beside_that_from_images_and_the_random_one():
    found = steered(table_of(ROWS, EFFECTS))
    assert set(found) == {4}  # nothing from texts was added at layer 6
    text, image, weak = found[4]
    assert (text.metric, text.value, text.low, text.high) == ("turned_by_text_class_mean_at_image_2", 0.5, 0.375, 0.625)
    assert (image.metric, image.value) == ("turned_by_class_mean_at_image_2", 0.75)
    for m in (text, image):
        assert (m.null, m.null_low, m.null_high, m.n, m.halves) == (0.125, 0.0, 0.25, 30, None)
    # Where no random direction was added at that strength there is no null.
    assert (weak.metric, weak.value, weak.null) == ("turned_by_text_class_mean_at_image_0.5", 0.375, None)


def test_controls_from_texts_are_no_directions_of_classes():
    assert steered(table_of([effect("text_shuffled_mean", 0.2), effect("class_mean", 0.2)], EFFECTS)) == {}
