"""A design as it is read: an SAE for the rows of each modality, whose latents are aligned by number."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.sae.architectures.topk import Largest
from linrep.sae.paired.crosscoder import Blocks
from linrep.sae.paired.rows import PairRows
from linrep.sae.sae import Sae

LEAST = 0.1
"""Least share of a shared latent's projection that a modality must have for the latent to be read from its rows alone."""


@dataclass(frozen=True)
class Codes:
    """Dense activations of n pairs, read from each row alone.

    Attributes:
        image: Of the images.
        text: Of the texts.
    """

    image: Float[Tensor, "n f"]
    text: Float[Tensor, "n f"]

    def __len__(self) -> int:
        return len(self.image)

    def dealt(self, order: Tensor) -> "Codes":
        """The same with the texts of other pairs."""
        return Codes(self.image, self.text[order])


@dataclass(frozen=True)
class Sides:
    """Two SAEs of as many latents; latent i of both is one latent of the design.

    Attributes:
        image: Takes rows of images.
        text: Takes rows of texts.
        together: Rebuilds pairs from both rows at once, side by side; None where each row is rebuilt from itself anyway.
    """

    image: Sae
    text: Sae
    together: Callable[[Float[Tensor, "n d2"]], Float[Tensor, "n d2"]] | None = None

    @property
    def n_latents(self) -> int:
        """Latents of the design."""
        return self.image.n_latents

    def codes(self, rows: PairRows) -> Codes:
        """Activations of some pairs."""
        return Codes(self.image.encode(rows.image), self.text.encode(rows.text))

    def rebuilt(self, rows: PairRows) -> PairRows:
        """Each row from itself alone."""
        return PairRows(self.image.rebuild(rows.image), self.text.rebuild(rows.text))

    def decoder(self) -> Float[Tensor, "f d2"]:
        """What a unit of each latent writes to both rows, side by side, at norm 1; zeros for latents that write nothing."""
        return torch.nn.functional.normalize(torch.cat([self.image.decoder, self.text.decoder], dim=1), dim=1)


def read_apart(pair: Sae, blocks: Blocks) -> Sides:
    """A crosscoder as two SAEs, each of one row.

    A shared latent projects both rows of a pair. From one alone it takes the other to say as much as its own: what its own
    projection is short of is known from the weights. Latents compete by what they write into that row.

    Args:
        pair: The crosscoder, over both rows side by side.
        blocks: Its latents.
    """
    half, device = pair.d_model // 2, pair.decoder.device
    kind = torch.arange(3, device=device).repeat_interleave(
        torch.tensor([blocks.shared, blocks.private, blocks.private], device=device)
    )
    projected = torch.linalg.vecdot(pair.encoder, pair.decoder)

    def side(columns: slice, own: int) -> Sae:
        encoder, decoder = pair.encoder[:, columns], pair.decoder[:, columns]
        share = torch.linalg.vecdot(encoder, decoder) / projected
        seen: Bool[Tensor, " f"] = (kind == own) | ((kind == 0) & (projected > 0) & (share >= LEAST))
        norms = decoder.norm(dim=1)
        factor = torch.where(seen & (kind == 0), norms / share, norms)
        silent = -torch.ones_like(norms)  # below 0 whatever the row
        return Sae(
            torch.where(seen[:, None], encoder * factor[:, None], 0.0),
            torch.where(seen, pair.b_enc * norms, silent),
            torch.where(seen[:, None], torch.nn.functional.normalize(decoder, dim=1), 0.0),
            pair.b_dec[columns],
            Largest(blocks.k),
            sees_centred=True,
        )

    return Sides(side(slice(None, half), 1), side(slice(half, None), 2), pair.rebuild)


def reordered(sae: Sae, order: Tensor) -> Sae:
    """The same SAE with its latents in another order."""
    return replace(sae, encoder=sae.encoder[order], b_enc=sae.b_enc[order], decoder=sae.decoder[order])
