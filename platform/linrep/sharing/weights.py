"""Cross-modal weights: how alike a latent's strongest image tokens and its strongest text tokens are.

The first pass over the tokens keeps which those are (`fires`). Their vectors are read here, for as many latents at a time as fit
into `ROOM`: each block of latents is a pass over the layer's tokens. What stays are the cosines, 9 TOP^2 numbers a latent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor
from torch.nn.functional import normalize

from linrep.encoder import Latents
from linrep.largest import Largest, of_strength
from linrep.sharing.fires import TOP, Fires, PassFires, Top
from linrep.sharing.intervals import Measure
from linrep.sharing.study import Pairs
from linrep.sharing.tokens import tokens_of
from linrep.stats.interval import student
from linrep.store.layout import MODALITIES
from linrep.store.read import Store

ROOM = 2**30
"""Bytes of vectors held at once."""
LEAST = 2
"""Tokens of each modality on which a latent must fire to have a weight."""
STEP = 64
"""Latents whose cosines are worked out at once."""
NOTHING_LEFT = 1e-3
"""An encoder's direction of which less than this lies beside the decoder's is the decoder's."""
KINDS = ("cross_modal_weight", "cross_modal_weight_centred", "cross_modal_weight_rest")
"""Cosines as they are, with each modality's mean token taken off first, and then without the latent's own direction too."""


@dataclass(frozen=True)
class Compared:
    """Strongest image tokens of f latents beside their strongest text tokens, of one set of pairs.

    Attributes:
        cosines: Of each image token with each text token, by kind; of no meaning where there is no token.
        pair: Pair of each token, strongest first, by modality; -1 where there is none.
        others: Mean cosine of a latent's image tokens with another one's text tokens, weighted like the weights, by kind.
    """

    cosines: Float32[Tensor, "3 f k k"]
    pair: Int64[Tensor, "2 f k"]
    others: tuple[float, ...]

    def weights(self, kind: int, kept: Bool[Tensor, "2 f k"] | None = None, least: int = LEAST) -> Float[Tensor, " f"]:
        """The weight of each latent; NaN where it has too few tokens of a modality.

        Args:
            kind: Number in `KINDS`.
            kept: Tokens to take, else all.
            least: Tokens of each modality that a latent must have.
        """
        there = self.pair >= 0
        image, text = (there if kept is None else there & kept).double().unbind()
        total = torch.einsum("fij,fi,fj->f", self.cosines[kind].double(), image, text)
        enough = (image.sum(1) >= least) & (text.sum(1) >= least)
        return torch.where(enough, total / (image.sum(1) * text.sum(1)).clamp(min=1), torch.nan)


Weights = tuple[Compared, Compared, Compared]
"""Of all pairs, and of either half of them."""


