"""The slow, obvious dictionary: everything dense, gradients by autograd, float64. The oracle of the fast pass."""

import torch
from torch import Tensor

from linrep.sae.config import BatchTopK, Matryoshka, TopK


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
        left = (x - full).detach()
        off = pre[:, dead]
        kept = off.topk(min(aux_k, len(dead)), dim=1)
        helped = torch.zeros_like(off).scatter(1, kept.indices, kept.values.relu()) @ weights["decoder"][dead]
        share = min(1.0, len(dead) / aux_k)
        loss = loss + aux_weight * share * (helped - left).square().sum(1).mean()
    return loss, z, full
