"""The designs at an equal budget, and their controls: all take the same pairs, in the same order, and have as many decoder rows.

A shared latent of a crosscoder has a decoder row for each modality, so it counts twice, as a matched pair of latents does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.sae.config import Adam, AuxK, SaeDesign, TopK
from linrep.sae.controls.directions import covariance
from linrep.sae.paired.crosscoder import Blocks, CrosscoderTraining
from linrep.sae.paired.matching import by_correlation, by_cosine
from linrep.sae.paired.rows import PairRows, batches
from linrep.sae.paired.sides import Codes, Sides, read_apart, reordered
from linrep.sae.sae import Sae
from linrep.sae.start import first_weights
from linrep.sae.train import Rows, Trainer

MIXED = "mixed"
MATCHED = "matched by correlation"
COSINE = "matched by cosine"
CROSSCODER = "crosscoder"
DESIGNS = (MIXED, MATCHED, COSINE, CROSSCODER)
"""In the order of tables."""
DEALT = "crosscoder, pairs dealt"
RANDOM = "random, mixed"
RANDOM_MATCHED = "random, matched"
CONTROLS = (DEALT, RANDOM, RANDOM_MATCHED)
"""A crosscoder trained on images with the texts of other pairs; directions of the data's covariance, of both modalities together
and of each, the latter matched."""


@dataclass(frozen=True)
class Budget:
    """What each design has.

    Attributes:
        decoder_rows: Decoder rows in all, a multiple of 4.
        k: Active latents of a row.
        steps: Steps of the optimiser.
        batch: Pairs of a step.
        learning_rate: Of Adam at its height.
        dead_after: Pairs without firing after which a latent counts as dead.
    """

    decoder_rows: int = 256
    k: int = 8
    steps: int = 1000
    batch: int = 256
    learning_rate: float = 4e-3
    dead_after: int = 25_000

    def __post_init__(self) -> None:
        if self.decoder_rows < 4 or self.decoder_rows % 4:
            raise ValueError(f"decoder rows must be a multiple of 4, got {self.decoder_rows}")

    @property
    def of_one(self) -> int:
        """Latents of an SAE of one modality."""
        return self.decoder_rows // 2

    @property
    def crosscoder(self) -> Blocks:
        """As many decoder rows of shared latents as of private ones."""
        return Blocks(self.decoder_rows // 4, self.decoder_rows // 4, self.k)

    def config(self, n_latents: int, width: int, k: int, rows_of_pair: int, seed: int) -> SaeDesign:
        """An SAE that sees some rows of each pair."""
        return SaeDesign(
            activation=TopK(k=k),
            expansion=n_latents / width,
            aux=AuxK(dead_after=self.dead_after * rows_of_pair),
            adam=Adam(learning_rate=self.learning_rate),
            center="zero",
            seed=seed,
        )


def designs(train: PairRows, budget: Budget, seed: int) -> dict[str, Sides]:
    """Every design and every control, trained on the same pairs.

    Args:
        train: Standardised pairs.
        budget: What each has.
        seed: Of first weights, of the order of pairs, and of what controls draw.
    """
    image, text = apart(train, budget, seed)
    codes = Codes(image.encode(train.image), text.encode(train.text))
    found = {
        MIXED: mixed(train, budget, seed),
        MATCHED: Sides(image, reordered(text, by_correlation(codes))),
        COSINE: Sides(image, reordered(text, by_cosine(image.decoder, text.decoder))),
        CROSSCODER: crosscoder(train, budget, seed),
        DEALT: crosscoder(train.dealt(seed), budget, seed),
    }
    return found | randoms(train, budget, seed)


def mixed(train: PairRows, budget: Budget, seed: int) -> Sides:
    """One SAE of the rows of both modalities, which are one SAE's rows alike."""
    sae = _trained(train, budget, budget.config(budget.decoder_rows, train.width, budget.k, 2, seed), _both, seed)
    return Sides(sae, sae)


def apart(train: PairRows, budget: Budget, seed: int) -> tuple[Sae, Sae]:
    """An SAE of each modality, with half of the latents each; they begin at directions of their own."""
    config = [budget.config(budget.of_one, train.width, budget.k, 1, 2 * seed + side) for side in (0, 1)]
    image = _trained(train, budget, config[0], lambda rows: Rows(rows.image, _no(rows.image)), seed)
    text = _trained(train, budget, config[1], lambda rows: Rows(rows.text, ~_no(rows.text)), seed)
    return image, text


def crosscoder(train: PairRows, budget: Budget, seed: int) -> Sides:
    """Shared and private latents of both rows side by side."""
    own = budget.crosscoder
    config = budget.config(own.n_latents, 2 * train.width, own.rule.of_pair, 1, seed)
    way, sample = CrosscoderTraining(own), train.beside[:1]
    begun = Trainer(config, way.first(first_weights(config, sample), sample, own.n_latents), budget.steps, architecture=way)
    pair = _run(begun, train, budget, lambda rows: Rows(rows.beside, _no(rows.image)), seed)
    return read_apart(pair, own)


def randoms(train: PairRows, budget: Budget, seed: int) -> dict[str, Sides]:
    """Directions of the data's covariance, without training: of both modalities as one, and of each, matched by correlation."""
    k = {"image": budget.k, "text": budget.k}
    both = covariance({"image": train.image, "text": train.text}, budget.decoder_rows, k, seed)  # pyright: ignore[reportArgumentType]
    image = covariance({"image": train.image}, budget.of_one, k, 2 * seed)["image"]  # pyright: ignore[reportArgumentType]
    text = covariance({"text": train.text}, budget.of_one, k, 2 * seed + 1)["text"]  # pyright: ignore[reportArgumentType]
    order = by_correlation(Codes(image.encode(train.image), text.encode(train.text)))
    return {RANDOM: Sides(both["image"], both["text"]), RANDOM_MATCHED: Sides(image, reordered(text, order))}


def _both(rows: PairRows) -> Rows:
    x = torch.cat([rows.image, rows.text])
    return Rows(x, torch.arange(len(x), device=x.device) >= len(rows))


def _no(x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    return torch.zeros(len(x), dtype=torch.bool, device=x.device)


def _trained(train: PairRows, budget: Budget, config: SaeDesign, take: Any, seed: int) -> Sae:
    return _run(Trainer.begin(config, train.image.new_zeros(1, train.width), budget.steps), train, budget, take, seed)


def _run(trainer: Trainer, train: PairRows, budget: Budget, take: Any, seed: int) -> Sae:
    found: Iterator[PairRows] = batches(train, budget.steps, budget.batch, seed)
    for rows in found:
        trainer.take(take(rows))
    return trainer.sae()
