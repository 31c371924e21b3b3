"""Latent level: on which modality each latent fires, and whether it fires on a photograph and on its caption.

Tokens are balanced pair by pair: a pair gives as many of its image's tokens as of its caption's, drawn by a hash of its name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from linrep.dictionary import Latents
from linrep.errors import RecipeError
from linrep.sample import unit_hash
from linrep.sharing.config import SharingConfig
from linrep.sharing.grouped import Addable, Grouped, Part, by_group
from linrep.sharing.intervals import Measure, of_groups
from linrep.sharing.shares import shares
from linrep.sharing.study import Pairs
from linrep.sharing.sums import unit
from linrep.store.blocks import blocks
from linrep.store.layout import MODALITIES
from linrep.store.read import Store

TOP = 8
"""Tokens of each modality that a cross-modal weight compares."""
ROOM = 2**26
"""Bytes of dense activations held at once."""


@dataclass(frozen=True)
class Fires(Addable):
    """Sums over n pairs with t tokens of each modality, for f latents; the two rows are image and text.

    Attributes:
        pairs: Pairs.
        tokens: Tokens of each modality.
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
    fired: Float[Tensor, "2 f"]
    mass: Float[Tensor, "2 f"]
    present: Float[Tensor, "2 f"]
    both: Float[Tensor, " f"]
    means: Float[Tensor, "2 f"]
    product: Float[Tensor, " f"]
    inner: Float[Tensor, ""]
    norms: Float[Tensor, "2"]

    @staticmethod
    def none(f: int) -> "Fires":
        """Of no pairs."""
        zero = torch.zeros((), dtype=torch.float64)
        two, one = torch.zeros(2, f, dtype=torch.float64), torch.zeros(f, dtype=torch.float64)
        return Fires(zero, zero, two, two, two, one, two, one, zero, torch.zeros(2, dtype=torch.float64))

    @staticmethod
    def of(z: tuple[Float[Tensor, "t f"], Float[Tensor, "t f"]], decoder: Float[Tensor, "f d"]) -> "Fires":
        """Of one pair: activations on its image's and its caption's tokens."""
        means = torch.stack([one.mean(0) for one in z])
        fired = torch.stack([(one > 0).sum(0) for one in z]).double()
        present = (fired > 0).double()
        written = means @ decoder
        means = means.double()
        return Fires(
            torch.tensor(1.0, dtype=torch.float64), torch.tensor(float(len(z[0])), dtype=torch.float64), fired,
            torch.stack([one.sum(0) for one in z]).double(), present, present[0] * present[1], means, means[0] * means[1],
            (written[0] @ written[1]).double(), written.square().sum(1).double(),
        )  # fmt: skip


@dataclass(frozen=True)
class Fired(Grouped[Fires]):
    """What one pass over the tokens, or a part of it, found.

    Attributes:
        image: Tokens of images in the reservoir.
        text: Tokens of captions in it, as many.
    """

    image: Float32[Tensor, "r d"]
    text: Float32[Tensor, "r d"]


