"""A sparse autoencoder for use: encode, decode, and the rescalings that change its weights and not what it does."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.ops import gather_sum
from linrep.sae.select import Codes, Encoder, scratch, top_k
from linrep.sae.start import unit_rows

ROOM_BYTES = 64 * 2**20
"""Pre-activations held at once while encoding sparsely."""


@dataclass(frozen=True)
class Rectify:
    """Latents above zero are active."""

    kind: Literal["relu"] = field(default="relu", init=False)


@dataclass(frozen=True)
class Largest:
    """The k largest positive latents of each row are active."""

    k: int
    kind: Literal["topk"] = field(default="topk", init=False)


@dataclass(frozen=True)
class Above:
    """Latents above their threshold, and above zero, are active; BatchTopK and Matryoshka become this."""

    threshold: Float[Tensor, " f"]
    kind: Literal["jumprelu"] = field(default="jumprelu", init=False)


@dataclass(frozen=True)
class Gate:
    """Latents whose gate is positive are active, by the size of another path; the coder's b_enc is the gates' bias."""

    r_mag: Float[Tensor, " f"]
    b_mag: Float[Tensor, " f"]
    kind: Literal["gated"] = field(default="gated", init=False)


Rule = Rectify | Largest | Above | Gate


@dataclass(frozen=True)
class Sae:
    """A dictionary of f latents over a residual stream of width d.

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
        """Of all weights and the whole rule: equal for dictionaries that compute the same, whatever their format and place."""
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
        projected = self._seen(x) @ self.encoder.t()
        pre = projected + self.b_enc
        match self.rule:
            case Rectify():
                return pre.relu()
            case Largest(k=k):
                kept = pre.topk(min(k, self.n_latents), dim=1)
                return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())
            case Above(threshold=threshold):
                return pre * ((pre > threshold) & (pre > 0))
            case Gate(r_mag=r_mag, b_mag=b_mag):
                return (pre > 0) * (projected * r_mag.exp() + b_mag).relu()
            case _:
                assert_never(self.rule)

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
        if isinstance(self.rule, Largest):
            return top_k(Encoder(self.encoder, self.b_enc, None, room), self._seen(x), self.rule.k)
        parts = [Codes.from_dense(self.encode(piece)) for piece in x.split(len(room))]
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor([len(part.latents) for part in parts]).cumsum(0)])
        starts = [part.offsets[:-1] + int(end) for part, end in zip(parts, ends, strict=False)]
        offsets = torch.cat([*starts, ends[-1:].to(x.device)])
        return Codes(offsets, torch.cat([p.latents for p in parts]), torch.cat([p.values for p in parts]), self.n_latents)

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
        """The coder that does to x what this one does to factor * x, its outputs divided by the factor.

        Every rule is homogeneous: with biases and thresholds divided by the factor, the same matrices give the same latents
        divided by it. So latents come in the model's own scale and decoder rows keep their norms.

        Args:
            factor: Above 0; what training multiplied its inputs by.
        """
        if not factor > 0:
            raise ValueError(f"the factor of the inputs must be above 0, got {factor}")
        rule = self.rule
        if isinstance(rule, Above):
            rule = Above(rule.threshold / factor)
        elif isinstance(rule, Gate):
            rule = Gate(rule.r_mag, rule.b_mag / factor)
        return replace(self, b_enc=self.b_enc / factor, b_dec=self.b_dec / factor, rule=rule)

    def with_unit_decoder(self) -> "Sae":
        """The same coder with decoder rows of norm 1: what a row loses, its latent gains."""
        norms = self.decoder.norm(dim=1)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        rule = self.rule
        if isinstance(rule, Above):
            rule = Above(rule.threshold * norms)
        elif isinstance(rule, Gate):
            rule = Gate(rule.r_mag, rule.b_mag * norms)
        return replace(
            self,
            encoder=self.encoder * norms[:, None],
            b_enc=self.b_enc * norms,
            decoder=self.decoder / norms[:, None],
            rule=rule,
        )

    def seeing(self, centred: bool) -> "Sae":
        """The same coder whose encoder sees x - b_dec, or x itself: biases take up the difference."""
        if centred == self.sees_centred:
            return self
        shift = self.encoder @ self.b_dec * (1 if centred else -1)
        rule = self.rule
        if isinstance(rule, Gate):
            rule = Gate(rule.r_mag, rule.b_mag + rule.r_mag.exp() * shift)
        return replace(self, b_enc=self.b_enc + shift, rule=rule, sees_centred=centred)

    def _seen(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return x - self.b_dec if self.sees_centred else x

    def _each(self, change: Any) -> "Sae":
        rule = self.rule
        if isinstance(rule, Above):
            rule = Above(change(rule.threshold))
        elif isinstance(rule, Gate):
            rule = Gate(change(rule.r_mag), change(rule.b_mag))
        tensors = (change(t) for t in (self.encoder, self.b_enc, self.decoder, self.b_dec))
        return Sae(*tensors, rule=rule, sees_centred=self.sees_centred, about=self.about)


def random_dictionary(sample: Float[Tensor, "n d"], n_latents: int, k: int, seed: int = 0) -> Sae:
    """The control: random directions as decoder and encoder, k active latents, about the mean of a sample.

    Its activations are shrunk by the one factor that reconstructs the sample best: without it, k projections on directions
    chosen for being large would overshoot.

    Source: the control of "Sanity checks for sparse autoencoders", 2026.
    """
    decoder = unit_rows(n_latents, sample.shape[1], seed, "control").to(sample)
    raw = Sae(decoder, sample.new_zeros(n_latents), decoder, sample.mean(0), Largest(k), sees_centred=True)
    written, wanted = raw.rebuild(sample) - raw.b_dec, sample - raw.b_dec
    shrink = (written * wanted).sum() / written.square().sum().clamp_min(torch.finfo(sample.dtype).tiny)
    return replace(raw, encoder=decoder * shrink, about={"control": "random directions", "seed": seed})
