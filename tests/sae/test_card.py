"""The card says what was measured and beside what."""

import torch

from linrep.places import place
from linrep.sae.controls import random_sae
from linrep.sae.evaluate import evaluate
from linrep.sae.formats.card import card, write_card
from linrep.sae.train import Rows
from tests.sae.saes import F, inputs, make_sae


def test_a_card_has_each_modality_its_control_and_how_to_load(tmp_path) -> None:
    sae, rows = make_sae("topk"), [Rows(inputs(), torch.arange(50) % 2 == 0)]
    found, control = evaluate(sae, rows), evaluate(random_sae(inputs(), F, 5), rows)
    write_card(place(tmp_path), sae, found, control, {"CE recovered": 0.97123, "odd|name": "a\nb"})
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: saelens\n")
    assert "# Sparse autoencoder of layer 3 of tiny" in text
    header = next(line for line in text.splitlines() if line.startswith("| |"))
    assert header == "| | image | text | both | image, random directions | text, random directions |"
    fvu = next(line for line in text.splitlines() if line.startswith("| FVU"))
    assert f"{found.quality['image'].fvu:.4f}" in fvu
    assert f"{control.quality['text'].fvu:.4f}" in fvu
    assert "| CE recovered | 0.9712 |" in text
    assert "SAE.load_from_disk" in text


def test_an_sae_that_was_not_evaluated_says_so() -> None:
    assert "Not evaluated." in card(make_sae("relu"))
    assert "Not evaluated." not in card(make_sae("relu"), more={"FVU": 0.1})
