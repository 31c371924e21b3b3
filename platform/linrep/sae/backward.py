"""From sparse codes and the gradient of a reconstruction to the gradients of the weights, on the active entries alone.

With z the codes, G the gradient of the reconstruction and x what the encoder sees: dz = G D^T at the entries, dD = z^T G,
dE = dz^T x. The last two are sums over each latent's entries, found by transposing the codes once.

Source: Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (kernels).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from linrep.sae.ops import bag_totals, gather_sum, sampled_dots
from linrep.sae.select import Codes


@dataclass(frozen=True)
class Backward:
    """The gradients of encoder and decoder by blocks of latents, and of what belongs to each latent.

    Attributes:
        seen: What the encoder sees.
        pull: Gradient of the reconstruction, one row a bag of the codes.
        bags: Bags of a row of `seen`.
        at: Bag of each entry, latent after latent.
        values: Activation of each entry likewise.
        grads: Gradient of each activation likewise.
        offsets: Where each latent's entries begin.
        bias: Gradient of the encoder's bias.
        along: Product of each decoder row with its gradient: the sum of z dz over a latent's entries.
    """

    seen: Float[Tensor, "n d"]
    pull: Float[Tensor, "n_bags d"]
    bags: int
    at: Int[Tensor, " s"]
    values: Float[Tensor, " s"]
    grads: Float[Tensor, " s"]
    offsets: Int[Tensor, " f_1"]
    bias: Float[Tensor, " f"]
    along: Float[Tensor, " f"]

    @classmethod
    def of(
        cls, codes: Codes, decoder: Float[Tensor, "f d"], seen: Float[Tensor, "n d"], pull: Float[Tensor, "n_bags d"]
    ) -> "Backward":
        """Transpose the codes; the matrices wait until they are asked for.

        Args:
            codes: Activations, in one bag or several a row of `seen`.
            decoder: One row a latent.
            seen: What the encoder sees.
            pull: Gradient of the reconstruction that each bag is part of.
        """
        latents, order = codes.latents.sort(stable=True)
        # Not by counting: on a GPU, bincount asks the device for the largest.
        offsets = torch.searchsorted(latents, torch.arange(codes.n_latents + 1, device=latents.device))
        grads = sampled_dots(pull, decoder, codes.latents, codes.offsets).mul_(codes.values > 0)[order]
        values = codes.values[order]
        bias, along = bag_totals(grads, offsets), bag_totals(grads * values, offsets)
        return cls(seen, pull, len(pull) // len(seen), codes.rows()[order], values, grads, offsets, bias, along)

    def matrices(self, first: int, last: int) -> tuple[Float[Tensor, "l d"], Float[Tensor, "l d"]]:
        """Gradients of those rows of encoder and decoder."""
        entries = slice(self._start(first), self._start(last))
        at, offsets = self.at[entries], self.offsets[first : last + 1] - entries.start
        rows = at // self.bags if self.bags > 1 else at
        encoder = gather_sum(self.seen, rows, self.grads[entries], offsets)
        return encoder, gather_sum(self.pull, at, self.values[entries], offsets)

    def _start(self, latent: int) -> int:
        """The first entry of a latent. Asking the device would wait for all that it has still to do; the ends are known."""
        if latent == 0:
            return 0
        return len(self.at) if latent == len(self.offsets) - 1 else int(self.offsets[latent])
