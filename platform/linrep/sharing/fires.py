"""What fires where: sums over matched pairs, the strongest tokens of each latent, and what fires on the drawn pairs; one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from linrep.encoder import ROOM_BYTES, Active, Latents, active
from linrep.largest import Largest, strength_key
from linrep.sharing.config import SharingConfig
from linrep.sharing.grouped import Addable, Grouped, Part, by_group
from linrep.sharing.study import Pairs
from linrep.sharing.tokens import pieces
from linrep.store.layout import MODALITIES
from linrep.store.read import Store

TOP = 8
"""Tokens of each modality that a cross-modal weight compares."""


@dataclass(frozen=True)
class Fires(Addable):
    """Sums over n pairs with t tokens of each modality, for f latents; the two rows are image and text.

    Attributes:
        pairs: Pairs.
        tokens: Tokens of each modality.
        rows: Sum of the tokens.
        lengths: Sum of their norms.
        fired: Tokens on which each latent fires.
        mass: Sum of its activations.
        present: Pairs where it fires on some token.
        both: Pairs where it fires on the image and on the caption.
        means: Sum over pairs of its mean activation.
        product: Sum over pairs of the product of its two means.
        inner: Sum over pairs of the inner product of what both modalities' mean activations write.
        norms: Sums over pairs of the squared norm of what each writes.
    """

    pairs: Float[Tensor, ""]
    tokens: Float[Tensor, ""]
    rows: Float[Tensor, "2 d"]
    lengths: Float[Tensor, "2"]
    fired: Float[Tensor, "2 f"]
    mass: Float[Tensor, "2 f"]
    present: Float[Tensor, "2 f"]
    both: Float[Tensor, " f"]
    means: Float[Tensor, "2 f"]
    product: Float[Tensor, " f"]
    inner: Float[Tensor, ""]
    norms: Float[Tensor, "2"]

    @staticmethod
    def none(f: int, d: int) -> "Fires":
        """Of no pairs."""
        zero, one = torch.zeros((), dtype=torch.float64), torch.zeros(f, dtype=torch.float64)
        two, rows = torch.zeros(2, f, dtype=torch.float64), torch.zeros(2, d, dtype=torch.float64)
        return Fires(zero, zero, rows, zero.repeat(2), two, two, two, one, two, one, zero, zero.repeat(2))

    @staticmethod
    def of(
        codes: tuple["Codes", "Codes"],
        tokens: int,
        rows: Float[Tensor, "2 d"],
        lengths: Float[Tensor, "2"],
        decoder: Float[Tensor, "f d"],
    ) -> "Fires":
        """Of some pairs.

        Args:
            codes: What fires on each pair's image, and on its caption.
            tokens: Tokens of either modality.
            rows: Sums of the tokens.
            lengths: Sums of their norms.
            decoder: What a unit of each latent writes.
        """
        f, zero = len(decoder), torch.zeros(len(decoder), dtype=torch.float64)

        def by_latent(values: Sequence[Tensor]) -> Tensor:
            return torch.stack([zero.index_add(0, c.latent, v.double()) for c, v in zip(codes, values, strict=True)])

        keys = [c.pair * f + c.latent for c in codes]
        there, other = torch.isin(keys[0], keys[1]), torch.isin(keys[1], keys[0])
        common, product = codes[0].latent[there], codes[0].mean[there] * codes[1].mean[other]
        written = [c.written(decoder) for c in codes]
        return Fires(
            torch.tensor(float(codes[0].n), dtype=torch.float64), torch.tensor(float(tokens), dtype=torch.float64), rows, lengths,
            by_latent([c.fired for c in codes]), by_latent([c.mass for c in codes]),
            by_latent([torch.ones(len(c.latent)) for c in codes]), zero.index_add(0, common, torch.ones_like(product)),
            by_latent([c.mean for c in codes]), zero.index_add(0, common, product), (written[0] * written[1]).sum().double(),
            torch.stack([w.square().sum().double() for w in written]),
        )  # fmt: skip


@dataclass(frozen=True)
class Codes:
    """The latents that fire on some token of each of n pairs, in one modality; pairs rise, and latents within a pair.

    Attributes:
        pair: Place of each entry's pair among the n.
        latent: Its latent.
        fired: Tokens on which it fires.
        mass: Sum of its activations.
        mean: Mean over the pair's tokens.
        n: How many pairs there are.
    """

    pair: Int64[Tensor, " s"]
    latent: Int64[Tensor, " s"]
    fired: Float[Tensor, " s"]
    mass: Float[Tensor, " s"]
    mean: Float[Tensor, " s"]
    n: int

    @staticmethod
    def of(found: Active, counts: Int64[np.ndarray, " n"], f: int) -> "Codes":
        """From what fires on the tokens, pair after pair, each of as many tokens as `counts` says."""
        tokens = torch.from_numpy(counts)
        pair = torch.repeat_interleave(torch.arange(len(counts)), tokens)
        key, at = (pair[found.row] * f + found.latent).unique(return_inverse=True)
        zero = torch.zeros(len(key), dtype=torch.float64)
        mass = zero.index_add(0, at, found.value.double())
        fired = zero.index_add(0, at, torch.ones(len(at), dtype=torch.float64))
        return Codes(key // f, key % f, fired, mass, mass / tokens[key // f], len(counts))

    def written(self, decoder: Float[Tensor, "f d"]) -> Float[Tensor, "n d"]:
        """What the mean activations of each pair write."""
        starts = torch.searchsorted(self.pair, torch.arange(self.n))
        return embedding_bag(self.latent, decoder, starts, mode="sum", per_sample_weights=self.mean.to(decoder.dtype))


@dataclass(frozen=True)
class ReservoirFires:
    """What fires on the pairs of the reservoir, in one modality.

    Attributes:
        pair: Number of each entry's pair.
        latent: Its latent.
        mean: Mean activation over the pair's tokens.
        n: Pairs of the reservoir that have tokens.
    """

    pair: Int64[np.ndarray, " s"]
    latent: Int64[np.ndarray, " s"]
    mean: Float[np.ndarray, " s"]
    n: int

    @staticmethod
    def together(some: Sequence["ReservoirFires"]) -> "ReservoirFires":
        """All of them, one after the other."""
        pair, latent, mean = (np.concatenate([getattr(kept, name) for kept in some]) for name in ("pair", "latent", "mean"))
        return ReservoirFires(pair, latent, mean, sum(kept.n for kept in some))


NOTHING = ReservoirFires(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 0)
Top = tuple[Largest, Largest]
"""The strongest tokens of images and of captions: keys hold activation and pair, positions a token's number in its pair."""


