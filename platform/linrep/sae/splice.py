"""What the model loses when a dictionary's reconstructions take the place of its residual stream: CE and KL recovered."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.vlm.batch import Batch
from linrep.vlm.hooks import edit
from linrep.vlm.likelihood import cross_entropy, log_probabilities, predicting
from linrep.vlm.load import VLM

Where = Literal["image", "text", "both"]
Replace = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]
LEAST_HARM = 0.01
"""Nats per token: where zeros at these positions cost the model less, a share of that loss says nothing."""


@dataclass(frozen=True)
class Recovered:
    """Losses on the samples' own text, mean per token in nats, with some positions replaced at one layer.

    Attributes:
        where: Which positions were replaced.
        n_tokens: Tokens predicted.
        n_replaced: Positions replaced.
        ce: Cross-entropy of the untouched model.
        ce_spliced: With reconstructions.
        ce_zero: With zeros.
        ce_recovered: (ce_zero - ce_spliced) / (ce_zero - ce); NaN where zeros cost less than 0.01 nats.
        kl_spliced: KL divergence from the untouched model's predictions to those with reconstructions.
        kl_zero: To those with zeros.
        kl_recovered: 1 - kl_spliced / kl_zero; NaN likewise.
    """

    where: Where
    n_tokens: int
    n_replaced: int
    ce: float
    ce_spliced: float
    ce_zero: float
    ce_recovered: float
    kl_spliced: float
    kl_zero: float
    kl_recovered: float


@torch.inference_mode()
def splice(vlm: VLM, batches: Iterable[Batch], layer: int, coders: Mapping[str, Replace], where: Where) -> Recovered:
    """Run the model three times over each batch: as it is, with reconstructions, with zeros.

    Args:
        vlm: The whole model, with its head.
        batches: Samples with text of their own; images where image positions are to be replaced.
        layer: Layer k whose stream is replaced.
        coders: What replaces image rows and text rows, under `image` and `text`: the same dictionary, or one for each. Takes raw
            activations in float32.
        where: Positions to replace. Prompt and special tokens are never touched.

    Raises:
        ValueError: The model has no head, or no batch has text to predict.
    """
    if vlm.depth is not None:
        raise ValueError(f"the model is cut after layer {vlm.depth} and predicts nothing: load it with depth None")
    sums, n_tokens, n_replaced = torch.zeros(5, dtype=torch.float64), 0, 0
    zeros: Mapping[str, Replace] = {"image": _zeros, "text": _zeros}
    for batch in batches:
        rows, columns = predicting(batch)
        if not len(rows):
            continue
        targets = batch.input_ids[rows, columns + 1]
        plain = log_probabilities(vlm, batch, rows, columns)
        losses = [cross_entropy(plain, targets)]
        for replace in (coders, zeros):
            with _replaced(vlm, batch, layer, replace, where):
                changed = log_probabilities(vlm, batch, rows, columns)
            losses += [cross_entropy(changed, targets), (plain.exp() * (plain - changed)).sum(1)]
        sums += torch.stack([part.double().sum().cpu() for part in losses])
        n_tokens += len(rows)
        n_replaced += sum(int(_mask(batch, name).sum()) for name in _names(where))
    if not n_tokens:
        raise ValueError("no batch has text of its own: there is nothing to predict")
    ce, ce_spliced, kl_spliced, ce_zero, kl_zero = (sums / n_tokens).tolist()
    return Recovered(
        where=where,
        n_tokens=n_tokens,
        n_replaced=n_replaced,
        ce=ce,
        ce_spliced=ce_spliced,
        ce_zero=ce_zero,
        ce_recovered=guarded(ce_zero - ce_spliced, ce_zero - ce),
        kl_spliced=kl_spliced,
        kl_zero=kl_zero,
        kl_recovered=guarded(kl_zero - kl_spliced, kl_zero),
    )


def guarded(gain: float, harm: float) -> float:
    """A share of the harm that was undone; NaN where there was hardly any."""
    return gain / harm if harm >= LEAST_HARM else math.nan


def _zeros(h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return torch.zeros_like(h)


def _names(where: Where) -> tuple[str, ...]:
    return ("image", "text") if where == "both" else (where,)


def _mask(batch: Batch, name: str) -> Tensor:
    return batch.image_mask if name == "image" else batch.text_mask


@contextmanager
def _replaced(vlm: VLM, batch: Batch, layer: int, replace: Mapping[str, Replace], where: Where) -> Iterator[None]:
    with ExitStack() as stack:
        for name in _names(where):
            change = replace[name]
            stack.enter_context(edit(vlm, {layer: lambda h, change=change: change(h.float())}, _mask(batch, name)))
        yield
