"""Erasing what linear probes read: which dimensions are taken out of the stream, and random ones to compare them with.

Every way gives an `Eraser`, whose dimensions stand in an order: the first r of them are the eraser of rank r, so that ranks are
nested. What a row has in common with all others, the centre, is never touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.linear import solve_damped

VANISHING = 1e-6
"""Of directions, singular values below this share of the largest one are rounding: class means come in float32, too."""
NEVER_VARIES = 1e-12
"""Of a covariance, eigenvalues below this share of the largest one are rounding, as in `linrep.linear`."""


@dataclass(frozen=True)
class Eraser:
    """h - ((h - centre) @ read.T) @ write: what is read along some directions is taken out along others.

    Attributes:
        read: One row a dimension: what is measured of h.
        write: What is taken out for it; read @ write.T is the identity, so that erasing twice is erasing once. The same rows as
            `read` where the eraser is an orthogonal projection.
    """

    read: Float[Tensor, "r d"]
    write: Float[Tensor, "r d"]

    @property
    def rank(self) -> int:
        """Dimensions that it erases."""
        return len(self.read)

    def first(self, rank: int) -> "Eraser":
        """The eraser of the first dimensions; all of them where there are fewer."""
        return Eraser(self.read[:rank], self.write[:rank])

    def __call__(self, h: Float[Tensor, "n d"], centre: Float[Tensor, " d"]) -> Float[Tensor, "n d"]:
        """Rows without these dimensions, about a centre that stays where it is."""
        return h - ((h - centre) @ self.read.T) @ self.write

    def of_deviations(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The same of rows that are measured from the centre."""
        return x - (x @ self.read.T) @ self.write

    def of_covariance(self, covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
        """The covariance, or the scatter, of the rows that it leaves."""
        return self.of_deviations(self.of_deviations(covariance).T)

    def removed(self, covariance: Float[Tensor, "d d"]) -> float:
        """Mean squared distance that rows of this covariance are moved, over their variance; zero where they do not vary."""
        total = float(covariance.trace())
        taken = (self.read @ covariance @ self.read.T) * (self.write @ self.write.T)
        return float(taken.sum()) / total if total > 0 else 0.0


def projection(basis: Float[Tensor, "r d"]) -> Eraser:
    """The orthogonal projection that takes out what lies along an orthonormal basis."""
    return Eraser(basis, basis)


def of_means(means: Float[Tensor, "c d"]) -> Eraser:
    """The projection along the subspace that class means span about their own mean, its widest dimensions first.

    All dimensions together make the classes' means coincide: no linear probe does better than a constant on the rows that the
    means are of. Every class weighs the same.

    Args:
        means: One row a class.

    Source: Ravfogel et al., "Null It Out", 2020, with nearest means for the probe: one round then erases all that there is.
    """
    return projection(_principal(means - means.mean(0), len(means) - 1))


def leace(covariance: Float[Tensor, "d d"], means: Float[Tensor, "c d"]) -> Eraser:
    """The eraser after which class means coincide and that moves rows least: LEACE.

    Of all affine maps that leave linear probes nothing, none has a smaller mean squared distance between a row and what becomes
    of it. Dimensions come by how well they separate the classes, in units of the rows' own spread, the best first.

    Args:
        covariance: Of the rows.
        means: One row a class, of the same rows.

    Source: Belrose et al., "LEACE: Perfect linear concept erasure in closed form", 2023 (theorem 4.2).
    """
    values, vectors = torch.linalg.eigh(covariance)
    varies = values > NEVER_VARIES * values.max().clamp(min=0)
    spread, vectors = values[varies].sqrt(), vectors[:, varies]
    basis = _principal((means - means.mean(0)) @ vectors / spread, len(means) - 1)
    return Eraser((basis / spread) @ vectors.T, (basis * spread) @ vectors.T)


def inlp(covariance: Float[Tensor, "d d"], means: Float[Tensor, "c d"], damping: float, rank: int) -> Eraser:
    """Iterative null-space projection: the weights of ridge probes, refitted on what the rounds before have left.

    One round takes out one dimension less than there are classes, those of the largest weights first; what the weights do not
    read of the classes stays, and the next round finds it.

    Args:
        covariance: Of the rows.
        means: One row a class, of the same rows.
        damping: Penalty on the squared weights, in the covariance's own unit.
        rank: Dimensions to take out; fewer where the classes coincide before.

    Source: Ravfogel et al., "Null It Out: Guarding protected attributes by iterative nullspace projection", 2020.
    """
    deviations = means - means.mean(0)
    basis, whole = deviations.new_zeros(0, means.shape[1]), float(deviations.norm())
    while len(basis) < rank:
        left, done = deviations - (deviations @ basis.T) @ basis, projection(basis)
        if float(left.norm()) <= VANISHING * whole:
            break
        weights = solve_damped(done.of_covariance(covariance), damping, left.T.contiguous()).T
        found = _principal(weights - (weights @ basis.T) @ basis, len(means) - 1)
        basis = torch.cat([basis, found])
    return projection(basis[:rank])


def principal_axes(covariance: Float[Tensor, "d d"], most: int) -> Float[Tensor, "m d"]:
    """Principal axes of some rows, as long as the rows' deviation along them, the longest first.

    Args:
        covariance: Of the rows.
        most: How many, at most.
    """
    values, vectors = torch.linalg.eigh(covariance)
    order = values.argsort(descending=True)[:most]
    order = order[values[order] > NEVER_VARIES * values.max().clamp(min=0)]
    return (vectors[:, order] * values[order].sqrt()).T.contiguous()


def like_data(axes: Float[Tensor, "m d"], rank: int, draw: torch.Generator) -> Eraser:
    """The projection along random directions with the covariance of the data: the control that takes out as loud dimensions.

    Args:
        axes: What `principal_axes` gives.
        rank: Directions to draw; as many as there are axes where these are fewer.
        draw: Draws them.
    """
    drawn = torch.randn(min(rank, len(axes)), len(axes), generator=draw, dtype=axes.dtype)
    return projection(_in_order(drawn @ axes))


def isotropic(rank: int, width: int, draw: torch.Generator) -> Eraser:
    """The projection along random directions of which none is preferred: the control that nearly misses the data.

    Args:
        rank: Directions to draw.
        width: Dimensions of a row.
        draw: Draws them.
    """
    return projection(_in_order(torch.randn(min(rank, width), width, generator=draw, dtype=torch.float64)))


def ranks_up_to(most: int) -> Sequence[int]:
    """Ranks of a curve: doubling from 1, and the most."""
    doubling = [2**i for i in range(most.bit_length()) if 2**i < most]
    return [*doubling, most] if most > 0 else []


def _principal(vectors: Float[Tensor, "n d"], most: int) -> Float[Tensor, "r d"]:
    """An orthonormal basis of the span of some rows, the widest dimensions first; signs are set, whatever the decomposition's."""
    _, sizes, basis = torch.linalg.svd(vectors, full_matrices=False)
    basis = basis[: min(most, int((sizes > VANISHING * sizes[:1]).sum()))]
    if not len(basis):
        return basis
    return basis * basis.gather(1, basis.abs().argmax(dim=1, keepdim=True)).sign()


def _in_order(drawn: Float[Tensor, "r d"]) -> Float[Tensor, "r d"]:
    """An orthonormal basis whose first rows span what the first of the given ones span."""
    return torch.linalg.qr(drawn.T)[0].T.contiguous()