@dataclass(frozen=True)
class PassFires(Grouped[Fires]):
    """What one pass over the tokens, or a part of it, found.

    Attributes:
        top: The strongest tokens of each latent, of the pairs in even groups and of those in odd ones.
        kept: What fires on the pairs of the reservoir, of images and of captions.
    """

    top: tuple[Top, Top]
    kept: tuple[ReservoirFires, ReservoirFires]

    @property
    def strongest(self) -> Top:
        """The strongest tokens of each latent, of all pairs."""
        return _merged([self.top[0], self.top[1]])


def no_fires(groups: int, f: int, d: int) -> PassFires:
    """Of no pairs."""
    return PassFires((Fires.none(f, d),) * groups, ((_empty(f), _empty(f)), (_empty(f), _empty(f))), (NOTHING, NOTHING))


def fire_part(store: Store, pairs: Pairs, part: Part, latents: Latents, config: SharingConfig) -> PassFires:
    """What a part of the tokens gives, some pairs at a time: activations are never held for more, nor densely."""
    f, d = latents.decoder.shape
    found = no_fires(config.groups, f, d)
    sums, kept = list(found.sums), ([NOTHING], [NOTHING])
    for g, matched in pieces(store, pairs, part, config.seed, max(1, ROOM_BYTES // (4 * max(f, d)))):
        codes, totals, lengths = [], [], []
        for m, tokens in enumerate((matched.image, matched.text)):
            with torch.no_grad():
                fires = active(latents.of(MODALITIES[m]), tokens.x.float())
            own = Codes.of(fires, matched.counts, f)
            # Of equal activations in a pair the first token goes first.
            order = np.argsort(tokens.number[fires.row.numpy()], kind="stable")
            row = fires.row.numpy()[order]
            keys = strength_key(fires.value.float().numpy()[order], tokens.pair[row])
            found.top[g % 2][m].offer(fires.latent.numpy()[order], keys, tokens.number[row].astype(np.int32))
            of_pair = matched.pair[own.pair.numpy()]
            drawn = pairs.drawn[of_pair]
            n_drawn = int(pairs.drawn[matched.pair].sum())
            kept[m].append(ReservoirFires(of_pair[drawn], own.latent.numpy()[drawn], own.mean.numpy()[drawn], n_drawn))
            codes.append(own)
            totals.append(tokens.x.double().sum(0))
            lengths.append(tokens.x.double().norm(dim=1).sum())
        n_tokens = int(matched.counts.sum())
        sums[g] = sums[g] + Fires.of((codes[0], codes[1]), n_tokens, torch.stack(totals), torch.stack(lengths), latents.decoder)
    return replace(found, sums=tuple(sums), kept=(ReservoirFires.together(kept[0]), ReservoirFires.together(kept[1])))


def add_fired(one: PassFires, other: PassFires) -> PassFires:
    """Two parts together, in their order."""
    top = [_merged([one.top[half], other.top[half]]) for half in range(2)]
    kept = [ReservoirFires.together([one.kept[m], other.kept[m]]) for m in range(2)]
    return PassFires(by_group([one, other]), (top[0], top[1]), (kept[0], kept[1]))


def _merged(tops: Sequence[Top]) -> Top:
    merged = []
    for m in range(2):
        merged.append(_empty(tops[0][m].shape[0]))
        for top in tops:
            merged[m].merge(top[m])
    return merged[0], merged[1]


def _empty(f: int) -> Largest:
    return Largest(f, TOP)
