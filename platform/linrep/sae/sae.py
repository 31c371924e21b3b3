"""A sparse autoencoder for use: encode, decode, and the rescalings that change its weights and not what it does.

Which latents are active is the business of its rule. The rules lie with their architectures, in `linrep.sae.architectures`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.ops import gather_sum
from linrep.sae.select import Codes, scratch
from linrep.sae.settings import Settings
from linrep.sae.tensors import Weights

ROOM_BYTES = 64 * 2**20
"""Pre-activations held at once while encoding sparsely."""


@dataclass(frozen=True)
class Written:
    """An SAE in another library's words.

    Attributes:
        name: That library's name of the architecture.
        tensors: All of them, as they lie there.
        settings: What stands in the configuration beside sizes and origin.
    """

    name: str
    tensors: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Rule(Protocol):
    """Which latents are active: what is left of an architecture when training ends. A frozen dataclass of numbers and tensors."""

    saelens_name: ClassVar[str]
    """SAELens' name of this rule."""

    @property
    def kind(self) -> str:
        """Its name here."""
        ...

    @property
    def n_active(self) -> int | None:
        """Active latents of a row, where the rule fixes their number."""
        ...

    def encode(self, sae: "Sae", seen: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """Dense activations of what the encoder sees."""
        ...

    def codes(self, sae: "Sae", seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]) -> Codes:
        """The same, sparse; `room` is scratch for the pre-activations of some rows."""
        ...

    def over(self, factor: float) -> "Rule":
        """The rule for latents divided by a factor."""
        ...

    def times(self, norms: Float[Tensor, " f"]) -> "Rule":
        """The rule for latents multiplied by the norms of their decoder rows, which are then 1."""
        ...

    def shifted(self, shift: Float[Tensor, " f"]) -> "Rule":
        """The rule for an encoder that sees x moved, which adds `shift` to the projections.

        Raises:
            FormatError: The rule needs its inputs as they are.
        """
        ...

    def saelens(self, sae: "Sae") -> Written:
        """The SAE as SAELens writes it: the format that holds every rule."""
        ...

    @classmethod
    def read_saelens(cls, weights: Weights, settings: Settings) -> "Sae":
        """The SAE that SAELens wrote; whether the encoder sees x - b_dec, and the origin, are set by the caller.

        Raises:
            FormatError: A tensor or a field is missing or wrong.
        """
        ...

    def dictionary_learning(self, sae: "Sae") -> Written | None:
        """The SAE as dictionary_learning writes it; None where it has no class for it."""
        ...


