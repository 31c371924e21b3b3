"""Attention sinks under an edit: positions whose norm is above the harvest's limit are left as they are.

Strength is in units of a token's own norm: a sink would move many times as far as other tokens. The class means that are added
were formed without sinks. The norms of the unedited stream at the edited layer decide once which positions of a prompt are
sinks. An edit acts at one layer, so what reaches that layer is unedited, and every cell of a sample edits the same positions.
Tokens that follow the prompt are held against the limit of texts as they come.

Source: Sun et al., "Massive Activations in Large Language Models", 2024.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.steer.sites import last_position
from linrep.store.read import Store
from linrep.vlm.decode import Context, Stream, alone, run
from linrep.vlm.hooks import RowEdit, record
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role


@dataclass(frozen=True)
class NormLimits:
    """Norms at one layer above which a position is left alone; infinite where none is.

    Attributes:
        image: Of image tokens, newlines included.
        text: Of all other tokens.
        last: Of the last position of a prompt.
    """

    image: float
    text: float
    last: float

    def at(self, one: Prepared) -> Float[np.ndarray, " t"]:
        """The limit of every position of a sequence."""
        found = np.where(one.role >= Role.IMAGE, self.image, self.text)
        last = last_position(one)
        if last >= 0:
            found[last] = self.last
        return found


def norm_limits(store: Store, layers: Sequence[int]) -> dict[int, NormLimits]:
    """The limits of a harvest at some layers; only layers that have one. Without texts, those of last positions hold for texts.

    Args:
        store: The harvest.
        layers: Layers at which edits act.
    """
    found = {}
    for layer in layers:
        image, text = (store.limit("tokens", layer, modality) for modality in ("image", "text"))
        last = store.limit("last", layer, "image")
        limits = NormLimits(image, text if math.isfinite(text) else last, last)
        if limits != NormLimits(math.inf, math.inf, math.inf):
            found[layer] = limits
    return found


@torch.inference_mode()
def sinks(
    vlm: VLM,
    prefix: Stream,
    suffixes: Sequence[Stream],
    prompts: Sequence[Prepared],
    limits: Mapping[int, NormLimits],
) -> list[dict[int, Bool[Tensor, " t"]]]:
    """For each prompt of one sample and each layer with limits, the positions whose unedited norm is above the limit.

    Args:
        vlm: The whole model.
        prefix: Layer 0 of what the prompts share.
        suffixes: Layer 0 of the rest of each prompt.
        prompts: The prompts.
        limits: By layer; where there are none, nothing is run.
    """
    if not limits:
        return [{} for _ in prompts]

    def norms(stream: Stream, before: Context | None = None) -> tuple[Context, dict[int, Float[Tensor, " _"]]]:
        with record(vlm, limits, lambda _, h: h[0].float().norm(dim=-1)) as found:
            context, _ = run(vlm, *alone(stream), before)
        return context, found

    context, start = norms(prefix) if len(prefix) else (None, {})
    found = []
    for suffix, one in zip(suffixes, prompts, strict=True):
        _, rest = norms(suffix, context)
        whole = {layer: torch.cat([start[layer], rest[layer]]) if len(prefix) else rest[layer] for layer in limits}
        found.append({layer: whole[layer].cpu() > torch.from_numpy(own.at(one)) for layer, own in limits.items()})
    return found


def below(edits: Mapping[int, RowEdit], limits: Mapping[int, NormLimits]) -> dict[int, RowEdit]:
    """The edits for tokens that follow a prompt: those above the limit of texts are left as they are."""
    return {layer: _below(apply, limits[layer].text) if layer in limits else apply for layer, apply in edits.items()}


def _below(apply: RowEdit, limit: float) -> RowEdit:
    def edit(h: Float[Tensor, "n d"], rows: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        high = h.float().norm(dim=-1, keepdim=True) > limit
        return torch.where(high, h, apply(h, rows).to(h.dtype))

    return edit
