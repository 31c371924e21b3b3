"""What a training step may assume of the device that it runs on: room for pre-activations."""

import torch

ROOM_BYTES = 64 * 2**20
"""Pre-activations held at once on a CPU. Measured on two cores at 12,288 latents: pieces of 1,024 rows (50 MB) run at the whole
product's speed, pieces of 256 rows take 10% longer."""
ROOM_SHARE = 64
"""On a GPU, its memory divided by this: with 80 GB, batches of 2,048 rows of 131,072 latents are one product."""


def room_bytes(device: torch.device) -> int:
    """Pre-activations held at once."""
    if device.type != "cuda":
        return ROOM_BYTES
    return max(ROOM_BYTES, torch.cuda.get_device_properties(device).total_memory // ROOM_SHARE)
