"""Small SAEs of random weights, one of each rule, whose decoder rows have no norm in common."""

import torch

from linrep.sae.architectures import Above, Gate, Largest, Rectify
from linrep.sae.sae import Sae
from tests.sae.reference import random_weights

D, F = 12, 40


def make_sae(kind: str, centred: bool = True, seed: int = 0) -> Sae:
    w = random_weights(F, D, seed, torch.float32)
    positive = torch.rand(F, generator=torch.Generator().manual_seed(seed)) + 0.1
    rule = {
        "relu": Rectify(), "topk": Largest(5), "jumprelu": Above(positive), "gated": Gate(positive - 0.5, w["b_enc"].flip(0)),
    }[kind]  # fmt: skip
    return Sae(w["encoder"], w["b_enc"], w["decoder"], w["b_dec"], rule, centred, {"layer": 3, "model_name": "tiny"})


def inputs(n: int = 50) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(9)) * 2


KINDS = ("relu", "topk", "jumprelu", "gated")
