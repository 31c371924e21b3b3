"""What probes, sharing and features need of a sparse autoencoder: any object of this shape will do."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """What turns rows of the stream into latents."""

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        ...

    @property
    def n_latents(self) -> int:
        """How many latents there are."""
        ...

    def encode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """Activations in the model's own scale, zero where a latent is silent."""
        ...


@dataclass(frozen=True)
class Latents:
    """A dictionary.

    Attributes:
        name: What tables call it.
        coder: What encodes.
        decoder: What a unit of each latent writes, one row a latent.
    """

    name: str
    coder: Encoder
    decoder: Float[Tensor, "f d"]
