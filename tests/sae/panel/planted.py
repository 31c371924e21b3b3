"""A world in which the truth is known: tokens are sums of directions, some of which stand for attribute values of their image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from linrep.sae.architectures import Largest
from linrep.sae.config import Adam, SaeDesign, TopK
from linrep.sae.panel.causal import Cases
from linrep.sae.panel.data import PanelData, TokenRows, Values
from linrep.sae.sae import Sae
from linrep.sae.train import Rows, Trainer

D, CLASSES, COLOURS, NUISANCES, TOKENS = 32, 12, 6, 30, 8
ACTIVE = 4
"""Directions of a token: its class, its colour and two nuisances."""


@dataclass(frozen=True)
class World:
    """Images of one world.

    Attributes:
        rows: Their tokens.
        parts: How much of each direction is in each token.
        directions: One row each, of norm 1: classes, colours, nuisances.
        of_class: Class of each image.
        of_colour: Its colour.
    """

    rows: TokenRows
    parts: Tensor
    directions: Tensor
    of_class: np.ndarray
    of_colour: np.ndarray

    @property
    def meant(self) -> float:
        """Share of the variance that is gone when the parts of all values are taken away: what can be explained by them."""
        n = CLASSES + COLOURS
        centred = self.rows.x.double() - self.rows.x.double().mean(0)
        meant = self.parts[:, :n].double() @ self.directions[:n].double()
        return 1 - float((centred - meant + meant.mean(0)).square().sum() / centred.square().sum())

    @property
    def values(self) -> Values:
        """Class and colour of every image."""
        return Values.of({"class": [f"c{i:02}" for i in self.of_class], "colour": [f"k{i:02}" for i in self.of_colour]})


def world(n_images: int, seed: int, noise: float = 0.02, meaning: bool = True) -> World:
    """Images of the world, whose directions are the same for every seed.

    Args:
        n_images: How many.
        seed: Of the images.
        noise: Deviation of what is no direction's.
        meaning: Whether the directions of values go with the values of the image; else they go with those of no image.
    """
    n_directions = CLASSES + COLOURS + NUISANCES
    directions = torch.nn.functional.normalize(torch.randn(n_directions, D, generator=torch.Generator().manual_seed(7)), dim=1)
    draw = torch.Generator().manual_seed(100 + seed)
    of_class, of_colour = (torch.randint(n, (n_images,), generator=draw) for n in (CLASSES, COLOURS))
    image = torch.arange(n_images).repeat_interleave(TOKENS)
    n = len(image)
    shown_class, shown_colour = of_class[image], of_colour[image]
    if not meaning:  # every token shows what it will
        shown_class, shown_colour = (torch.randint(m, (n,), generator=draw) for m in (CLASSES, COLOURS))
    parts = torch.zeros(n, n_directions)
    each = torch.arange(n)
    there = torch.rand(n, 2, generator=draw) < 0.6
    amounts = 1 + torch.rand(n, 2, generator=draw)
    parts[each, shown_class] = amounts[:, 0] * there[:, 0]
    parts[each, CLASSES + shown_colour] = amounts[:, 1] * there[:, 1]
    drawn = torch.rand(n, NUISANCES, generator=draw).topk(2, dim=1).indices + CLASSES + COLOURS
    parts.scatter_(1, drawn, 1 + torch.rand(n, 2, generator=draw))
    x = parts @ directions + noise * torch.randn(n, D, generator=draw) + 0.5
    return World(TokenRows(x, image, n_images), parts, directions, of_class.numpy(), of_colour.numpy())


def noise_world(n_images: int, seed: int) -> World:
    """Gaussian tokens, and values that were dealt to the images by chance."""
    like = world(n_images, seed)
    x = torch.randn(len(like.rows.x), D, generator=torch.Generator().manual_seed(500 + seed))
    return World(TokenRows(x, like.rows.image, n_images), like.parts, like.directions, like.of_class, like.of_colour)


def data(train: World, held: World) -> PanelData:
    """To choose on the one and report on the other."""
    return PanelData.of(train.rows, held.rows, train.values, held.values)


@dataclass(frozen=True)
class Parts:
    """An encoder that knows how much of each direction is in the tokens of some worlds: the right answer."""

    worlds: tuple[World, ...]

    @property
    def decoder(self) -> Tensor:
        return self.worlds[0].directions

    @property
    def d_model(self) -> int:
        return D

    @property
    def n_latents(self) -> int:
        return len(self.decoder)

    def encode(self, x: Tensor) -> Tensor:
        return next(own.parts for own in self.worlds if len(own.rows.x) == len(x) and torch.equal(own.rows.x, x))


def trained(x: Tensor, seed: int, steps: int = 500, f: int = 96) -> Sae:
    """A TopK SAE."""
    config = SaeDesign(activation=TopK(k=ACTIVE), expansion=f / D, adam=Adam(learning_rate=1e-2), seed=seed)
    trainer = Trainer.begin(config, x[:1000], steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (256,), generator=draw)]
        trainer.take(Rows(batch, torch.zeros(256, dtype=torch.bool)))
    return trainer.sae()


def random_directions(seed: int, f: int = 96) -> Sae:
    """Directions that know nothing."""
    decoder = torch.nn.functional.normalize(torch.randn(f, D, generator=torch.Generator().manual_seed(seed)), dim=1)
    return Sae(decoder, torch.zeros(f), decoder, torch.full((D,), 0.5), Largest(ACTIVE), True)


def pairs() -> list[tuple[int, int]]:
    """Classes to leave and to reach."""
    return [(i, (i + step) % CLASSES) for step in (1, 2, 5) for i in range(CLASSES)]


def trial(shown: World, strength: float = 1.5, each: int = 6, blind: bool = False):
    """A linear model in the place of a real one: it reads class and colour off the mean token, by the world's own directions.

    Args:
        shown: Images that are edited.
        strength: In units of the difference of class means.
        each: Images of a pair.
        blind: The model answers by chance, whatever is added.
    """
    read = torch.linalg.pinv(shown.directions[: CLASSES + COLOURS] @ shown.directions[: CLASSES + COLOURS].t())
    readout = read @ shown.directions[: CLASSES + COLOURS]
    sums = torch.zeros(shown.rows.n_images, D).index_add_(0, shown.rows.image, shown.rows.x - 0.5)
    tokens = sums / TOKENS

    def answers(x: Tensor) -> tuple[Tensor, Tensor]:
        scores = x @ readout.t()
        if blind:
            scores = torch.randn(scores.shape, generator=torch.Generator().manual_seed(int(1e6 * float(x.abs().sum()) % 1e6)))
        return scores[:, :CLASSES].argmax(1), scores[:, CLASSES:].argmax(1)

    plain_class, plain_colour = answers(tokens)
    rows = [
        (p, source, target, int(i))
        for p, (source, target) in enumerate(pairs())
        for i in np.flatnonzero((shown.of_class == source) & (plain_class.numpy() == source))[:each]
    ]
    pair, source, target, image = (np.array(column) for column in zip(*rows, strict=True))

    def run(directions: Tensor) -> tuple[Cases, np.ndarray]:
        outcomes = []
        for kind in directions:
            said_class, said_colour = answers(tokens[image] + strength * kind[pair])
            outcomes.append((said_class.numpy() == target) & (said_colour == plain_colour[image]).numpy())
        return Cases(source, target, image), np.array(outcomes, float)

    return run
