import pytest

from linrep.vlm.sites import site, text_stack, transformer_lens_name


def test_layer_k_enters_block_k_and_layer_n_enters_the_norm(vlm):
    stack = text_stack(vlm.model)
    assert [site(vlm.model, k) for k in range(3)] == list(stack.layers)
    assert site(vlm.model, 3) is stack.norm


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_beyond_the_model_is_refused_by_name(vlm, layer):
    with pytest.raises(ValueError, match=rf"layer {layer} is not among 0\.\.3"):
        site(vlm.model, layer)


def test_names_of_other_libraries():
    assert transformer_lens_name(0) == "blocks.0.hook_resid_pre"
    assert transformer_lens_name(1) == "blocks.0.hook_resid_post"
    assert transformer_lens_name(24) == "blocks.23.hook_resid_post"
