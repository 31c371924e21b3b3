"""Linear CKA of every kind of rows with every other, from kernels of the same pairs, a group of pairs at a time."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


def hsic_without_groups(
    kinds: Sequence[Float[Tensor, "n d"]], group: Int64[np.ndarray, " n"], n_groups: int
) -> tuple[Float[np.ndarray, "k k"], Float[np.ndarray, "g k k"]]:
    """The unbiased estimator of HSIC of linear kernels of k kinds of rows with each other: of all pairs, and without each group.

    Memory: k x n^2 / g numbers, and k x n x g.

    Args:
        kinds: Rows of n pairs, such as those of images at one layer.
        group: Group of each pair.
        n_groups: How many groups there are.

    Source: Song et al., "Feature selection via dependence maximization", 2012.
    """
    n, k = len(group), len(kinds)
    rows = [own.double() - own.double().mean(0) for own in kinds]
    of = torch.nn.functional.one_hot(torch.from_numpy(group), n_groups).double()
    to_group = torch.zeros(k, n, n_groups, dtype=torch.float64)  # sums of each row's kernel values, by group of the other row
    products, inside = torch.zeros(2, n_groups, k, k, dtype=torch.float64)
    for g in range(n_groups):
        own = torch.from_numpy(np.flatnonzero(group == g))
        kernel = torch.stack([x[own] @ x.T for x in rows])
        kernel[:, torch.arange(len(own)), own] = 0.0
        to_group[:, own] = kernel @ of
        products[g] = _inner(kernel)
        inside[g] = _inner(kernel[:, :, own])
    sums = to_group.sum(2)
    whole = _unbiased(products.sum(0), sums, n)
    without = []
    for g in range(n_groups):
        left = torch.from_numpy(group != g)
        own = (sums - to_group[:, :, g]) * left
        without.append(_unbiased(products.sum(0) - 2 * products[g] + inside[g], own, int(left.sum())))
    return whole, np.stack(without)


def _inner(kernel: Float[Tensor, "k a b"]) -> Float[Tensor, "k k"]:
    flat = kernel.flatten(1)
    return flat @ flat.T


def _unbiased(products: Float[Tensor, "k k"], sums: Float[Tensor, "k n"], n: int) -> Float[np.ndarray, "k k"]:
    """From inner products of kernels without their diagonals and from the sums of their rows; NaN of fewer than four pairs."""
    if n < 4:
        return np.full(products.shape, np.nan)
    total = sums.sum(1)
    found = products + torch.outer(total, total) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (sums @ sums.T)
    return (found / (n * (n - 3))).numpy()


def cka_of(hsic: Float[np.ndarray, "*g k k"]) -> Float[np.ndarray, "*g k k"]:
    """Linear CKA from HSIC; NaN of a kind whose own estimate is not above 0."""
    own = np.diagonal(hsic, axis1=-2, axis2=-1)
    own = np.where(own > 0, own, np.nan)
    return hsic / np.sqrt(own[..., :, None] * own[..., None, :])
