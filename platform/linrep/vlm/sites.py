"""Where in a model vectors are recorded, and what other libraries call these sites.

- `residual`, layer k: the stream entering block k, which is the stream after k blocks. Layer 0 is the input embeddings with the
  projected image merged in; layer n of a model of n blocks is what leaves the last block, before the final norm.
- `attention`, layer k: what the attention of block k adds to the stream. Where a family normalises what it adds, that is behind
  the norm.
- `mlp`, layer k: what the MLP of block k adds likewise. The sum of residual k, attention k and mlp k is residual k + 1, but where
  a family adds features of the image between blocks (Qwen3-VL).
- `projector`: what stands in the stream for an image's tokens before the first block: layer 0 at image positions, before it is
  merged with the text. In LLaVA-NeXT the newlines among them are one learned vector and no output of the projector.
- `tower`: the vision tower's patches as the projector takes them, without its class token. They have their own width, and there
  are as many as the tower sees: `Family.tower_tokens` says which image token each is a part of.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

SiteName = Literal["residual", "attention", "mlp", "projector", "tower"]

OF_BLOCKS = ("residual", "attention", "mlp")
"""Sites of the language model, which have a layer."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a model.

    Attributes:
        name: One of residual, attention, mlp, projector, tower.
        layer: Which of them, where there are several; None for projector and tower.

    Raises:
        ValueError: There is no such site, it has no layer, or lacks one.
    """

    name: SiteName
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(SiteName):
            raise ValueError(f"there is no site {self.name!r}, only {', '.join(get_args(SiteName))}")
        if (self.layer is None) == (self.name in OF_BLOCKS):
            needs = "needs a layer" if self.layer is None else f"has no layers, got layer {self.layer}"
            raise ValueError(f"the site {self.name} {needs}")

    def __str__(self) -> str:
        return self.name if self.layer is None else f"{self.name} {self.layer}"


def text_stack(model: Any) -> Any:
    """The module with `layers` and `norm`, from a model with or without its head."""
    return model.get_decoder()


def entered(model: Any, layer: int) -> Any:
    """The module whose input is layer k: block k, or the final norm after the last block that the model has.

    Raises:
        ValueError: The (perhaps truncated) model does not reach that layer.
    """
    stack = text_stack(model)
    n = len(stack.layers)
    if not 0 <= layer <= n:
        raise ValueError(f"layer {layer} is not among 0..{n}, the layers of this model as loaded")
    return stack.layers[layer] if layer < n else stack.norm


def block(model: Any, layer: int) -> Any:
    """Block k, which adds what the sites attention k and mlp k hold.

    Raises:
        ValueError: The (perhaps truncated) model has no such block.
    """
    blocks = text_stack(model).layers
    if not 0 <= layer < len(blocks):
        raise ValueError(f"block {layer} is not among the {len(blocks)} blocks of this model as loaded, counted from 0")
    return blocks[layer]


def transformer_lens_name(layer: int, site: Literal["residual", "attention", "mlp"] = "residual") -> str:
    """The hook name of TransformerLens and SAELens; projector and tower have none there.

    >>> transformer_lens_name(0), transformer_lens_name(16)
    ('blocks.0.hook_resid_pre', 'blocks.15.hook_resid_post')
    >>> transformer_lens_name(16, "attention"), transformer_lens_name(16, "mlp")
    ('blocks.16.hook_attn_out', 'blocks.16.hook_mlp_out')
    """
    if site != "residual":
        return f"blocks.{layer}.hook_{'attn' if site == 'attention' else 'mlp'}_out"
    return "blocks.0.hook_resid_pre" if layer == 0 else f"blocks.{layer - 1}.hook_resid_post"
