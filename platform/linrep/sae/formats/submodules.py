"""Where a dictionary_learning SAE was trained: their layer i is block i, whose output is the stream that enters block i + 1."""

from collections.abc import Mapping
from typing import Any

from linrep.sae.settings import Settings

BUFFERED = ("n_ctxs", "ctx_len", "refresh_batch_size", "out_batch_size", "device", "layer")
"""How activations were drawn, which changes nothing of what an SAE computes."""


def submodule(about: Mapping[str, Any]) -> dict[str, Any]:
    """Their words for the layer that an SAE says it is of."""
    layer = about.get("layer")
    if not isinstance(layer, int):
        return {"layer": None, "submodule_name": about.get("hook_name")}
    if layer == 0:
        return {"layer": 0, "submodule_name": "resid_pre_layer_0"}
    return {"layer": layer - 1, "submodule_name": f"resid_post_layer_{layer - 1}"}


def origin(trainer: Settings, buffer: Settings, width: int) -> dict[str, Any]:
    """Where an SAE says it was trained.

    Args:
        trainer: Their settings of the training.
        buffer: Their settings of the activations.
        width: Of the SAE.

    Raises:
        FormatError: It is a transcoder, or of activations of another width.
    """
    buffer.only("io", "out", "in", None, why="must be out or in: transcoders are not read")
    if buffer.number("d_submodule", least=1) not in (None, width):
        buffer.refuse("d_submodule", f"must be the width of the SAE, {width}")
    buffer.skip(BUFFERED)
    block, name, side = trainer.number("layer"), trainer.said("submodule_name"), buffer.raw("io", None)
    about: dict[str, Any] = {"model_name": trainer.said("lm_name"), "hook_name": name}
    if block is not None:
        # Named submodules say their side themselves; without a name, and without the side of the buffer, both are possible.
        sides = {"in": [block], "out": [block + 1], None: [block, block + 1]}[side]
        about["layers"] = sides if name is None else [block, block + 1]
    return {key: value for key, value in about.items() if value is not None}
