"""Edits as records: what happens to the stream at one position. Where it happens is `linrep.steer.sites`.

An edit is a pure function of the vectors at the edited positions; all are computed in float32. One batch may carry another
edit in every row, so that a dose-response is one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from linrep.erasure import Eraser
from linrep.steer.latents import SaeLike
from linrep.vlm.hooks import RowEdit


@dataclass(frozen=True, eq=False)
class Add:
    """h + strength * v, or h + strength * |h| * v/|v| where it is relative to the token's own norm.

    Attributes:
        direction: v, in the model's own scale.
        strength: In units of v itself, or of the token's norm.
        relative: Which of the two.
    """

    direction: Float[Tensor, " d"]
    strength: float
    relative: bool = True

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        v = self.direction.to(h)
        if not self.relative:
            return h + self.strength * v
        return h + self.strength * h.norm(dim=-1, keepdim=True) * _unit(v)


@dataclass(frozen=True, eq=False)
class Ablate:
    """h with its component along a direction set to that of a centre: what sets a token apart along it is gone, the mean stays.

    Attributes:
        direction: In the model's own scale; its length does not count.
        centre: What all vectors have in common, such as the mean over all classes.
    """

    direction: Float[Tensor, " d"]
    centre: Float[Tensor, " d"]

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        unit = _unit(self.direction.to(h))
        return h - ((h - self.centre.to(h)) @ unit)[:, None] * unit


@dataclass(frozen=True, eq=False)
class Swap:
    """h with its components along two class directions exchanged; what lies outside their plane stays.

    h - centre = a*u + b*w + rest becomes b*u + a*w + rest: u and w the unit vectors of the classes, the rest orthogonal to both.
    Swapping twice changes nothing.

    Attributes:
        source: Class mean of what is there.
        target: Class mean of what shall be there.
        centre: What both are measured from, the mean over all classes.
    """

    source: Float[Tensor, " d"]
    target: Float[Tensor, " d"]
    centre: Float[Tensor, " d"]

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        centre = self.centre.to(h)
        plane = torch.stack([_unit(self.source.to(h) - centre), _unit(self.target.to(h) - centre)])
        coordinates = (h - centre) @ torch.linalg.pinv(plane)
        return h + (coordinates[:, 1] - coordinates[:, 0])[:, None] * (plane[0] - plane[1])


@dataclass(frozen=True, eq=False)
class Clamp:
    """h with one latent of an SAE set to a value, and everything that the SAE does not explain kept as it is.

    Source: Templeton et al., "Scaling Monosemanticity", 2024 (the error term is added back after the edit).
    """

    sae: SaeLike
    latent: int
    value: float

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        z = self.sae.encode(h.cpu())
        if not 0 <= self.latent < z.shape[1]:
            raise ValueError(f"no latent {self.latent}: the SAE has 0..{z.shape[1] - 1}")
        clamped = z.clone()
        clamped[:, self.latent] = self.value
        return h + (self.sae.decode(clamped) - self.sae.decode(z)).to(h)


@dataclass(frozen=True, eq=False)
class Erase:
    """h without a subspace, about a centre: what sets a token apart within it is gone, the mean stays.

    Attributes:
        eraser: What is read and what is taken out.
        centre: What all vectors have in common, such as the mean over all classes.
    """

    eraser: Eraser
    centre: Float[Tensor, " d"]

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return Eraser(self.eraser.read.to(h), self.eraser.write.to(h))(h, self.centre.to(h))


@dataclass(frozen=True, eq=False)
class Replace:
    """Every position's vector replaced by one: zero, or the mean over image tokens. The image is knocked out.

    Source: Neo et al., "Towards Interpreting Visual Information Processing in Vision-Language Models", ICLR 2025.
    """

    value: Float[Tensor, " d"]

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return self.value.to(h).expand_as(h).clone()


@dataclass(frozen=True, eq=False)
class Shuffle:
    """The vectors of all edited positions, in a drawn order: as many tokens disturbed as by a knock-out, and nothing gone.

    Attributes:
        seed: Of the order.
    """

    seed: int

    def __call__(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return h[torch.randperm(len(h), generator=torch.Generator().manual_seed(self.seed)).to(h.device)]


Edit = Add | Ablate | Swap | Clamp | Erase | Replace | Shuffle


@runtime_checkable
class EditMaker(Protocol):
    """What makes the edit of a cell, from the probes' directions or from any others."""

    def edit(self, name: str, kind: str | None, strength: float | None, site: str, layer: int, source: str, target: str) -> Edit:
        """See `linrep.steer.vectors.Vectors.edit`."""
        ...

    def given(self, kind: str, layer: int, source: str, target: str, sample: str) -> Edit:
        """See `linrep.steer.vectors.Vectors.given`."""
        ...


