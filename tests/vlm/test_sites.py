import pytest
from jaxtyping import TypeCheckError

from linrep.vlm.sites import Site, block, entered, text_stack, transformer_lens_name


def test_layer_k_enters_block_k_and_layer_n_enters_the_norm(vlm):
    stack = text_stack(vlm.model)
    assert [entered(vlm.model, k) for k in range(3)] == list(stack.layers)
    assert entered(vlm.model, 3) is stack.norm


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_beyond_the_model_is_refused_by_name(vlm, layer):
    with pytest.raises(ValueError, match=rf"layer {layer} is not among 0\.\.3"):
        entered(vlm.model, layer)


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_block_beyond_the_model_is_refused_by_name(vlm, layer):
    with pytest.raises(ValueError, match=f"block {layer} is not among the 3 blocks"):
        block(vlm.model, layer)


def test_names_of_other_libraries():
    assert transformer_lens_name(0) == "blocks.0.hook_resid_pre"
    assert transformer_lens_name(1) == "blocks.0.hook_resid_post"
    assert transformer_lens_name(24) == "blocks.23.hook_resid_post"
    assert transformer_lens_name(0, "attention") == "blocks.0.hook_attn_out"
    assert transformer_lens_name(23, "mlp") == "blocks.23.hook_mlp_out"


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("mlp", None, "the site mlp needs a layer"),
        ("tower", 3, "the site tower has no layers, got layer 3"),
        ("norm", 1, "there is no site 'norm', only residual, attention, mlp, projector, tower"),
    ],
)
def test_a_site_has_a_layer_where_there_are_several(name, layer, reason):
    with pytest.raises((ValueError, TypeCheckError), match=f"{reason}|Type-check"):
        Site(name, layer)
