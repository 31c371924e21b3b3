"""What the model loses when an SAE's reconstructions take the place of its residual stream: CE and KL in nats, beside ablations.

The KL of a good SAE is small: read it on a logarithmic scale. A share of what an ablation costs is near 1 for any SAE.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sample import unit_hash
from linrep.stats.bootstrap import of_sums
from linrep.stats.interval import Interval
from linrep.vlm.batch import Batch, collate, pack
from linrep.vlm.hooks import edit, forward, record
from linrep.vlm.likelihood import cross_entropy, log_probabilities, predicting
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role

Where = Literal["image", "text", "both"]
Replace = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]
LEAST_HARM = 0.01
"""Nats per token: where another sample's tokens at these positions cost the model less, a share of that loss says nothing."""
SPLICED, RESAMPLE, MEAN, ZERO = "spliced", "resample", "mean", "zero"
REPLACED_BY = (SPLICED, RESAMPLE, MEAN, ZERO)
"""What takes the place of the stream: reconstructions, another sample's tokens, the mean token, zeros."""
TOKENS_PER_BATCH = 2000


@dataclass(frozen=True)
class Spliced:
    """Losses on the samples' texts in nats, mean per token, with some positions replaced at one layer; 95% intervals over texts.

    Attributes:
        where: Which positions were replaced.
        n_texts: Texts counted.
        n_tokens: Tokens predicted.
        n_replaced: Positions replaced.
        ce: Cross-entropy of the untouched model.
        ce_spliced: With reconstructions.
        ce_resample: With another sample's tokens.
        ce_mean: With the mean token of the modality.
        ce_zero: With zeros.
        kl_spliced: KL divergence from the untouched model's predictions to those with reconstructions.
        kl_resample: To those with another sample's tokens.
        kl_mean: To those with the mean token.
        kl_zero: To those with zeros.
        ce_recovered: (ce_resample - ce_spliced) / (ce_resample - ce); NaN where resampling costs less than 0.01 nats. No ends
            where that is so in a draw of texts.
        kl_recovered: 1 - kl_spliced / kl_resample; NaN likewise.
    """

    where: Where
    n_texts: int
    n_tokens: int
    n_replaced: int
    ce: Interval
    ce_spliced: Interval
    ce_resample: Interval
    ce_mean: Interval
    ce_zero: Interval
    kl_spliced: Interval
    kl_resample: Interval
    kl_mean: Interval
    kl_zero: Interval
    ce_recovered: Interval
    kl_recovered: Interval


@dataclass(frozen=True)
class Losses:
    """What each text cost, summed over its tokens; a row a text, in the order in which they came.

    Attributes:
        where: Which positions were replaced.
        sums: Tokens, positions replaced, CE, and CE and KL with each of `REPLACED_BY`. NaN where there is no other sample.
    """

    where: Where
    sums: Float[Tensor, "n 11"]

    def spliced(self) -> Spliced:
        """Means and shares over the texts."""
        sums = self.sums.double().cpu().numpy()
        total = sums.sum(0, keepdims=True)

        def over_texts(statistic: Callable[[Float[np.ndarray, "r 11"]], Float[np.ndarray, " r"]]) -> Interval:
            return Interval(float(statistic(total)[0]), *of_sums(sums, statistic))

        def mean(measure: str, by: str) -> Interval:
            column = _column(measure, by)
            return over_texts(lambda s: s[:, column] / s[:, 0])

        losses = {f"{measure}_{by}": mean(measure, by) for measure in ("ce", "kl") for by in REPLACED_BY}
        return Spliced(
            where=self.where,
            n_texts=len(sums),
            n_tokens=int(total[0, 0]),
            n_replaced=int(total[0, 1]),
            ce=over_texts(lambda s: s[:, 2] / s[:, 0]),
            **losses,
            ce_recovered=over_texts(_ce_recovered),
            kl_recovered=over_texts(_kl_recovered),
        )


def splice(
    vlm: VLM,
    texts: Sequence[Prepared],
    layer: int,
    saes: Mapping[str, Replace],
    where: Where,
    means: Mapping[str, Float[Tensor, " d"]] | None = None,
    limits: Mapping[str, float] | None = None,
) -> Spliced:
    """What one SAE costs at some positions; see `splice_each`."""
    return splice_each(vlm, texts, layer, {"": saes}, (where,), means or {}, limits)["", where].spliced()