@dataclass(frozen=True)
class Sae:
    """An SAE of f latents over a residual stream of width d.

    Attributes:
        encoder: One row a latent.
        b_enc: One a latent.
        decoder: What a latent writes, one row a latent.
        b_dec: What is written with no latent active.
        rule: Which latents are active.
        sees_centred: Whether the encoder sees x - b_dec.
        about: Where it came from: model, layer, training; plain values that formats keep.
    """

    encoder: Float[Tensor, "f d"]
    b_enc: Float[Tensor, " f"]
    decoder: Float[Tensor, "f d"]
    b_dec: Float[Tensor, " d"]
    rule: Rule
    sees_centred: bool
    about: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.decoder.shape[1]

    @property
    def n_latents(self) -> int:
        """Latents."""
        return self.decoder.shape[0]

    @property
    def digest(self) -> str:
        """Of all weights and the whole rule: equal for SAEs that compute the same, whatever their format and place."""
        found = hashlib.sha256()
        for name, value in sorted({**vars(self), **vars(self.rule)}.items()):
            if isinstance(value, Tensor):
                found.update(f"{name} {tuple(value.shape)}\n".encode())
                found.update(value.detach().float().cpu().contiguous().numpy().tobytes())
            elif name not in ("rule", "about"):
                found.update(f"{name} {value}\n".encode())
        return found.hexdigest()[:16]

    def encode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """Activations, dense."""
        return self.rule.encode(self, self._seen(x))

    def codes(self, x: Float[Tensor, "n d"], budget: int = ROOM_BYTES) -> Codes:
        """The same, sparse, without holding the activations of all rows at once.

        Args:
            x: Inputs.
            budget: Bytes of dense activations held at once.
        """
        if not len(x):
            nothing = torch.zeros(0, dtype=torch.int64, device=x.device)
            return Codes(nothing.new_zeros(1), nothing, x.new_zeros(0), self.n_latents)
        room = scratch(max(len(x), 1), self.n_latents, budget, self.encoder)
        return self.rule.codes(self, self._seen(x), room)

    def rebuild(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Reconstructions, as calling it gives, without dense activations: many latents fit."""
        if not len(x):
            return x
        codes = self.codes(x)
        return gather_sum(self.decoder, codes.latents, codes.values, codes.offsets) + self.b_dec

    def decode(self, z: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """Reconstructions from dense activations."""
        return torch.addmm(self.b_dec, z, self.decoder)

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Reconstructions of inputs."""
        return self.decode(self.encode(x))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Sae":
        """The same on another device or in another number format."""
        return self._each(lambda tensor: tensor.to(device=device, dtype=dtype))

    def unscaled(self, factor: float) -> "Sae":
        """The SAE that does to x what this one does to factor * x, its outputs divided by the factor.

        Every rule is homogeneous: with biases and thresholds divided by the factor, the same matrices give the same latents
        divided by it. So latents come in the model's own scale and decoder rows keep their norms.

        Args:
            factor: Above 0; what training multiplied its inputs by.
        """
        if not factor > 0:
            raise ValueError(f"the factor of the inputs must be above 0, got {factor}")
        return replace(self, b_enc=self.b_enc / factor, b_dec=self.b_dec / factor, rule=self.rule.over(factor))

    def with_unit_decoder(self) -> "Sae":
        """The same SAE with decoder rows of norm 1: what a row loses, its latent gains."""
        norms = self.decoder.norm(dim=1)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        return replace(
            self,
            encoder=self.encoder * norms[:, None],
            b_enc=self.b_enc * norms,
            decoder=self.decoder / norms[:, None],
            rule=self.rule.times(norms),
        )

    def seeing(self, centred: bool) -> "Sae":
        """The same SAE whose encoder sees x - b_dec, or x itself: biases take up the difference."""
        if centred == self.sees_centred:
            return self
        shift = self.encoder @ self.b_dec * (1 if centred else -1)
        return replace(self, b_enc=self.b_enc + shift, rule=self.rule.shifted(shift), sees_centred=centred)

    def _seen(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return x - self.b_dec if self.sees_centred else x

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Sae":
        rule: Any = self.rule  # a frozen dataclass, as the protocol says
        rule = replace(rule, **{name: change(value) for name, value in vars(rule).items() if isinstance(value, Tensor)})
        tensors = (change(t) for t in (self.encoder, self.b_enc, self.decoder, self.b_dec))
        return Sae(*tensors, rule=rule, sees_centred=self.sees_centred, about=self.about)


def codes_by_pieces(rule: Rule, sae: Sae, seen: Float[Tensor, "n d"], room: Float[Tensor, "r f"]) -> Codes:
    """Sparse codes from dense ones, as many rows at a time as the scratch holds: `Rule.codes` of a rule without a faster way."""
    parts = [Codes.from_dense(rule.encode(sae, piece)) for piece in seen.split(len(room))]
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor([len(part.latents) for part in parts]).cumsum(0)])
    starts = [part.offsets[:-1] + int(end) for part, end in zip(parts, ends, strict=False)]
    offsets = torch.cat([*starts, ends[-1:].to(seen.device)])
    return Codes(offsets, torch.cat([p.latents for p in parts]), torch.cat([p.values for p in parts]), sae.n_latents)
