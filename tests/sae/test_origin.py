"""What an SAE says it is of is understood in every library's words, and what does not fit is refused unless it is insisted on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from linrep.errors import FormatError, RecipeError
from linrep.places import place
from linrep.sae import formats
from linrep.sae.formats import dictionary_learning, saelens, sparsify
from linrep.sae.origin import check_origin, layer_of_hook, layer_said, layers_said, mismatches, origin_lines
from tests.sae.saes import D, make_sae

MODEL = {"path": "owner/tiny", "digest": "abc"}


@pytest.mark.parametrize(
    ("hook", "layer"),
    [("blocks.0.hook_resid_pre", 0), ("blocks.15.hook_resid_post", 16), ("layers.16", 17), ("model.layers.16", 17),
     ("model.language_model.layers.0", 1), ("gpt_neox.layers.3", 4), ("transformer.h.3", 4), ("resid_post_layer_3", 4),
     ("resid_pre_layer_3", 3), ("model.embed_tokens", 0), ("my_sae", None), ("seed3", None), ("", None)],
)  # fmt: skip
def test_a_hook_means_the_same_layer_in_every_librarys_words(hook: str, layer: int | None) -> None:
    assert layer_of_hook(hook) == layer


@pytest.mark.parametrize(
    "hook",
    ["blocks.3.hook_mlp_out", "blocks.3.attn.hook_z", "blocks.3.hook_resid_mid", "layers.3.mlp", "mlp_out_layer_3",
     "attn_layer_3", "vision_tower.encoder.layers.3"],
)  # fmt: skip
def test_other_places_than_the_stream_fit_no_layer(hook: str) -> None:
    with pytest.raises(ValueError, match=hook):
        layer_of_hook(hook)
    for layer in range(6):
        assert any("not the stream" in said for said in mismatches({"hook_name": hook}, layer, MODEL))


@pytest.mark.parametrize(
    ("about", "layers"),
    [({"layer": 3}, {3}), ({"layer": 3, "hook_name": "blocks.2.hook_resid_post"}, {3}), ({"hook_layer": 3}, {3, 4}),
     ({"layer": 3, "hook_name": "blocks.3.hook_resid_post"}, set()), ({"layers": [3, 4]}, {3, 4}),
     ({"layers": [3, 4], "hook_name": "resid_post_layer_3"}, {4}), ({}, set(range(8))), ({"hook_name": None}, set(range(8))),
     ({"hook_layer": 2, "hook_name": "blocks.2.hook_resid_post"}, {3})],
)  # fmt: skip
def test_all_that_is_said_of_the_layer_must_fit(about: dict, layers: set[int]) -> None:
    assert {layer for layer in range(8) if not mismatches(about, layer, MODEL)} == layers
    assert layer_said(about) == (next(iter(layers)) if len(layers) == 1 else None)


@pytest.mark.parametrize(
    ("about", "fits"),
    [({"model_name": "owner/tiny"}, True), ({"model_name": "tiny"}, True), ({"model_name": "/data/models/Tiny/"}, True),
     ({"model_name": "/hub/models--owner--tiny/snapshots/0123"}, True), ({"model_name": "gpt2-small"}, False), ({}, True),
     ({"model_name": None}, True), ({"model_name": "other", "model_digest": "abc"}, True),
     ({"model_name": "tiny", "model_digest": "abd"}, False), ({"modality": "both"}, True), ({"modality": "image"}, False),
     ({"modality": "text"}, False)],
)  # fmt: skip
def test_the_model_and_the_modality_that_are_said_must_fit(about: dict, fits: bool) -> None:
    assert bool(mismatches(about, 3, MODEL)) != fits


def test_a_mismatch_is_refused_and_one_that_is_insisted_on_stands_in_the_results() -> None:
    sae = make_sae("topk")
    assert origin_lines([check_origin(sae, "p", 3, D, MODEL, "features.saes.0", False)]) == []
    with pytest.raises(RecipeError, match=r"features\.saes\.0: p .* layer 4 .* says layer 3.*\.insist") as caught:
        check_origin(sae, "p", 4, D, MODEL, "features.saes.0", False)
    assert "\n" not in str(caught.value)
    insisted = check_origin(sae, "p", 4, D, MODEL, "features.saes.0", True)
    assert json.loads(json.dumps(insisted)) == insisted
    assert insisted["says_layer"] == "layer 3"
    assert origin_lines([insisted]) == ["INSISTED on p at layer 4, although it says layer 3"]
    for insist in (False, True):  # nothing can be done about a width
        with pytest.raises(RecipeError, match=f"is for width {D}"):
            check_origin(sae, "p", 3, D + 1, MODEL, "probe.sae", insist)


def test_what_is_not_said_is_unknown_and_told() -> None:
    silent = replace(make_sae("topk"), about={})
    found = check_origin(silent, "p", 5, D, MODEL, "probe.sae", False)
    assert (found["says_layer"], found["says_model"], found["insisted"]) == ("unknown", "unknown", [])
    assert origin_lines([found]) == ["p, used on layer 5: of layer unknown and model unknown"]


@pytest.mark.parametrize("layer", [0, 1, 16])
def test_the_layer_survives_every_format(layer: int, tmp_path: Path) -> None:
    sae = replace(make_sae("topk"), about={"layer": layer, "model_name": "owner/tiny"})
    for writer in (saelens, dictionary_learning):
        writer.write(place(tmp_path / writer.__name__), sae)
        about = formats.read(tmp_path / writer.__name__).about
        assert layer_said(about) == layer
        assert not mismatches(about, layer, MODEL)
        assert mismatches(about, layer + 1, MODEL)
    if layer:
        for folder in (f"layers.{layer - 1}", f"layers.{layer - 1}/seed0"):
            (tmp_path / "run").mkdir(exist_ok=True)
            (tmp_path / "run" / "config.json").write_text(json.dumps({"sae": {}, "model": "owner/tiny"}))
            sparsify.write(place(tmp_path / "run" / folder), sae)
            about = formats.read(tmp_path / "run" / folder).about
            assert (layer_said(about), about["model_name"]) == (layer, "owner/tiny")


@pytest.mark.parametrize(
    ("trainer", "buffer", "layers"),
    [({"layer": 3, "submodule_name": "resid_post_layer_3"}, {}, {4}),
     ({"layer": 3, "submodule_name": "resid_pre_layer_3"}, {}, {3}),
     ({"layer": 3}, {"io": "out"}, {4}), ({"layer": 3}, {"io": "in"}, {3}), ({"layer": 3}, {}, {3, 4}),
     ({"layer": 2, "submodule_name": "resid_post_layer_3"}, {}, set()),
     ({"layer": 3, "submodule_name": "mlp_out_layer_3"}, {}, set()),
     ({}, {}, set(range(8)))],
)  # fmt: skip
def test_dictionary_learnings_layer_is_a_block_whose_side_may_be_unknown(
    trainer: dict, buffer: dict, layers: set[int], tmp_path: Path
) -> None:
    dictionary_learning.write(place(tmp_path), replace(make_sae("topk"), about={}))
    value = {"trainer": {"dict_class": "AutoEncoderTopK", "k": 5, **trainer}, "buffer": buffer}
    (tmp_path / "config.json").write_text(json.dumps(value))
    about = formats.read(tmp_path).about
    assert {layer for layer in range(8) if not mismatches(about, layer, MODEL)} == layers
    (tmp_path / "config.json").write_text(json.dumps({**value, "buffer": {"io": "in_and_out"}}))
    with pytest.raises(FormatError, match=r"buffer\.io"):
        formats.read(tmp_path)


def test_a_layer_told_by_another_format_is_kept_by_ours(tmp_path: Path) -> None:
    for about in ({"layers": [3, 4]}, {"hook_name": "layers.2"}, {"hook_layer": 2}):
        saelens.write(place(tmp_path), replace(make_sae("topk"), about=about))
        assert layers_said(formats.read(tmp_path).about) == layers_said(about)
    assert torch.equal(formats.read(tmp_path).encoder, make_sae("topk").encoder)