def compare(store: Store, layer: int, pairs: Pairs, found: PassFires, latents: Latents, room: int = ROOM) -> Weights:
    """Read the strongest tokens and compare them; each half of the pairs has its own strongest tokens and its own mean.

    Args:
        store: The activations.
        layer: Layer of the latents.
        pairs: The pairs.
        found: What the first pass found.
        latents: The SAE.
        room: Bytes of vectors held at once.
    """
    groups = range(len(found.sums))
    sums = [found.everything, found.total(groups[::2]), found.total(groups[1::2])]
    sets = [_Set(top, s, latents) for top, s in zip((found.strongest, *found.top), sums, strict=True)]
    alive = np.flatnonzero(np.any([(own.shares > 0).numpy() for own in sets], axis=0))
    n_bytes = 4 if store.manifest.dtype == "float32" else 2
    step = max(1, room // (2 * 2 * TOP * store.manifest.width * n_bytes))  # the halves' strongest are all that there are
    for start in range(0, len(alive), step):
        block = alive[start : start + step]
        ids = [np.unique(np.concatenate([own.tokens[m][block].ravel() for own in sets])) for m in range(2)]
        vectors = [_read(store, layer, pairs, m, ids[m]) for m in range(2)]
        for own in sets:
            for some in np.split(block, range(STEP, len(block), STEP)):
                own.take(some, [vectors[m][torch.from_numpy(np.searchsorted(ids[m], own.tokens[m][some]))] for m in range(2)])
    compared = [own.compared() for own in sets]
    return compared[0], compared[1], compared[2]


class _Set:
    """The strongest tokens of each latent in some pairs, and what comparing them has given so far."""

    def __init__(self, top: Top, s: Fires, latents: Latents) -> None:
        self.latents = latents
        f, d = s.mass.shape[1], s.rows.shape[1]
        self.tokens = np.stack([_strongest(own) for own in top])
        self.middles = (s.rows / s.tokens.clamp(min=1)).float()
        energy = s.mass.sum(0) * torch.from_numpy(((self.tokens >= 0).sum(2) >= LEAST).all(0))
        # Of the latents that have a weight, each one's share in their energy.
        self.shares = energy / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)
        self.cosines = torch.zeros(len(KINDS), f, TOP, TOP)
        # Sums over latents, by kind: of the mean image token by shares, of the mean text token, of their products by shares.
        self.image, self.text, self.own = (torch.zeros(len(KINDS), *rest, dtype=torch.float64) for rest in ((d,), (d,), ()))

    def take(self, latents: Int64[np.ndarray, " b"], rows: Sequence[Shaped[Tensor, "b k d"]]) -> None:
        """Compare the tokens of some latents: of images and of captions, of no meaning where there is none."""
        there = torch.from_numpy(self.tokens[:, latents] >= 0)
        axes = own_directions(self.latents, latents)
        units = [
            _units(x.float(), middle, axes) * own[..., None] for x, middle, own in zip(rows, self.middles, there, strict=True)
        ]
        self.cosines[:, latents] = torch.einsum("cfid,cfjd->cfij", *units)
        image, text = (u.double().sum(2) / own.sum(1).clamp(min=1)[:, None] for u, own in zip(units, there, strict=True))
        share = self.shares[latents][:, None]
        self.image += (share * image).sum(1)
        self.text += ((share > 0) * text).sum(1)
        self.own += (share * image * text).sum((1, 2))

    def compared(self) -> Compared:
        """What came out."""
        # Over all other latents: the product of the sums, without each latent with itself.
        others = ((self.image * self.text).sum(1) - self.own) / max(int((self.shares > 0).sum()) - 1, 1)
        return Compared(self.cosines, torch.from_numpy(self.tokens >> 32), tuple(map(float, others)))


def _units(x: Float[Tensor, "b k d"], middle: Float[Tensor, " d"], axes: Float[Tensor, "b r d"]) -> Float[Tensor, "3 b k d"]:
    """Unit rows, about zero, about a modality's mean, and then without each latent's own directions."""
    away = x - middle
    rest = away - torch.einsum("bkd,brd->bkr", away, axes) @ axes
    return torch.stack([normalize(z, dim=-1) for z in (x, away, rest)])


def own_directions(latents: Latents, some: Int64[np.ndarray, " b"]) -> Float[Tensor, "b 2 d"]:
    """What some latents write, and what of their encoder's direction is left beside it: orthonormal, zero where nothing is left.

    Tokens are chosen by their projection on the encoder's direction: by that alone they are alike. An SAE that does not say what
    its encoder is has only the first.
    """
    at = torch.from_numpy(some)
    written = normalize(latents.decoder[at].float(), dim=-1)
    encoder = getattr(latents.sae, "encoder", None)
    if not isinstance(encoder, Tensor) or encoder.shape != latents.decoder.shape:
        return torch.stack([written, torch.zeros_like(written)], dim=1)
    read = normalize(encoder[at].float(), dim=-1)
    left = read - (read * written).sum(-1, keepdim=True) * written
    enough = left.norm(dim=-1, keepdim=True) > NOTHING_LEFT
    return torch.stack([written, torch.where(enough, normalize(left, dim=-1), 0.0)], dim=1)


