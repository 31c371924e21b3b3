"""Examples of the report are rows of the tables, with the images that they are of and the patches on which a latent fires."""

import pyarrow as pa

from linrep.explorer.drawing import Drawing
from linrep.explorer.examples import HEAT, Patch, no_images, of_explanations, of_features
from linrep.store.tables import table_of
from schemas.features import FEATURE_EXAMPLES, FEATURE_LABELS
from schemas.interpret import EXPLANATIONS


def filled(schema: pa.Schema, **values: object) -> dict:
    def zero(kind: pa.DataType) -> object:
        return "" if pa.types.is_string(kind) else [] if pa.types.is_list(kind) else 0

    return {field.name: values.get(field.name, None if field.nullable else zero(field.type)) for field in schema}


def label(latent: int, value: str, chosen: float, f1: float, sae: str = "d") -> dict:
    return filled(FEATURE_LABELS, layer=2, sae=sae, latent=latent, modality="image", attribute="class", value=value, f1=f1) | {
        "f1_chosen": chosen
    }


def top_of(sae: str, layer: int, latent: int) -> pa.Table:
    whose = {"layer": layer, "sae": sae, "latent": latent, "modality": "image"}
    where = {"positions": [3, 4], "activations": [2.0, 1.0], "token_ids": [9, 9], "tiles": [0, 1], "rows": [5, 6], "cols": [7, 8]}
    rows = [
        filled(FEATURE_EXAMPLES, **whose, kind="top", rank=i, sample_id=f"{latent}-{i}.png", n_active=2, n_held=9, **where)
        for i in (1, 0)
    ]
    rows.append(filled(FEATURE_EXAMPLES, **whose, kind="quantile", rank=0, sample_id="drawn.png", quantile=1, **where))
    rows.append(filled(FEATURE_EXAMPLES, **{**whose, "modality": "text"}, kind="top", rank=0, sample_id="a text"))
    return table_of(rows, FEATURE_EXAMPLES)


class Pencil:
    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Patch, ...]]] = []

    def __call__(self, sample: str, patches) -> Drawing:
        self.asked.append((sample, tuple(patches)))
        return Drawing(b"", "image/png", 1, 1)


def test_a_latent_stands_beside_its_strongest_images_with_the_patches_on_which_it_fires():
    labels = [
        label(4, "boat", 0.9, 0.8),
        label(5, "boat", 0.7, 1.0),
        label(6, "tree", 0.8, 0.6),
        label(7, "key", 1.0, 1.0, "d/random"),
    ]
    pencil = Pencil()
    note, shown = of_features(table_of(labels, FEATURE_LABELS), top_of, pencil)
    assert note.endswith(HEAT)
    assert [one.text for one in shown] == [
        "latent 4 of d, layer 2: class boat in images, F1 0.80",
        "latent 6 of d, layer 2: class tree in images, F1 0.60",
    ]
    patches = (Patch(0, 5, 7, 2.0), Patch(1, 6, 8, 1.0))
    assert pencil.asked == [(f"{latent}-{i}.png", patches) for latent in (4, 6) for i in (0, 1)]
    assert [image.alt for image in shown[0].images] == [f"latent 4 fires on 2 of 9 patches of 4-{i}.png" for i in (0, 1)]


def test_where_images_cannot_be_had_the_words_are_there():
    table = table_of([filled(EXPLANATIONS, layer=2, sae="d", latent=4, explanation="boats", source="truth")], EXPLANATIONS)
    _, (one,) = of_explanations(table, top_of, no_images)
    assert one.text == "latent 4 of d, layer 2: boats"
    assert list(one.images) == []
    assert of_explanations(table.slice(0, 0), top_of, no_images)[1] == []
