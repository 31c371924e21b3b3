"""The two sparse products of a training step, each behind one function whatever the device.

On CUDA the kernels of `linrep.sae.kernels` where Triton is installed, else PyTorch's; on CPUs embedding bags, and MKL's sampled
product where PyTorch was built with it. Nothing here knows what a latent is.
"""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from linrep.sae import kernels

GATHERED_BYTES = 32 * 2**20
"""Rows that the fallback of `sampled_dots` gathers at once."""


def gather_sum(
    table: Float[Tensor, "m d"], indices: Int[Tensor, " s"], weights: Float[Tensor, " s"], offsets: Int[Tensor, " bags_1"]
) -> Float[Tensor, "bags d"]:
    """Weighted sums of rows of a table, one a bag: out[i] = sum over s in bag i of weights[s] * table[indices[s]].

    Args:
        table: Rows to choose from.
        indices: Row of each term, bag after bag.
        weights: Factor of each term.
        offsets: Where each bag begins; one more, the number of terms, at the end. An empty bag sums to 0.
    """
    if table.is_cuda and kernels.AVAILABLE:
        return kernels.gather_sum(table, indices, weights, offsets)
    return embedding_bag(indices, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def sampled_dots(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], columns: Int[Tensor, " s"], offsets: Int[Tensor, " n_1"]
) -> Float[Tensor, " s"]:
    """Only the wanted entries of a @ b.T: out[s] = a[i] . b[columns[s]] for s in bag i.

    Args:
        a: One row a bag.
        b: Rows to choose from.
        columns: Row of b for each entry, bag after bag.
        offsets: Where each bag begins, and the number of entries at the end.
    """
    if a.is_cuda and kernels.AVAILABLE:
        return kernels.sampled_dots(a, b, columns, offsets)
    if torch.backends.mkl.is_available() or a.is_cuda:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            wanted = torch.sparse_csr_tensor(
                offsets, columns, a.new_zeros(len(columns)), (len(a), len(b)), check_invariants=False
            )
            return torch.sparse.sampled_addmm(wanted, a, b.t(), beta=0.0).values()
    return gathered_dots(a, b, columns, bag_of_each(offsets, len(columns)))


def gathered_dots(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], columns: Int[Tensor, " s"], rows: Int[Tensor, " s"]
) -> Float[Tensor, " s"]:
    """The same from gathered copies of both rows, a piece at a time: for machines without MKL."""
    step = max(1, GATHERED_BYTES // (a.shape[1] * a.element_size()))
    pieces = zip(rows.split(step), columns.split(step), strict=True)
    return torch.cat([torch.linalg.vecdot(a[r], b[c]) for r, c in pieces])


def bag_of_each(offsets: Int[Tensor, " bags_1"], total: int) -> Int[Tensor, " s"]:
    """The bag that each term belongs to; the number of terms is given, since the device would have to be waited for."""
    bags = torch.arange(len(offsets) - 1, device=offsets.device)
    return bags.repeat_interleave(offsets.diff(), output_size=total)


def bag_totals(values: Float[Tensor, " s"], offsets: Int[Tensor, " bags_1"]) -> Float[Tensor, " bags"]:
    """The sum of each bag's values, without atomics: the same bits every time."""
    return torch.segment_reduce(values, "sum", offsets=offsets, initial=0.0, unsafe=True)


def offsets_of(counts: Int[Tensor, " bags"]) -> Int[Tensor, " bags_1"]:
    """Where bags of these sizes begin, and where the last one ends."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
