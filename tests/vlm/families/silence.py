"""Vision towers without attention, in which a patch sees its own pixels alone."""

from collections.abc import Sequence
from typing import Any

import torch

from linrep.vlm.load import VLM


def quiet_attention(vlm: VLM) -> Sequence[torch.nn.Module]:
    """The attentions of the vision tower: without them a token of the tower sees its own pixels alone."""
    tower = {id(module) for module in vlm.text.modules()}
    return [m for m in vlm.model.modules() if type(m).__name__.endswith("Attention") and id(m) not in tower]


def silent(module: torch.nn.Module) -> Any:
    """Adds nothing, in the shape that the blocks expect of attention."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return torch.zeros_like(hidden) if type(module).__name__ in ALONE else (torch.zeros_like(hidden), None)

    return forward


ALONE = ("Qwen2_5_VLVisionAttention", "VisionAttention", "Qwen3VLVisionAttention")
"""Attentions that give a tensor, not a pair."""
