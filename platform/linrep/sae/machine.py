"""What a training step may assume of the device that it runs on: room for pre-activations, and a number format for products."""

import time
from functools import cache
from typing import Literal

import torch

Product = Literal["float32", "bfloat16"]
"""Number format of a step's dense products."""

ROOM_BYTES = 64 * 2**20
"""Pre-activations held at once on a CPU. Measured on two cores at 12,288 latents: pieces of 1,024 rows (50 MB) run at the whole
product's speed, pieces of 256 rows take 10% longer."""
ROOM_SHARE = 64
"""On a GPU, one part in so many of its memory: with 80 GB, batches of 2,048 rows of 131,072 latents are one product."""
DECISIVE = 2.0
"""How many times faster bfloat16 must be on a CPU. With the instructions for it the factor is larger than this, without them it
is far below 1 (0.13 measured): a measurement on a busy machine still falls on the right side."""


def room_bytes(device: torch.device) -> int:
    """Pre-activations held at once."""
    if device.type != "cuda":
        return ROOM_BYTES
    return max(ROOM_BYTES, torch.cuda.get_device_properties(device).total_memory // ROOM_SHARE)


def best_product(device: torch.device) -> Product:
    """What `auto` means on a device: bfloat16 where a GPU has it, or where a CPU is measured to be decisively faster with it."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if seconds_of("float32") > DECISIVE * seconds_of("bfloat16") else "float32"


@cache
def seconds_of(kind: Product) -> float:
    """A small product on this machine's CPU, best of three."""
    a = torch.ones(256, 256, dtype=getattr(torch, kind))
    b = torch.ones(256, 1024, dtype=a.dtype)
    times = []
    for _ in range(4):  # the first one prepares
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return min(times[1:])
