"""The slow, obvious SAE: everything dense, gradients by autograd, float64. The oracle of both passes."""

from typing import assert_never

import pytest
import torch
from torch import Tensor

from linrep.sae.config import BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"))
devices = pytest.mark.parametrize("device", ["cpu", GPU])
"""The law holds on both; PyTorch multiplies float32 in full unless a setting says otherwise (no TF32)."""


def planted(n: int, d: int, n_features: int, active: int, seed: int = 0, noise: float = 0.01) -> tuple[Tensor, Tensor]:
    """Rows that are sparse sums of known unit directions, scaled to a mean norm of sqrt(d), and the directions."""
    generator = torch.Generator().manual_seed(1000 + seed)  # not the seed of the first weights
    directions = torch.randn(n_features, d, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    chosen = torch.rand(n, n_features, generator=generator).topk(active, dim=1).indices
    amounts = torch.zeros(n, n_features).scatter(1, chosen, 1 + torch.rand(n, active, generator=generator))
    x = amounts @ directions + noise * torch.randn(n, d, generator=generator)
    return x * (d**0.5 / x.norm(dim=1).mean()), directions


def random_weights(f: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights in which nothing is zero, tied or of norm 1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"encoder": (f, d), "b_enc": (f,), "decoder": (f, d), "b_dec": (d,)}
    return {name: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) * 0.5 for name, shape in shapes.items()}


def chosen_mask(compared: Tensor, activation: TopK | BatchTopK | Matryoshka) -> Tensor:
    """Which entries of the dense pre-activations are active."""
    mask = torch.zeros_like(compared, dtype=torch.bool)
    if isinstance(activation, TopK):
        mask.scatter_(1, compared.topk(min(activation.k, compared.shape[1]), dim=1).indices, True)
    else:
        mask.view(-1)[compared.flatten().topk(min(activation.k * len(compared), compared.numel())).indices] = True
    return mask & (compared > 0)


def dense_loss(
    weights: dict[str, Tensor],
    x: Tensor,
    activation: TopK | BatchTopK | Matryoshka,
    weighted: bool = False,
    dead: Tensor | None = None,
    aux_k: int = 4,
    aux_weight: float = 1 / 32,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss with everything in it, codes, and reconstruction, all differentiable."""
    pre = (x - weights["b_dec"]) @ weights["encoder"].T + weights["b_enc"]
    compared = pre.detach() * (weights["decoder"].detach().norm(dim=1) if weighted else 1.0)
    z = pre * chosen_mask(compared, activation)
    f = z.shape[1]
    prefixes = [max(1, round(p * f)) for p in (activation.prefixes if isinstance(activation, Matryoshka) else (1.0,))]
    loss = torch.zeros((), dtype=x.dtype)
    for m in prefixes:
        reconstruction = z[:, :m] @ weights["decoder"][:m] + weights["b_dec"]
        loss = loss + (reconstruction - x).square().sum(1).mean() / len(prefixes)
    full = z @ weights["decoder"] + weights["b_dec"]
    if dead is not None:
        loss = loss + auxiliary_loss(pre, x - full, weights["decoder"], dead, aux_k, aux_weight)
    return loss, z, full


def auxiliary_loss(pre: Tensor, left: Tensor, decoder: Tensor, dead: Tensor, k: int, weight: float) -> Tensor:
    """AuxK: the k largest dead pre-activations, where positive, against what is left of the input, which is held fixed."""
    off = pre[:, dead]
    kept = off.topk(min(k, len(dead)), dim=1)
    helped = torch.zeros_like(off).scatter(1, kept.indices, kept.values.relu()) @ decoder[dead]
    return weight * min(1.0, len(dead) / k) * (helped - left.detach()).square().sum(1).mean()


def penalised_loss(
    weights: dict[str, Tensor],
    x: Tensor,
    activation: ReLU | JumpReLU | Gated,
    warmth: float = 1.0,
    dead: Tensor | None = None,
    aux_k: int = 4,
    aux_weight: float = 1 / 32,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss with everything in it, of that the penalty and the auxiliary loss, and codes.

    All are differentiable but for the thresholds of JumpReLU, whose gradient is no derivative of this: see `threshold_gradient`.
    """
    encoder, decoder, b_enc, b_dec = (weights[name] for name in ("encoder", "decoder", "b_enc", "b_dec"))
    norms, guide = decoder.square().sum(1).sqrt(), x.new_zeros(())
    match activation:
        case ReLU(l1=l1):
            pre = x @ encoder.T + b_enc
            z = pre.relu()
            penalty = l1 * (z * norms).sum(1).mean()
        case Gated(l1=l1):
            inner = (x - b_dec) @ encoder.T
            pre = inner + b_enc
            z = (inner * weights["r_mag"].exp() + weights["b_mag"]).relu() * (pre > 0)
            penalty = l1 * (pre.relu() * norms).sum(1).mean()
            guide = (pre.relu() @ decoder.detach() + b_dec.detach() - x).square().sum(1).mean()
        case JumpReLU(target_l0=target, weight=weight):
            pre = x @ encoder.T + b_enc
            z = pre * (pre > weights["threshold"])
            penalty = weight * x.shape[1] * ((z > 0).sum(1).to(x.dtype).mean() / target - 1) ** 2
        case _:
            assert_never(activation)
    full = z @ decoder + b_dec
    loss = (full - x).square().sum(1).mean() + guide + warmth * penalty
    auxiliary = x.new_zeros(()) if dead is None else auxiliary_loss(pre, x - full, decoder, dead, aux_k, aux_weight)
    return loss + auxiliary, warmth * penalty, auxiliary, z


def threshold_gradient(weights: dict[str, Tensor], x: Tensor, activation: JumpReLU, warmth: float = 1.0) -> Tensor:
    """Of JumpReLU's loss, entry by entry, as the paper has it: -(1 / e) K((pre - t) / e) times the loss that a jump of 1 (the
    count) and of t (the value) would make, K being 1 between -1/2 and 1/2.

    Source: Rajamanoharan et al., "Jumping ahead", 2024, equations 11 and 12.
    """
    pre, n, width = x @ weights["encoder"].T + weights["b_enc"], len(x), activation.bandwidth
    z = pre * (pre > weights["threshold"])
    off = z @ weights["decoder"] + weights["b_dec"] - x
    l0 = float((z > 0).sum()) / n
    slope = warmth * activation.weight * x.shape[1] * 2 * (l0 / activation.target_l0 - 1) / activation.target_l0
    found = torch.zeros_like(weights["threshold"])
    for i, threshold in enumerate(weights["threshold"].tolist()):
        for row in range(n):
            if abs(float(pre[row, i]) - threshold) < width / 2:
                by_value = 2 * float(off[row] @ weights["decoder"][i]) * threshold
                found[i] -= (by_value + slope) / (width * n)
    return found
