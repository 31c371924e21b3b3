"""What the model loses when an SAE's reconstructions take the place of its residual stream: CE and KL recovered."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.stats.bootstrap import of_sums
from linrep.vlm.batch import Batch
from linrep.vlm.hooks import edit, record
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
        n_texts: Texts counted.
        n_tokens: Tokens predicted.
        n_replaced: Positions replaced.
        ce: Cross-entropy of the untouched model.
        ce_spliced: With reconstructions.
        ce_zero: With zeros.
        ce_recovered: (ce_zero - ce_spliced) / (ce_zero - ce); NaN where zeros cost less than 0.01 nats.
        ce_interval: Its 95% interval over the texts; NaN where a resample has no share.
        kl_spliced: KL divergence from the untouched model's predictions to those with reconstructions.
        kl_zero: To those with zeros.
        kl_recovered: 1 - kl_spliced / kl_zero; NaN likewise.
        kl_interval: Its 95% interval likewise.
    """

    where: Where
    n_texts: int
    n_tokens: int
    n_replaced: int
    ce: float
    ce_spliced: float
    ce_zero: float
    ce_recovered: float
    ce_interval: tuple[float, float]
    kl_spliced: float
    kl_zero: float
    kl_recovered: float
    kl_interval: tuple[float, float]


@dataclass(frozen=True)
class Losses:
    """What each text cost, summed over its tokens; a row a text, in the order in which they came.

    Attributes:
        where: Which positions were replaced.
        sums: Tokens, positions replaced, CE, CE and KL with reconstructions, CE and KL with zeros.
    """

    where: Where
    sums: Float[Tensor, "n 7"]

    def likeliest(self, n: int) -> "Losses":
        """The n texts that cost the untouched model least per token."""
        kept = (self.sums[:, 2] / self.sums[:, 0]).argsort(stable=True)[:n].sort().values
        return Losses(self.where, self.sums[kept])

    def recovered(self) -> Recovered:
        """Means and shares over the texts."""
        total = self.sums.sum(0)
        n_tokens, n_replaced = int(total[0]), int(total[1])
        ce, ce_spliced, kl_spliced, ce_zero, kl_zero = (total[2:] / n_tokens).tolist()
        return Recovered(
            where=self.where,
            n_texts=len(self.sums),
            n_tokens=n_tokens,
            n_replaced=n_replaced,
            ce=ce,
            ce_spliced=ce_spliced,
            ce_zero=ce_zero,
            ce_recovered=float(_ce_share(total[None].numpy())[0]),
            ce_interval=of_sums(self.sums.double().cpu().numpy(), _ce_share),
            kl_spliced=kl_spliced,
            kl_zero=kl_zero,
            kl_recovered=float(_kl_share(total[None].numpy())[0]),
            kl_interval=of_sums(self.sums.double().cpu().numpy(), _kl_share),
        )


def splice(
    vlm: VLM,
    batches: Iterable[Batch],
    layer: int,
    coders: Mapping[str, Replace],
    where: Where,
    limits: Mapping[str, float] | None = None,
) -> Recovered:
    """What one SAE recovers at some positions; see `splice_each`."""
    return splice_each(vlm, batches, layer, {"": coders}, (where,), limits)["", where].recovered()


