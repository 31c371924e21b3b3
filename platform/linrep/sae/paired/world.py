"""Planted pairs: sparse features in superposition, some of both modalities and some of one alone, whose truth is known."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.sae.paired.rows import PairRows
from linrep.sae.paired.sides import Codes
from linrep.sample import unit_hash


@dataclass(frozen=True)
class World:
    """What is planted.

    Attributes:
        shared: Features that are there in an image and in its caption, or in neither. How strong they are is drawn for each.
        private: Features of images alone, and as many of texts alone.
        active_shared: Shared features of a pair.
        active_private: Private features of a row.
        cosine: Between a shared feature's directions in images and in texts: 1 is one direction.
        same_directions: Whether private features of texts have the directions of those of images, though no pair has both but by
            chance.
        k: Active latents of a row that designs have; None for as many as features are active.
        width: Width of the stream.
        noise: Deviation of each coordinate beside the features.
    """

    shared: int
    private: int
    active_shared: int
    active_private: int
    cosine: float = 1.0
    same_directions: bool = False
    k: int | None = None
    width: int = 48
    noise: float = 0.02

    @property
    def active_latents(self) -> int:
        """Active latents of a row."""
        return self.active_shared + self.active_private if self.k is None else self.k


WORLDS = {
    "half shared": World(24, 24, 3, 3),
    "half shared, directions apart": World(24, 24, 3, 3, cosine=0.5),
    "half shared, k of 4 for 6 features": World(24, 24, 3, 3, k=4),
    "half shared, k of 12 for 6 features": World(24, 24, 3, 3, k=12),
    "all shared": World(48, 0, 6, 0),
    "nothing shared": World(0, 48, 0, 6),
    "nothing shared, same directions": World(0, 48, 0, 6, same_directions=True),
}
"""The worlds of the table."""


@dataclass(frozen=True)
class Planted:
    """Pairs of a world.

    Attributes:
        rows: The pairs.
        truth: How much of each feature is in each row: the shared ones, those of images, those of texts.
        n_shared: Shared features: the first.
        n_private: Private ones of each modality.
    """

    rows: PairRows
    truth: Codes
    n_shared: int
    n_private: int


def planted(world: World, n: int, directions: int, seed: int) -> Planted:
    """Pairs of a world.

    Args:
        world: What is planted.
        n: Pairs.
        directions: Seed of the directions.
        seed: Of the pairs.
    """
    draw = _generator("pairs", seed)
    image_of, text_of = feature_directions(world, directions)
    there = _active(n, world.shared, world.active_shared, draw)
    parts = []
    for _ in range(2):
        private = _active(n, world.private, world.active_private, draw)
        on = torch.cat([there, private], dim=1)
        parts.append(on * (1 + torch.rand(on.shape, generator=draw)))
    image, text = (
        part @ of + world.noise * torch.randn(n, world.width, generator=draw)
        for part, of in zip(parts, (image_of, text_of), strict=True)
    )
    silent = torch.zeros(n, world.private)
    codes = Codes(
        torch.cat([parts[0], silent], dim=1),
        torch.cat([parts[1][:, : world.shared], silent, parts[1][:, world.shared :]], dim=1),
    )
    return Planted(PairRows(image, text), codes, world.shared, world.private)


def feature_directions(world: World, seed: int) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
    """Directions of norm 1, shared features first: in images and in texts."""
    draw = _generator("directions", seed)

    def some(n: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(n, world.width, generator=draw), dim=1)

    shared, other = some(world.shared), some(world.shared)
    across = torch.nn.functional.normalize(other - torch.linalg.vecdot(other, shared)[:, None] * shared, dim=1)
    turned = world.cosine * shared + math.sqrt(1 - world.cosine**2) * across
    of_images, of_texts = some(world.private), some(world.private)
    return torch.cat([shared, of_images]), torch.cat([turned, of_images if world.same_directions else of_texts])


def _generator(use: str, seed: int) -> torch.Generator:
    """Never the draw that an SAE of the same seed begins at: it would begin at the truth."""
    return torch.Generator().manual_seed(int(unit_hash(use, f"{seed}/planted pairs") * 2**53))


def _active(n: int, features: int, active: int, draw: torch.Generator) -> Tensor:
    found = torch.zeros(n, features)
    if active:
        found.scatter_(1, torch.rand(n, features, generator=draw).topk(active, dim=1).indices, 1.0)
    return found