@torch.inference_mode()
def splice_each(
    vlm: VLM,
    texts: Sequence[Prepared],
    layer: int,
    saes: Mapping[str, Mapping[str, Replace]],
    wheres: Sequence[Where],
    means: Mapping[str, Float[Tensor, " d"]],
    limits: Mapping[str, float] | None = None,
    seed: int = 0,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> dict[tuple[str, Where], Losses]:
    """Run the model over the texts: as it is, and with each choice of positions replaced by each SAE, and by three ablations.

    Args:
        vlm: The whole model, with its head.
        texts: Samples with text of their own; with images where image positions are to be replaced.
        layer: Layer k whose stream is replaced.
        saes: By name of the SAE, what replaces image rows and text rows, under `image` and `text`: the same SAE,
            or one for each. Takes raw activations in float32.
        wheres: Positions to replace. Prompt and special tokens are never touched.
        means: Mean token of each modality at the layer; of one that is missing the mean ablation is NaN.
        limits: Norms above which positions are left as they are, too, under `image` and `text`: no SAE saw such rows, and
            without its attention sinks the model says nothing.
        seed: Of the draw of the other samples, whose tokens resampling puts there.
        tokens_per_batch: Positions of a micro-batch.

    Returns:
        By name and positions. Samples without text of their own are passed over.

    Raises:
        ValueError: The model has no head, or no sample has text to predict.

    Source: resample ablation as in Chan et al., "Causal scrubbing", 2022.
    """
    if vlm.depth is not None:
        raise ValueError(f"the model is cut after layer {vlm.depth} and predicts nothing: load it with depth None")
    limits = limits or {}
    others = {name: other_samples(texts, name, seed) for name in ("image", "text")}
    found: dict[tuple[str, Where], list[Tensor]] = {(name, where): [] for name in saes for where in wheres}
    # One micro-batch on the device at a time: the tiles of all captions would not fit beside the model.
    for indices in pack([len(one) for one in texts], tokens_per_batch):
        batch = collate([texts[i] for i in indices], vlm)
        rows, columns = predicting(batch)
        if not len(rows):
            continue
        with record(vlm, (layer,), lambda _, h: h.float().norm(dim=-1)) as norms:
            plain = log_probabilities(vlm, batch, rows, columns)
        masks = {name: _mask(batch, name, norms[layer], limits.get(name, math.inf)) for name in ("image", "text")}
        targets = batch.input_ids[rows, columns + 1]
        untouched = [torch.ones_like(plain[:, 0]), cross_entropy(plain, targets)]
        wanted = {name for where in wheres for name in _of(masks, where)}
        resampled = {
            name: _resampled(vlm, [others[name][i] for i in indices], texts, layer, name, masks[name], limits, tokens_per_batch)
            for name in wanted
        }

        for where in wheres:
            here = _of(masks, where)
            ablations = (resampled, {name: _constant(means.get(name)) for name in here}, dict.fromkeys(here, torch.zeros_like))
            harmed = [loss for by in ablations for loss in _harm(vlm, batch, layer, by, here, plain, targets)]
            n_replaced = sum(mask.sum(1) for mask in here.values())
            for name, replace in saes.items():
                left = _harm(vlm, batch, layer, replace, here, plain, targets)
                per_token = torch.stack([*untouched, *left, *harmed], dim=1).double().cpu()
                sums = torch.zeros(len(batch), per_token.shape[1], dtype=torch.float64).index_add_(0, rows.cpu(), per_token)
                with_text = sums[:, 0] > 0
                parts = [sums[:, :1], torch.as_tensor(n_replaced).cpu()[:, None], sums[:, 1:]]
                found[name, where].append(torch.cat(parts, dim=1)[with_text])
    if not all(found.values()):
        raise ValueError("no sample has text of its own: there is nothing to predict")
    return {key: Losses(key[1], torch.cat(parts)) for key, parts in found.items()}


def other_samples(texts: Sequence[Prepared], modality: str, seed: int) -> list[int | None]:
    """For each sample another one whose tokens of a modality take the place of its own, drawn by a hash.

    It has another image, or another text; as many tokens of the modality where there is such a one. None: there is no other.

    Args:
        texts: The samples.
        modality: image or text.
        seed: Of the draw.
    """
    sizes = [one.n_image_tokens if modality == "image" else one.n_text_tokens for one in texts]
    contents = [_content(one, modality) for one in texts]
    found: list[int | None] = []
    for i, one in enumerate(texts):
        others = [j for j in range(len(texts)) if sizes[j] and contents[j] != contents[i]]
        chosen = [j for j in others if sizes[j] == sizes[i]] or others
        drawn = int(unit_hash(one.sample.id, f"resample {modality} {seed}") * len(chosen))
        found.append(chosen[drawn] if chosen else None)
    return found


def guarded(gain: float, harm: float) -> float:
    """A share of the harm that was undone; NaN where there was hardly any."""
    return gain / harm if harm >= LEAST_HARM else math.nan


def _content(one: Prepared, modality: str) -> bytes:
    if modality == "image":
        return b"" if one.pixels is None else hashlib.sha256(one.pixels.tobytes()).digest()
    return one.input_ids[one.role == Role.TEXT].tobytes()


def _column(measure: str, by: str) -> int:
    """Where a loss stands among the sums of `Losses`."""
    return 3 + 2 * REPLACED_BY.index(by) + (measure == "kl")


def _ce_recovered(sums: Float[np.ndarray, "r 11"]) -> Float[np.ndarray, " r"]:
    harmed = sums[:, _column("ce", RESAMPLE)]
    return _shares(harmed - sums[:, _column("ce", SPLICED)], harmed - sums[:, 2], sums[:, 0])


def _kl_recovered(sums: Float[np.ndarray, "r 11"]) -> Float[np.ndarray, " r"]:
    harmed = sums[:, _column("kl", RESAMPLE)]
    return _shares(harmed - sums[:, _column("kl", SPLICED)], harmed, sums[:, 0])


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


def _resampled(
    vlm: VLM, others: Sequence[int | None], texts: Sequence[Prepared], layer: int, name: str, mask: Tensor,
    limits: Mapping[str, float], tokens_per_batch: int,
) -> Replace:  # fmt: skip
    """What puts other samples' tokens at the masked positions: in their order, evenly taken or repeated where numbers differ.

    Of no other sample predictions are NaN; where the other one has only tokens of high norm, a sample keeps its own.
    """
    there = sorted({other for other in others if other is not None})
    tokens = dict(zip(there, _tokens(vlm, [texts[i] for i in there], layer, name, limits, tokens_per_batch), strict=True))
    sizes = mask.sum(1).tolist()

    def put(h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        parts = []
        for own, other in zip(h.split(sizes), others, strict=True):
            found = torch.full_like(own[:1], math.nan) if other is None else tokens[other].to(own)
            found = found if len(found) else own
            parts.append(found[torch.arange(len(own), device=own.device) * len(found) // max(len(own), 1)])
        return torch.cat(parts)

    return put


def _tokens(
    vlm: VLM, samples: Sequence[Prepared], layer: int, name: str, limits: Mapping[str, float], tokens_per_batch: int
) -> list[Float[Tensor, "_ d"]]:
    """The stream of each sample at its own positions of a modality, without those of high norm."""
    found: dict[int, Tensor] = {}
    for indices in pack([len(one) for one in samples], tokens_per_batch):
        batch = collate([samples[i] for i in indices], vlm)
        with record(vlm, (layer,)) as streams:
            forward(vlm, batch)
        h = streams[layer].to(vlm.device)
        mask = _mask(batch, name, h.float().norm(dim=-1), limits.get(name, math.inf))
        found |= {i: h[row][mask[row]] for row, i in enumerate(indices)}
    return [found[i] for i in range(len(samples))]


def _nothing(h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """What is not known: predictions with it are NaN."""
    return torch.full_like(h, math.nan)


def _constant(row: Float[Tensor, " d"] | None) -> Replace:
    return _nothing if row is None else lambda h: row.to(h).expand_as(h)


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