@torch.inference_mode()
def splice_each(
    vlm: VLM,
    batches: Iterable[Batch],
    layer: int,
    coders: Mapping[str, Mapping[str, Replace]],
    wheres: Sequence[Where],
    limits: Mapping[str, float] | None = None,
) -> dict[tuple[str, Where], Losses]:
    """Run the model over each batch: once as it is, once with zeros for each choice of positions, and once for each SAE.

    Args:
        vlm: The whole model, with its head.
        batches: Samples with text of their own; images where image positions are to be replaced.
        layer: Layer k whose stream is replaced.
        coders: By name of the SAE, what replaces image rows and text rows, under `image` and `text`: the same SAE,
            or one for each. Takes raw activations in float32.
        wheres: Positions to replace. Prompt and special tokens are never touched.
        limits: Norms above which positions are left as they are, too, under `image` and `text`: no SAE saw such rows, and
            without its attention sinks the model says nothing.

    Returns:
        By name and positions. Samples without text of their own are passed over.

    Raises:
        ValueError: The model has no head, or no batch has text to predict.
    """
    if vlm.depth is not None:
        raise ValueError(f"the model is cut after layer {vlm.depth} and predicts nothing: load it with depth None")
    zeros: Mapping[str, Replace] = {"image": _zeros, "text": _zeros}
    found: dict[tuple[str, Where], list[Tensor]] = {(name, where): [] for name in coders for where in wheres}
    for batch in batches:
        rows, columns = predicting(batch)
        if not len(rows):
            continue
        with record(vlm, (layer,), lambda _, h: h.float().norm(dim=-1)) as norms:
            plain = log_probabilities(vlm, batch, rows, columns)
        masks = {name: _mask(batch, name, norms[layer], (limits or {}).get(name, math.inf)) for name in ("image", "text")}
        targets = batch.input_ids[rows, columns + 1]
        untouched = [torch.ones_like(plain[:, 0]), cross_entropy(plain, targets)]

        for where in wheres:
            harmed = _harm(vlm, batch, layer, zeros, _of(masks, where), plain, targets)
            n_replaced = sum(mask.sum(1) for mask in _of(masks, where).values())
            for name, replace in coders.items():
                left = _harm(vlm, batch, layer, replace, _of(masks, where), plain, targets)
                per_token = torch.stack([*untouched, *left, *harmed], dim=1).double().cpu()
                sums = torch.zeros(len(batch), 6, dtype=torch.float64).index_add_(0, rows.cpu(), per_token)
                with_text = sums[:, 0] > 0
                parts = [sums[:, :1], torch.as_tensor(n_replaced).cpu()[:, None], sums[:, 1:]]
                found[name, where].append(torch.cat(parts, dim=1)[with_text])
    if not all(found.values()):
        raise ValueError("no batch has text of its own: there is nothing to predict")
    return {key: Losses(key[1], torch.cat(parts)) for key, parts in found.items()}


def guarded(gain: float, harm: float) -> float:
    """A share of the harm that was undone; NaN where there was hardly any."""
    return gain / harm if harm >= LEAST_HARM else math.nan


def _ce_share(sums: Float[np.ndarray, "r 7"]) -> Float[np.ndarray, " r"]:
    return _shares(sums[:, 5] - sums[:, 3], sums[:, 5] - sums[:, 2], sums[:, 0])


def _kl_share(sums: Float[np.ndarray, "r 7"]) -> Float[np.ndarray, " r"]:
    return _shares(sums[:, 6] - sums[:, 4], sums[:, 6], sums[:, 0])


def _shares(
    gains: Float[np.ndarray, " r"], harms: Float[np.ndarray, " r"], tokens: Float[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    each = zip((gains / tokens).tolist(), (harms / tokens).tolist(), strict=True)
    return np.array([guarded(gain, harm) for gain, harm in each])


def _harm(
    vlm: VLM,
    batch: Batch,
    layer: int,
    replace: Mapping[str, Replace],
    masks: Mapping[str, Tensor],
    plain: Tensor,
    targets: Tensor,
) -> list[Float[Tensor, " s"]]:
    """CE of each token, and its KL divergence from the untouched model's prediction, with positions replaced."""
    with _replaced(vlm, layer, replace, masks):
        changed = log_probabilities(vlm, batch, *predicting(batch))
    return [cross_entropy(changed, targets), (plain.exp() * (plain - changed)).sum(1)]


def _zeros(h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return torch.zeros_like(h)


def _of(masks: Mapping[str, Tensor], where: Where) -> Mapping[str, Tensor]:
    return masks if where == "both" else {where: masks[where]}


def _mask(batch: Batch, name: str, norms: Float[Tensor, "b t"], limit: float) -> Tensor:
    """Positions of one modality, without those of high norm."""
    mask = batch.image_mask if name == "image" else batch.text_mask
    return mask & ~((norms > limit) & norms.isfinite()).to(mask.device)


@contextmanager
def _replaced(vlm: VLM, layer: int, replace: Mapping[str, Replace], masks: Mapping[str, Tensor]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, mask in masks.items():
            change = replace[name]
            stack.enter_context(edit(vlm, {layer: lambda h, change=change: change(h.float())}, mask))
        yield