def fire_part(store: Store, pairs: Pairs, part: Part, latents: Latents, config: SharingConfig) -> Fired:
    """The sums and the drawn tokens of a part, pair by pair."""
    sums = [Fires.none(latents.coder.n_latents) for _ in range(config.groups)]
    kept: list[tuple[Tensor, Tensor]] = []
    # Pairs are in the order of their hashes, so the first ones are a fair draw; each gives all of its tokens.
    per_pair = max(1, config.tokens // max(int(pairs.drawn.sum()), 1))
    for pair, x, y in _matched_tokens(store, pairs, part, config.seed):
        with torch.no_grad():
            z = latents.coder.encode(torch.cat([x, y]))
        sums[pairs.group[pair]] = sums[pairs.group[pair]] + Fires.of((z[: len(x)], z[len(x) :]), latents.decoder)
        if pairs.drawn[pair]:
            kept.append((x[:per_pair], y[:per_pair]))
    empty = torch.zeros(0, store.manifest.width)
    return Fired(tuple(sums), torch.cat([empty, *(x for x, _ in kept)]), torch.cat([empty, *(y for _, y in kept)]))


def _matched_tokens(store: Store, pairs: Pairs, part: Part, seed: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    texts = {file.path.rsplit("/", 1)[-1]: file for file in part["text"]}
    for image in part["image"]:
        name = image.path.rsplit("/", 1)[-1]
        if name not in texts:
            continue
        own: list[dict[int, Tensor]] = []
        for m, file in zip(MODALITIES, (image, texts[name]), strict=True):
            of, rows = pairs.of[m], {}
            for block in blocks(store, (file,), "tokens", of >= 0):
                for sample in np.unique(block.sample):
                    rows.setdefault(int(of[sample]), []).append(block.x[torch.from_numpy(block.sample == sample)].float())
            own.append({pair: torch.cat(found) for pair, found in rows.items()})
        for pair in sorted(own[0].keys() & own[1].keys()):
            n = min(len(own[0][pair]), len(own[1][pair]))
            rng = np.random.default_rng(int(unit_hash(pairs.names[pair], f"{seed}/tokens") * 2**53))
            x, y = (rows[pair][torch.from_numpy(rng.permutation(len(rows[pair]))[:n])] for rows in own)
            yield pair, x, y


def merge_fired(parts: Sequence[Fired]) -> Fired:
    """All parts together, in their order."""
    return Fired(by_group(parts), torch.cat([p.image for p in parts]), torch.cat([p.text for p in parts]))


def modality_scores(s: Fires) -> Float[Tensor, " f"]:
    """Mean activation on images over the sum of both means; NaN for a latent that never fires.

    Source: Papadimitriou et al., COLM 2025.
    """
    return s.mass[0] / (s.mass[0] + s.mass[1])


def bridge(z_image: Float[Tensor, "n f"], z_text: Float[Tensor, "n f"], decoder: Float[Tensor, "f d"]) -> Float[Tensor, "f f"]:
    """Bridge scores of all pairs of latents, for dictionaries small enough; the streamed measures are its sum and its diagonal.

    Source: Papadimitriou et al., COLM 2025.
    """
    return (z_image.T @ z_text / len(z_image)) * (decoder @ decoder.T)


def cofire_null(s: Fires) -> Float[Tensor, " f"]:
    """Share of the images and captions of different pairs on which a latent fires on both: the mean over all permutations."""
    return (s.present[0] * s.present[1] - s.both) / (s.pairs * (s.pairs - 1))


def latent_measures(found: Fired, latents: Latents, config: SharingConfig) -> list[Measure]:
    """All measures of the latent level.

    Raises:
        RecipeError: No pair has tokens of both modalities.
    """
    s = found.everything
    if not float(s.tokens):
        raise RecipeError("sharing: no pair has single tokens of both modalities: harvest with harvest.views [pooled, tokens]")
    pairs = round(float(s.pairs))
    squares = latents.decoder.double().square().sum(1)
    groups = len(found.sums)

    def row(name: str, measure: Callable[[Fires], float], null: float | None, n: int = pairs) -> Measure:
        return of_groups(name, groups, lambda chosen: measure(found.total(chosen)), null, n)

    def mean_rate(s: Fires, m: int) -> float:
        return float((s.fired[m] / s.tokens).sum())

    rows = [row("l0_image", lambda s: mean_rate(s, 0), None), row("l0_text", lambda s: mean_rate(s, 1), None)]
    fired, mass = (np.stack([getattr(one, name).numpy() for one in found.sums]) for name in ("fired", "mass"))
    rows += shares(fired, mass, np.array([float(one.tokens) for one in found.sums]), config)
    rows += [
        row("bridge_cosine", bridge_cosine, bridge_cosine_null(s, latents.decoder)),
        row("bridge_diagonal_share", lambda s: float((s.product * squares).sum() / s.inner), diagonal_null(s, latents.decoder)),
        # Shares are weighted by how often a latent is present at all: rare latents would drown the mean in zeros.
        row(
            "cofire",
            lambda s: float(s.both.sum() / s.present.sum() * 2),
            float(cofire_null(s).sum() * s.pairs / s.present.sum() * 2),
        ),
    ]
    return [*rows, *_weights(found, latents, s, config)]


def bridge_cosine(s: Fires) -> float:
    """Sum of the bridge scores over all latents (the mean inner product of what both modalities' latents write), as a cosine."""
    scale = float((s.norms[0] * s.norms[1]).sqrt() / s.pairs)
    return float(s.inner / s.pairs) / scale if scale > 0 else float("nan")


def bridge_cosine_null(s: Fires, decoder: Float[Tensor, "f d"]) -> float:
    """The same over images and captions of different pairs, exactly."""
    written = s.means @ decoder.double()
    scale = float((s.norms[0] * s.norms[1]).sqrt() / s.pairs)
    others = float((written[0] @ written[1] - s.inner) / (s.pairs * (s.pairs - 1)))
    return others / scale if scale > 0 else float("nan")


def diagonal_null(s: Fires, decoder: Float[Tensor, "f d"]) -> float:
    """The share of the bridge scores from a latent to itself over images and captions of different pairs, exactly."""
    written = s.means @ decoder.double()
    own = ((s.means[0] * s.means[1] - s.product) * decoder.double().square().sum(1)).sum()
    return float(own / (written[0] @ written[1] - s.inner))


def cross_modal_weights(found: Fired, latents: Latents) -> Float[Tensor, "3 f"]:
    """Mean cosine of each latent's top image tokens with its top text tokens; with another latent's; and its energy.

    NaN where a latent fires on fewer than two drawn tokens of a modality. The cosines are about the mean of both modalities'
    tokens, weighted alike: about zero, all tokens are alike.

    Source: Lou et al., "SAE-V", ICML 2025.
    """
    f = latents.coder.n_latents
    middle = (found.image.mean(0) + found.text.mean(0)) / 2
    units = [unit(x - middle) for x in (found.image, found.text)]
    n = len(found.image)
    top: list[tuple[Tensor, Tensor]] = []
    energy = torch.zeros(f)
    for x in (found.image, found.text):
        best, where = torch.zeros(0, f), torch.zeros(0, f, dtype=torch.int64)
        step = max(1, ROOM // (4 * f))
        for start in range(0, n, step):
            with torch.no_grad():
                z = latents.coder.encode(x[start : start + step])
            energy = energy + z.sum(0)
            own = torch.arange(start, start + len(z))[:, None].expand(-1, f)
            best, at = torch.cat([best, z]).topk(min(TOP, len(best) + len(z)), dim=0)
            where = torch.cat([where, own]).gather(0, at)
        top.append((best > 0, where))
    means = []
    for (counts, where), u in zip(top, units, strict=True):
        total = torch.zeros(f, u.shape[1])
        for k in range(len(where)):
            total += counts[k][:, None] * u[where[k]]
        number = counts.sum(0)
        means.append(torch.where((number >= 2)[:, None], total / number[:, None].clamp(min=1), torch.nan))
    own = (means[0] * means[1]).sum(1)
    both = torch.nonzero(~own.isnan())[:, 0]
    others = torch.full_like(own, torch.nan)
    if len(both) > 1:
        others[both] = (means[0][both] * means[1][both.roll(1)]).sum(1)
    return torch.stack([own, others, energy])


def _weights(found: Fired, latents: Latents, s: Fires, config: SharingConfig) -> list[Measure]:
    own, others, _ = cross_modal_weights(found, latents).double().numpy()
    both = np.isfinite(own) & np.isfinite(others)
    if both.sum() < 2:
        return []
    energy = s.mass.sum(0).numpy()[both]
    shares = energy / energy.sum()
    rng = np.random.default_rng(config.seed)
    draws = [rng.integers(len(shares), size=len(shares)) for _ in range(config.resamples)]
    spread = [float(own[both][i] @ shares[i] / shares[i].sum()) for i in draws]
    low, high = (float(q) for q in np.quantile(spread, [0.025, 0.975]))
    value, null = float(own[both] @ shares), float(others[both] @ shares)
    first = np.arange(len(shares)) % 2 == 0
    halves = tuple(float(own[both][h] @ shares[h] / shares[h].sum()) for h in (first, ~first))
    return [Measure("cross_modal_weight", value, low, high, null, int(both.sum()), (halves[0], halves[1]))]


def latent_rows(found: Fired, latents: Latents) -> list[dict[str, object]]:
    """One record for each latent, without layer and dictionary."""
    s = found.everything
    rates, means = s.fired / s.tokens, s.mass / s.tokens
    scores, chance = modality_scores(s), cofire_null(s)
    bridges = s.product / s.pairs * latents.decoder.double().square().sum(1)
    weights = cross_modal_weights(found, latents)[0]
    columns = {
        "rate_image": rates[0], "rate_text": rates[1], "mean_image": means[0], "mean_text": means[1], "modality_score": scores,
        "bridge": bridges, "cofire": s.both / s.pairs, "cofire_null": chance, "cross_modal_weight": weights,
    }  # fmt: skip
    lists = {name: [None if v != v else v for v in values.tolist()] for name, values in columns.items()}
    return [{"latent": i, **{name: values[i] for name, values in lists.items()}} for i in range(len(rates[0]))]
