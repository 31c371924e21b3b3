"""Qwen3-VL: Qwen2-VL's grid, and features of earlier layers of the tower added to the stream after the first blocks.

So the output of block k - 1 is not the input of block k there. Layer k is the stream that enters block k, as everywhere.
"""

from linrep.vlm.families.qwen2_vl import Qwen2VL


class Qwen3VL(Qwen2VL):
    """Qwen3-VL."""

    model_types = ("qwen3_vl",)
    title = "Qwen3-VL"
    checkpoints = ("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-4B-Instruct")
    tokens = "height/32 x width/32, at most 1,280"
    limits = (
        "Images are scaled down to 1,280 tokens, also where the processor allows more.",
        "Features of the vision tower enter at layers 1 to 3, too: what is read there is not only what blocks have written.",
    )


FAMILY = Qwen3VL()
