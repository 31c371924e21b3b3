"""How large a model is as far as a harvest runs it, and what a forward pass costs, from its configuration alone."""

from dataclasses import dataclass

import torch
from transformers import AutoModel

from linrep.vlm.card import read_config
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import family_of
from linrep.vlm.files import locate
from linrep.vlm.processor import quiet
from linrep.vlm.sites import text_stack


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model as far as a harvest runs it.

    Attributes:
        blocks: Of its blocks: each position goes through all of them.
        vision: Of vision tower and projector: each patch goes through all of them.
        embeddings: Of the embeddings: they are held, and looked up.
        n_blocks: How many blocks.
        width: Of the stream.
    """

    blocks: int
    vision: int
    embeddings: int
    n_blocks: int
    width: int

    def n_bytes(self, of_parameter: float = 2) -> float:
        """Bytes of the weights, by default in 16 bits."""
        return of_parameter * (self.blocks + self.vision + self.embeddings)

    def flops(self, n_tokens: float, squares: float, patches: float) -> float:
        """Operations for some positions: two a parameter, and causal attention among the positions of each sample.

        Attention within the vision tower, norms and activations are left out: some percent.

        Args:
            n_tokens: Positions.
            squares: Sum of the squares of the samples' positions.
            patches: Patches that the tower sees.

        Source: Kaplan et al., "Scaling laws for neural language models", arXiv 2001.08361, 2020: 2 N a token for N parameters.
        """
        return 2 * self.blocks * n_tokens + 2 * self.n_blocks * self.width * squares + 2 * self.vision * patches


def size_of(config: ModelConfig, depth: int) -> ModelSize:
    """The size of a model cut after a layer; its weights are neither read nor held.

    Args:
        config: Folder or hub name.
        depth: Deepest layer that is recorded.
    """
    folder, _ = locate(config)
    full = read_config(folder)
    own = family_of(full.model_type).truncate(full, depth)
    with torch.device("meta"), quiet():
        model = AutoModel.from_config(own)
    stack = text_stack(model)
    blocks = sum(p.numel() for p in stack.layers.parameters())
    rest = sum(p.numel() for p in stack.parameters()) - blocks
    whole = sum(p.numel() for p in model.parameters())
    return ModelSize(blocks, whole - blocks - rest, rest, len(stack.layers), own.get_text_config().hidden_size)
