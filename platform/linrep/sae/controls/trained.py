"""Controls that are trained, by the trainer of all SAEs: on a decoder that stays random, or on data without structure."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.architectures.topk import Largest
from linrep.sae.config import Adam, AuxK, SaeDesign, TopK
from linrep.sae.controls.directions import Activations, Active, Saes, mean_and_covariance, square_root
from linrep.sae.train import Rows, Trainer
from linrep.sample import unit_hash
from linrep.store.layout import Modality

Draw = Callable[[Modality, int, torch.Generator], Float[Tensor, "n d"]]
"""(modality, rows, generator) -> rows to train on, in the model's own scale."""


@dataclass(frozen=True)
class Training:
    """How long controls are trained: as long as the SAE beside them, or the comparison is with a shorter training.

    Attributes:
        rows: Rows in all, of both modalities in equal shares.
        batch: Rows of a step.
        learning_rate: At its height.
        dead_after: Rows without firing after which a latent counts as dead.
    """

    rows: int = 400_000
    batch: int = 1024
    learning_rate: float = 1e-3
    dead_after: int = 50_000


@dataclass(frozen=True)
class Moments:
    """Mean and scale that a modality is trained in: rows less the mean, multiplied to a mean norm of sqrt(d)."""

    mean: Float[Tensor, " d"]
    scale: float

    @classmethod
    def of(cls, x: Float[Tensor, "n d"]) -> "Moments":
        """Of some rows."""
        mean = x.mean(0)
        norm = float((x - mean).norm(dim=1).mean())
        return cls(mean, x.shape[1] ** 0.5 / norm if norm > 0 else 1.0)


def frozen_decoder(rows: Activations, n_latents: int, k: Active, seed: int, training: Training) -> Saes:
    """A TopK SAE whose decoder stays at random directions; encoder and biases are trained.

    Source: Korznikov et al., "Sanity checks for sparse autoencoders", arXiv 2602.14111, 2026 (frozen decoder).
    """

    def of_data(modality: Modality, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        x = rows[modality]
        return x[torch.randint(len(x), (n,), generator=generator).to(x.device)]

    return _trained(rows, of_data, n_latents, k, seed, training, ("decoder",), "frozen decoder")


def gaussian_twin(rows: Activations, n_latents: int, k: Active, seed: int, training: Training) -> Saes:
    """A TopK SAE trained on Gaussian rows of the same mean and covariance, modality by modality, and used on the data.

    Only structure beyond second moments lets a trained SAE do better.
    """
    twins: dict[Modality, tuple[Tensor, Tensor]] = {}
    for own, x in rows.items():
        center, spread = mean_and_covariance(x)
        twins[own] = center.to(x), square_root(spread).to(x)

    def of_twin(modality: Modality, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        mean, root = twins[modality]
        return mean + torch.randn(n, len(mean), generator=generator).to(root) @ root

    return _trained(rows, of_twin, n_latents, k, seed, training, (), "Gaussian twin")


def _trained(
    rows: Activations, draw: Draw, n_latents: int, k: Active, seed: int, training: Training, frozen: Collection[str], name: str
) -> Saes:
    """Train about each modality's own mean, in its own scale, and fold both into the weights."""
    moments: dict[Modality, Moments] = {m: Moments.of(x) for m, x in rows.items()}
    generator = torch.Generator().manual_seed(int(unit_hash(name, f"{seed}/control") * 2**53))
    n_each = max(1, training.batch // len(rows))
    is_text = torch.cat([torch.full((n_each,), m == "text", device=x.device) for m, x in rows.items()])
    width = next(iter(rows.values())).shape[1]

    def batches() -> Iterator[Rows]:
        while True:
            parts = [(draw(m, n_each, generator) - of.mean) * of.scale for m, of in moments.items()]
            yield Rows(torch.cat(parts), is_text)

    active = max(1, min(round(sum(k.values()) / len(k)), n_latents))
    config = SaeDesign(
        activation=TopK(k=active),
        expansion=n_latents / width,
        aux=AuxK(dead_after=training.dead_after),
        adam=Adam(learning_rate=training.learning_rate),
        center="zero",
        seed=int(unit_hash(f"{name}/weights", f"{seed}/control") * 2**31),
    )
    steps = max(1, training.rows // (n_each * len(rows)))
    sample = next(iter(rows.values()))[:1]
    trainer = Trainer.begin(config, sample.new_zeros(1, width), steps, frozen=frozen)
    for batch in islice(batches(), steps):
        trainer.take(batch)
    trained = trainer.sae()
    found: Saes = {}
    for modality, of in moments.items():
        own = trained.unscaled(of.scale)  # it sees x - b_dec, so that a shift of b_dec is one of the inputs
        rule = Largest(min(k[modality], n_latents))
        found[modality] = replace(own, b_dec=own.b_dec + of.mean, rule=rule, about={"control": name, "seed": seed})
    return found
