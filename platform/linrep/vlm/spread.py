"""A model over several devices: its blocks one after the other, in shares of equal size, what comes before them on the first.

Source: the device maps of accelerate, whose hooks move what goes from a device to the next.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from linrep.vlm.sites import text_stack


def placement(model: Any, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """Where each module goes: the blocks in order, and what follows them on the last device.

    Args:
        model: It may have no contents (`torch.device("meta")`).
        devices: In the order in which the stream goes through them.
    """
    stack = text_stack(model)
    blocks = list(stack.layers)
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is stack.embed_tokens.weight
    after = [stack.norm, *([head] if head is not None and not tied else [])]
    sizes = [_bytes(block) for block in blocks]
    before = _bytes(model) - sum(sizes) - sum(map(_bytes, after))
    share = (before + sum(sizes) + sum(map(_bytes, after))) / len(devices)
    device_of: dict[int, torch.device] = {id(module): devices[-1] for module in after}
    for block, end, size in zip(blocks, accumulate(sizes, initial=before), sizes, strict=False):
        device_of[id(block)] = devices[min(int((end + size / 2) / share), len(devices) - 1)]
    return dict(_places(model, "", device_of, devices[0]))


def _places(
    module: nn.Module, name: str, device_of: dict[int, torch.device], first: torch.device
) -> list[tuple[str, torch.device]]:
    """Names with their devices: of a module as a whole where none of its parts has a place of its own."""
    if id(module) in device_of:
        return [(name, device_of[id(module)])]
    if not any(id(part) in device_of for part in module.modules()):
        return [(name, first)]
    prefix = f"{name}." if name else ""
    own = [
        (f"{prefix}{one}", first) for one, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    parts = [place for one, part in module.named_children() for place in _places(part, f"{prefix}{one}", device_of, first)]
    return own + parts


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
