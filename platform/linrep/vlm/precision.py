"""The number format that a model runs in. Imports no transformers."""

import torch


def number_format(precision: str, device: torch.device) -> torch.dtype:
    """As it is named: float32, bfloat16 or float16; of auto bfloat16 on GPUs that have it, and else float32."""
    if precision != "auto":
        return getattr(torch, precision)
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
