"""Which latents speak for the answer: activation times gradient towards a difference of logits, and what it loses without them.

A latent writes its activation times its decoder row at each position where it fires. How much the difference between two
first words of the answer would change with what it writes is, to first order, that vector times the gradient of the difference.
The first order can be far off, so each value stands beside what the difference really loses when what the latent writes is taken
out, and beside the loss without another latent that writes as much.

Source: Nanda, "Attribution patching", 2023; Marks et al., "Sparse feature circuits", 2024 (latents, activation times gradient).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from linrep.encoder import active
from linrep.reading.read import ReadSae
from linrep.steer.latents import SaeLike, decoder_rows
from linrep.vlm.decode import Stream, advance, embed, logits
from linrep.vlm.hooks import edit_rows
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared
from linrep.vlm.sites import entered
from linrep.vlm.taps import before

MOST_POSITIONS = 8192
"""Positions of one pass without latents: sequences in it times their length."""
NEAREST = 8
"""A control is drawn among this many latents that write most nearly as much."""


@dataclass(frozen=True)
class Attribution:
    """The latents of an SAE that speak most for one first word against another, or against it.

    Attributes:
        layer: The SAE's layer.
        sae: What tables call it.
        latents: By falling size of the attribution.
        attribution: First-order change of the difference that each latent's writing gives, over all positions, in nats.
        activation: Its activation, summed over positions.
        n_tokens: Positions where it fires.
        loss: What the difference loses when what it writes is taken out at all positions, in nats.
        control: The same of another latent, drawn among those that write most nearly as much and brought to as much; NaN where
            there is no other.
        together: What the difference loses without all of them.
        together_control: The same without all of the controls, of those that have one.
        n_active: Latents that fire somewhere.
    """

    layer: int
    sae: str
    latents: Int64[np.ndarray, " n"]
    attribution: Float32[np.ndarray, " n"]
    activation: Float32[np.ndarray, " n"]
    n_tokens: Int64[np.ndarray, " n"]
    loss: Float32[np.ndarray, " n"]
    control: Float32[np.ndarray, " n"]
    together: float
    together_control: float
    n_active: int


@dataclass(frozen=True)
class Attributed:
    """What speaks for the answer.

    Attributes:
        answer: The token that it begins with.
        against: The token that it is held against: the runner-up, or one that was asked for.
        difference: The logit of the first minus that of the second, in nats.
        saes: By SAE.
    """

    answer: int
    against: int
    difference: float
    saes: tuple[Attribution, ...]


def attribute(
    vlm: VLM,
    one: Prepared,
    saes: Sequence[ReadSae],
    high_norm: Callable[[int, Float[Tensor, "t d"]], Bool[Tensor, " t"]],
    against: int | None = None,
    n: int = 8,
    seed: int = 0,
) -> Attributed:
    """Attribute the first word of the answer to latents.

    Args:
        vlm: The whole model.
        one: The sequence.
        saes: SAEs with decoders, each of a layer of the model.
        high_norm: Which positions of a layer are above the norm limit: no latents are read there, and none is taken out.
        against: The token that the likeliest first one is held against; None: the next likeliest.
        n: Latents of each SAE, at most.
        seed: Of the controls.
    """
    (stream,) = embed(vlm, [one])
    streams, first, gradient_of = _forward(vlm, stream, sorted({sae.layer for sae in saes}))
    likeliest = first.topk(2).indices.tolist()
    answer = likeliest[0]
    other = next(token for token in likeliest if token != answer) if against is None else against
    gradients = gradient_of(answer, other)
    difference = float(first[answer] - first[other])
    found = []
    for number, sae in enumerate(saes):
        h = streams[sae.layer].float().cpu()
        writes = _Writes.of(sae, h, ~high_norm(sae.layer, h))
        rng = np.random.default_rng([seed, number])
        lost = _Lost(vlm, stream, sae.layer, answer, other, difference)
        found.append(_attribution(sae, writes, gradients[sae.layer].float().cpu(), lost, n, rng))
    return Attributed(answer, other, difference, tuple(found))


def _attribution(
    sae: ReadSae, writes: "_Writes", gradient: Float[Tensor, "t d"], lost: "_Lost", n: int, rng: np.random.Generator
) -> Attribution:
    every = writes.totals((writes.value[:, None] * writes.rows * gradient[writes.row]).sum(1))
    size, norms = every.abs(), writes.totals(writes.value * writes.rows.norm(dim=1))
    top = [int(i) for i in size.argsort(descending=True, stable=True)[:n]]
    chosen = [writes.written(i) for i in top]
    others: list[Tensor | None] = []
    for i in top:
        nearest = [int(j) for j in (norms - norms[i]).abs().argsort(stable=True) if int(j) not in top][:NEAREST]
        j = int(rng.choice(nearest)) if nearest else None
        others.append(None if j is None else writes.written(j) * (norms[i] / norms[j]))
    there = [delta for delta in others if delta is not None]
    joint = [torch.stack(some).sum(0) for some in (chosen, there) if some]
    losses = iter(lost([*chosen, *there, *joint]))
    loss = [next(losses) for _ in chosen]
    control = [float("nan") if delta is None else next(losses) for delta in others]
    together, together_control = (next(losses) if some else float("nan") for some in (chosen, there))
    return Attribution(
        layer=sae.layer,
        sae=sae.name,
        latents=writes.latents[top].numpy(),
        attribution=every[top].numpy(),
        activation=writes.totals(writes.value)[top].numpy(),
        n_tokens=writes.totals(torch.ones_like(writes.value))[top].long().numpy(),
        loss=np.array(loss, np.float32),
        control=np.array(control, np.float32),
        together=together,
        together_control=together_control,
        n_active=len(writes.latents),
    )


@dataclass(frozen=True)
class _Writes:
    """What the latents that fire in a sequence write there: an entry for each that fires at a position.

    Attributes:
        latents: Those that fire, rising.
        which: Place in `latents` of each entry.
        row: Its position.
        value: Its activation.
        rows: Its decoder row.
        t: Positions of the sequence.
    """

    latents: Int64[Tensor, " m"]
    which: Int64[Tensor, " s"]
    row: Int64[Tensor, " s"]
    value: Float[Tensor, " s"]
    rows: Float[Tensor, "s d"]
    t: int

    @classmethod
    def of(cls, sae: ReadSae, h: Float[Tensor, "t d"], keep: Bool[Tensor, " t"]) -> "_Writes":
        encoder = sae.encoder
        assert isinstance(encoder, SaeLike)
        found = active(encoder, h)
        kept = keep[found.row]
        row, latent, value = found.row[kept], found.latent[kept], found.value[kept].float()
        latents, which = latent.unique(return_inverse=True)
        return cls(latents, which, row, value, decoder_rows(encoder, latent), len(h))

    def totals(self, each: Float[Tensor, " s"]) -> Float[Tensor, " m"]:
        """Sums over the entries of each latent."""
        return torch.zeros(len(self.latents)).index_add_(0, self.which, each)

    def written(self, i: int) -> Float[Tensor, "t d"]:
        """What a latent writes at each position."""
        own = self.which == i
        delta = torch.zeros(self.t, self.rows.shape[1])
        delta[self.row[own]] = self.value[own, None] * self.rows[own]
        return delta


@dataclass(frozen=True)
class _Lost:
    """What a difference of logits loses when vectors are taken out of the stream at a layer."""

    vlm: VLM
    stream: Stream
    layer: int
    answer: int
    against: int
    difference: float

    @torch.inference_mode()
    def __call__(self, deltas: Sequence[Float[Tensor, "t d"]]) -> list[float]:
        """The loss without each, in nats."""
        t = len(self.stream)
        step = max(1, MOST_POSITIONS // t)
        found: list[float] = []
        for start in range(0, len(deltas), step):
            taken = torch.stack(list(deltas[start : start + step])).to(self.vlm.device)
            b = len(taken)
            whole = _each(self.stream, lambda part, b=b: part.expand(b, *part.shape))
            every = torch.ones(b, t, dtype=torch.bool, device=self.vlm.device)

            def without(h: Tensor, _: Tensor, taken: Tensor = taken) -> Tensor:
                return (h.float() - taken.flatten(0, 1)).to(h.dtype)

            with edit_rows(self.vlm, {self.layer: without}, every):
                _, hidden = advance(self.vlm, whole, every)
            first = logits(self.vlm, hidden[:, -1])
            found += (self.difference - (first[:, self.answer] - first[:, self.against])).tolist()
        return found


def _each(stream: Stream, change: Callable[[Tensor], Tensor]) -> Stream:
    beside = (None if part is None else change(part) for part in (stream.places, stream.blocks, stream.later))
    return Stream(change(stream.h), *beside)


Gradients = Callable[[int, int], dict[int, Float[Tensor, "t d"]]]


def _forward(vlm: VLM, stream: Stream, layers: Sequence[int]) -> tuple[dict[int, Tensor], Float[Tensor, " v"], Gradients]:
    """The stream at some layers, the logits after the sequence, and what gives the gradient of a difference of them by layer.

    Only blocks from the first of these layers on are differentiated.
    """
    # Tensors of an inference cannot be differentiated, their copies can.
    whole = _each(stream, lambda part: part.clone()[None])
    real = torch.ones(whole.h.shape[:2], dtype=torch.bool, device=vlm.device)
    taken: dict[int, Tensor] = {}

    def watch(layer: int) -> Callable[[Tensor], Tensor | None]:
        def hook(h: Tensor) -> Tensor | None:
            taken[layer] = h if taken else h.detach().requires_grad_()
            return None if len(taken) > 1 else taken[layer]

        return hook

    with torch.enable_grad(), ExitStack() as inside:
        for layer in layers:
            inside.enter_context(before(entered(vlm.model, layer), watch(layer)))
        _, hidden = advance(vlm, whole, real)
        first = logits(vlm, hidden[:, -1])[0]

    def gradient_of(answer: int, against: int) -> dict[int, Tensor]:
        found = torch.autograd.grad(first[answer] - first[against], [taken[layer] for layer in layers])
        return {layer: gradient[0] for layer, gradient in zip(layers, found, strict=True)}

    return {layer: h[0].detach() for layer, h in taken.items()}, first.detach(), gradient_of
