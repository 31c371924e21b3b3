"""AuxK: dead latents learn to explain the residual that the living ones leave.

The target is the residual itself, held fixed, and the dead latents' reconstruction has no bias of its own: b_dec is already in
what was subtracted. With fewer dead latents than k the loss shrinks in proportion, so that the last few do not chase noise.
The work is that of living latents: one dense product finds who takes part, everything else touches the chosen entries only.

Sources: Gao et al. 2024 (the loss); the proportion is EleutherAI's, in sparsify.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from linrep.sae.backward import Backward
from linrep.sae.ops import gather_sum
from linrep.sae.over_workers import largest_of_all
from linrep.sae.passes import Weights
from linrep.sae.select import Encoder, top_k
from linrep.workers import ALONE, Workers


@dataclass(frozen=True)
class Revival:
    """Who is dead and how they are taught.

    Attributes:
        dead: The dead latents, rising.
        k: Dead latents that take part in each row, at most.
        weight: Of the loss, for k dead latents or more.
    """

    dead: Int[Tensor, " dead"]
    k: int
    weight: float


@dataclass(frozen=True)
class Taught:
    """Gradients of dead latents, to be added to the others'.

    Attributes:
        dead: The dead latents, rising.
        back: Their gradients, counted among the dead; None where nobody is.
    """

    dead: Int[Tensor, " dead"]
    back: Backward | None = None

    def add_to(self, first: int, last: int, encoder: Float[Tensor, "l d"], decoder: Float[Tensor, "l d"]) -> None:
        """Add the rows of latents first..last to the gradients of these."""
        if self.back is not None:
            a, b = torch.searchsorted(self.dead, torch.tensor([first, last], device=self.dead.device)).tolist()
            to = self.dead[a:b] - first
            for grads, mine in zip((encoder, decoder), self.back.matrices(a, b), strict=True):
                grads.index_add_(0, to, mine)

    def add_to_vectors(
        self, bias: Float[Tensor, " f"], along: Float[Tensor, " f"]
    ) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
        """Gradients of biases, and products of decoder rows with their gradients, with those of the dead added."""
        if self.back is None:
            return bias, along
        return bias.index_add(0, self.dead, self.back.bias), along.index_add(0, self.dead, self.back.along)


def revive(
    weights: Weights,
    centred: Float[Tensor, "n d"],
    residual: Float[Tensor, "n d"],
    revival: Revival | None,
    room: Float[Tensor, "r f"],
    workers: Workers = ALONE,
) -> tuple[Float[Tensor, ""], Taught]:
    """The auxiliary loss, mean over rows, and its gradients.

    Args:
        weights: The SAE.
        centred: What the encoder sees.
        residual: Reconstruction minus input.
        revival: Who is dead, of this worker's latents; None for nobody.
        room: Scratch for pre-activations: as many rows of dead latents as it holds are worked on at once.
        workers: Among whose dead latents are chosen those that take part.
    """
    nobody = torch.empty(0, dtype=torch.int64, device=centred.device)
    n_dead = 0 if revival is None else _count(revival.dead, workers)
    if revival is None or not n_dead:
        return centred.new_zeros(()), Taught(nobody)
    dead, n = revival.dead, len(centred)
    weight = revival.weight * min(1.0, n_dead / revival.k)
    # Where there are no more than k, all take part, whoever has them.
    among = workers if n_dead > revival.k else ALONE
    if not len(dead):  # others have some, and wait for this one's offers and for its sum
        if among is workers:
            largest_of_all(centred.new_empty(n, 0), revival.k, workers)
        off = torch.zeros_like(residual)
        workers.sum_([off])
        return weight * off.add_(residual).square().sum() / n, Taught(nobody)
    rows = min(n, room.numel() // len(dead))
    scratch = room.view(-1)[: rows * len(dead)].view(rows, len(dead))
    decoder = weights["decoder"][dead]
    codes = top_k(Encoder(weights["encoder"][dead], weights["b_enc"][dead], None, scratch), centred, revival.k, among)
    off = gather_sum(decoder, codes.latents, codes.values, codes.offsets)
    workers.sum_([off])
    off.add_(residual)  # the target is -residual
    loss = weight * off.square().sum() / n
    return loss, Taught(dead, Backward.of(codes, decoder, centred, off.mul_(2 * weight / n)))


def _count(dead: Int[Tensor, " dead"], workers: Workers) -> int:
    """Dead latents of all workers."""
    if workers.n_workers == 1:
        return len(dead)
    count = torch.tensor([len(dead)], device=dead.device)
    workers.sum_([count])
    return int(count)
