"""What probes, sharing and features need of a sparse autoencoder: any object of this shape will do."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROOM_BYTES = 64 * 2**20
"""Dense activations held at once on the way to sparse ones."""


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


@runtime_checkable
class Sparse(Protocol):
    """The active latents of n rows, row after row; an entry may be 0."""

    @property
    def offsets(self) -> Int[Tensor, " n_1"]:
        """Where each row begins, and the number of entries at the end."""
        ...

    @property
    def latents(self) -> Int[Tensor, " s"]:
        """Latent of each entry."""
        ...

    @property
    def values(self) -> Float[Tensor, " s"]:
        """Its activation."""
        ...


@runtime_checkable
class SparseEncoder(Encoder, Protocol):
    """An encoder that knows a faster way to the active latents than through all of them."""

    def codes(self, x: Float[Tensor, "n d"]) -> Sparse:
        """The active latents of each row."""
        ...


@dataclass(frozen=True)
class Active:
    """The latents that fire on n rows: no entry is 0, and within a row latents rise.

    Attributes:
        row: Row of each entry, rising.
        latent: Its latent.
        value: Its activation.
    """

    row: Int[Tensor, " s"]
    latent: Int[Tensor, " s"]
    value: Float[Tensor, " s"]


def active(encoder: Encoder, x: Float[Tensor, "n d"]) -> Active:
    """The latents that fire on some rows, by whichever way the encoder is fast."""
    if isinstance(encoder, SparseEncoder):
        found = encoder.codes(x)
        row = torch.repeat_interleave(torch.arange(len(x), device=x.device), found.offsets.diff())
        fires = found.values > 0
        row, latent, value = row[fires], found.latents[fires], found.values[fires]
        order = (row * encoder.n_latents + latent).argsort()
        return Active(row[order], latent[order], value[order])
    pieces, step = [], max(1, ROOM_BYTES // (4 * encoder.n_latents))
    for start in range(0, max(len(x), 1), step):
        z = encoder.encode(x[start : start + step])
        row, latent = (z > 0).nonzero(as_tuple=True)
        pieces.append((row + start, latent, z[row, latent]))
    return Active(*(torch.cat(part) for part in zip(*pieces, strict=True)))


class Found(NamedTuple):
    """The active latents of n rows, see `Sparse`."""

    offsets: Int[Tensor, " n_1"]
    latents: Int[Tensor, " s"]
    values: Float[Tensor, " s"]


class OnDevice:
    """An encoder that computes on a device, and takes and gives what lies on the CPU.

    Args:
        encoder: There already.
        device: Where it is.
    """

    def __init__(self, encoder: SparseEncoder, device: torch.device) -> None:
        self._encoder, self._device = encoder, device
        self.d_model, self.n_latents = encoder.d_model, encoder.n_latents

    def encode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """Activations."""
        return self._encoder.encode(x.to(self._device)).cpu()

    def codes(self, x: Float[Tensor, "n d"]) -> Found:
        """The active latents of each row."""
        found = self._encoder.codes(x.to(self._device))
        return Found(found.offsets.cpu(), found.latents.cpu(), found.values.cpu())


def on_device(encoder: Encoder, device: torch.device) -> Encoder:
    """The encoder on a device, if it can be moved there; rows go to it and codes come back."""
    move = getattr(encoder, "to", None)
    return encoder if device.type == "cpu" or move is None else OnDevice(move(device), device)


@dataclass(frozen=True)
class Latents:
    """An SAE.

    Attributes:
        name: What tables call it.
        sae: What encodes.
        decoder: What a unit of each latent writes, one row a latent.
        of_texts: What encodes texts, where that is another than encodes images: a control is about each modality's own mean.
    """

    name: str
    sae: Encoder
    decoder: Float[Tensor, "f d"]
    of_texts: Encoder | None = None

    def of(self, modality: Literal["image", "text"]) -> Encoder:
        """What encodes tokens of a modality."""
        return self.of_texts if modality == "text" and self.of_texts is not None else self.sae


def moved(latents: Latents, device: torch.device) -> Latents:
    """The same with what encodes on a device; the decoder stays on the CPU."""
    if device.type == "cpu":
        return latents
    of_texts = None if latents.of_texts is None else on_device(latents.of_texts, device)
    return Latents(latents.name, on_device(latents.sae, device), latents.decoder, of_texts)
