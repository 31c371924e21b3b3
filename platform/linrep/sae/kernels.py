"""The two sparse products as Triton kernels, for CUDA. Imports without Triton; `AVAILABLE` says whether there is one.

A program sums one bag for one stretch of columns, term after term in the given order: no atomics, so the same bits every time.
Under Triton's interpreter (TRITON_INTERPRET=1) the same code runs on CPUs, which is how it is tested where there is no GPU.
"""

from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

AVAILABLE = find_spec("triton") is not None
_compiled: dict[str, Any] = {}


def gather_sum(
    table: Float[Tensor, "m d"], indices: Int[Tensor, " s"], weights: Float[Tensor, " s"], offsets: Int[Tensor, " bags_1"]
) -> Float[Tensor, "bags d"]:
    """As `linrep.sae.ops.gather_sum`."""
    n_bags, d = len(offsets) - 1, table.shape[1]
    out = torch.empty(n_bags, d, dtype=table.dtype, device=table.device)
    block = _block(d)
    if n_bags:
        grid = (n_bags, -(-d // block))
        _kernels()["gather_sum"][grid](table.contiguous(), indices, weights, offsets, out, d, block)
    return out


def sampled_dots(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], columns: Int[Tensor, " s"], offsets: Int[Tensor, " n_1"]
) -> Float[Tensor, " s"]:
    """As `linrep.sae.ops.sampled_dots`."""
    out = torch.empty(len(columns), dtype=a.dtype, device=a.device)
    if len(a):
        d = a.shape[1]
        _kernels()["sampled_dots"][(len(a),)](a.contiguous(), b.contiguous(), columns, offsets, out, d, _block(d))
    return out


def _block(d: int) -> int:
    return min(1024, 1 << (d - 1).bit_length())


def _kernels() -> dict[str, Any]:
    """The kernels, compiled by Triton at their first launch."""
    if not _compiled:
        from linrep.sae import triton_source

        _compiled.update(gather_sum=triton_source.gather_sum, sampled_dots=triton_source.sampled_dots)
    return _compiled
