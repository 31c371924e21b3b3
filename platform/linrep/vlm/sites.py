"""Where layer k is, in the model's modules and in other libraries' names.

Layer k of a model of n blocks is the residual stream entering block k, which is the stream after k blocks. Layer 0 is the
input embeddings with the projected image merged in; layer n is what leaves the last block, before the final norm.
"""

from typing import Any

from torch import nn


def text_stack(model: Any) -> Any:
    """The module with `layers` and `norm`, from a model with or without its head."""
    return model.get_decoder()


def site(model: Any, layer: int) -> nn.Module:
    """The module whose input is layer k: block k, or the final norm after the last block that the model has.

    Raises:
        ValueError: The (perhaps truncated) model does not reach that layer.
    """
    stack = text_stack(model)
    n = len(stack.layers)
    if not 0 <= layer <= n:
        raise ValueError(f"layer {layer} is not among 0..{n}, the layers of this model as loaded")
    return stack.layers[layer] if layer < n else stack.norm


def transformer_lens_name(layer: int) -> str:
    """The hook name of TransformerLens and SAELens.

    >>> transformer_lens_name(0), transformer_lens_name(16)
    ('blocks.0.hook_resid_pre', 'blocks.15.hook_resid_post')
    """
    return "blocks.0.hook_resid_pre" if layer == 0 else f"blocks.{layer - 1}.hook_resid_post"