def _strongest(top: Largest) -> Int64[np.ndarray, "f k"]:
    """The strongest tokens of each latent, from the strongest down: pair * 2^32 + number in the pair; -1 where there is none."""
    entries = top.entries()
    place = np.arange(len(entries.latent)) - np.searchsorted(entries.latent, entries.latent)
    found = np.full(top.shape, -1, np.int64)
    found[entries.latent, place] = of_strength(entries.key)[1] << 32 | entries.position
    return found


def _read(store: Store, layer: int, pairs: Pairs, m: int, ids: Int64[np.ndarray, " n"]) -> Tensor:
    """The vectors of some tokens of a modality, in the order of their ids."""
    wanted = np.zeros(len(pairs), bool)
    wanted[ids[ids >= 0] >> 32] = True
    x: Tensor | None = None
    for file in store.select("tokens", layer, MODALITIES[m]).files:
        for tokens in tokens_of(store, pairs, MODALITIES[m], file, wanted):
            own = tokens.pair << 32 | tokens.number
            at = np.searchsorted(ids, own).clip(max=len(ids) - 1)
            hit = ids[at] == own
            x = torch.zeros(len(ids), store.manifest.width, dtype=tokens.x.dtype) if x is None else x
            x[torch.from_numpy(at[hit])] = tokens.x[torch.from_numpy(hit)]
    assert x is not None, f"no tokens of layer {layer} of {store.place}"
    return x


def weight_measures(found: PassFires, weights: Weights, pairs: Pairs) -> Iterator[Measure]:
    """The mean weight over the latents by their energy, of either kind; null: another latent's text tokens, exactly.

    The interval has two sources: other latents, and other pairs.
    """
    energies = [s.mass.sum(0) for s in (found.everything, *(found.total(range(len(found.sums))[h::2]) for h in range(2)))]
    group = torch.from_numpy(np.append(pairs.group, -1))[weights[0].pair]
    without = [found.total([h for h in range(len(found.sums)) if h != g]).mass.sum(0) for g in range(len(found.sums))]
    for kind, name in enumerate(KINDS):
        own = weights[0].weights(kind)
        known = ~own.isnan()
        if int(known.sum()) < 2:
            continue
        # A group's tokens drop out and no weaker ones come in: those would bring noise of their own, and count twice.
        left = [
            (weights[0].weights(kind, group != g, least=1)[known].numpy(), energy[known].numpy())
            for g, energy in enumerate(without)
        ]
        reach = _reach(own[known].numpy(), energies[0][known].numpy(), left)
        value, one, other = (_mean(w.weights(kind).numpy(), e.numpy()) for w, e in zip(weights, energies, strict=True))
        yield Measure(name, value, value - reach, value + reach, weights[0].others[kind], int(known.sum()), (one, other))


def _mean(w: Float[np.ndarray, " f"], energy: Float[np.ndarray, " f"]) -> float:
    """Mean of the weights that there are, by energy."""
    known = np.isfinite(w)
    return float(w[known] @ energy[known] / energy[known].sum()) if energy[known].sum() > 0 else float("nan")


def _reach(
    w: Float[np.ndarray, " n"],
    energy: Float[np.ndarray, " n"],
    left: list[tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]],
) -> float:
    """Half of the 95% interval of the mean weight.

    How weights differ among latents says how far another draw of latents would be, and holds the noise that each has of its own.
    What is common to the latents in a draw of pairs comes on top: a jackknife over groups, less what it finds of each alone.

    Args:
        w: Weights.
        energy: Energy of each latent.
        left: The same from all groups but one.
    """
    n, g, shares = len(w), len(left), energy / energy.sum()
    among = n / (n - 1) * float((shares**2 * (w - w @ shares) ** 2).sum())
    means = np.array([_mean(*one) for one in left])
    each = np.array([one for one, _ in left])
    own = np.nan_to_num(np.nanvar(np.where(np.isfinite(each), each, w), axis=0))
    common = (g - 1) * max(0.0, float(np.nanvar(means)) - float(shares**2 @ own))
    # As few degrees of freedom as the groups have, or the latents: that number of one energy says as much (Kish, 1965).
    freedom = max(1.0, min(g - 1, 1 / float((shares**2).sum()) - 1))
    return student(freedom + 1) * float(np.sqrt(among + common))