@dataclass(frozen=True, eq=False)
class Intervention:
    """An edit at some layers.

    Attributes:
        edit: What is done.
        layers: Layers k in 0..n at which it is done, each time to the stream as it then is.
        positions: Name of the site, as in `linrep.steer.sites`.
    """

    edit: Edit
    layers: tuple[int, ...]
    positions: Literal["image", "patches", "last", "everywhere"]


def row_edits(rows: Sequence[Intervention | None], width: int) -> dict[int, RowEdit]:
    """The edits of a batch by layer, for `linrep.vlm.hooks.edit_rows`; None leaves a row alone.

    Args:
        rows: One intervention for each row of the batch.
        width: Of the stream.

    Raises:
        ValueError: A direction has another width than the stream.
    """
    for one in rows:
        if one is not None:
            check_width(one.edit, width)
    layers = sorted({layer for one in rows if one is not None for layer in one.layers})
    return {layer: _at(layer, rows) for layer in layers}


def check_width(edit: Edit, width: int) -> None:
    """Refuse an edit that was made for another stream.

    Raises:
        ValueError: Names both widths.
    """
    match edit:
        case Add() | Ablate():
            found = edit.direction.shape[0]
        case Swap():
            found = edit.source.shape[0]
        case Clamp():
            found = edit.sae.d_model
        case Erase():
            found = edit.eraser.read.shape[1]
        case Replace():
            found = edit.value.shape[0]
        case Shuffle():
            return
    if found != width:
        raise ValueError(f"{type(edit).__name__.lower()}: the direction has width {found}, the model's stream {width}")


def _at(layer: int, rows: Sequence[Intervention | None]) -> RowEdit:
    own = {i: one.edit for i, one in enumerate(rows) if one is not None and layer in one.layers}
    adds = {i: edit for i, edit in own.items() if isinstance(edit, Add)}
    others = {i: edit for i, edit in own.items() if not isinstance(edit, Add)}
    shift = _shifts(adds, len(rows)) if adds else None

    def apply(h: Float[Tensor, "n d"], row: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        out = h.float()
        if shift is not None:
            out = shift(out, row)
        for i, edit in others.items():
            here = row == i
            if here.any():
                out[here] = edit(h[here].float())
        return out.to(h.dtype)

    return apply


def _shifts(adds: dict[int, Add], n_rows: int) -> RowEdit:
    """All additions of a batch in one step; rows without one are left as they are, bit for bit."""
    first = next(iter(adds.values()))
    v = torch.zeros(n_rows, first.direction.shape[0])
    fixed, of_norm = torch.zeros(n_rows, 1), torch.zeros(n_rows, 1)
    for i, add in adds.items():
        v[i] = _unit(add.direction.float()) if add.relative else add.direction.float()
        (of_norm if add.relative else fixed)[i] = add.strength
    mine = torch.zeros(n_rows, dtype=torch.bool)
    mine[list(adds)] = True

    def apply(h: Float[Tensor, "n d"], row: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        nonlocal v, fixed, of_norm, mine
        if v.device != h.device:
            v, fixed, of_norm, mine = (x.to(h.device) for x in (v, fixed, of_norm, mine))
        here = mine[row]
        if not here.any():
            return h.clone()
        out, at, part = h.clone(), row[here], h[here]
        out[here] = part + (fixed[at] + of_norm[at] * part.norm(dim=-1, keepdim=True)) * v[at]
        return out

    return apply


def _unit(v: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """The direction of a vector; that of zero is zero, an edit that changes nothing."""
    norm = v.norm()
    return v / norm if norm > 0 else v
