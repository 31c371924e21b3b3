"""Second stage: the tower learns to see, from labels on patches and on whole tiles, part of them recoloured."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPVisionModel

from demo_training.model import GRID
from demo_training.views import CELLS, UNKNOWN, Views, scale_pixels
from linrep.demo.scene import COLOURS, GROUNDS
from linrep.demo.shapes import OBJECTS

FEATURE_LAYER = -2
OUTLINE_LAYER = 2
OUTLINE_WEIGHT = 3.0
RECOLOURED = 0.5


class TowerHeads(nn.Module):
    """Linear readouts, in training only: of the tile (from the class token) and of each patch at the layer that the decoder gets,
    and of the outline in each patch at an earlier one, so that later blocks can separate shapes whatever their colour.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = (len(OBJECTS), len(COLOURS), len(GROUNDS))
        self.whole = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.sizes)))
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.sizes) + 1))
        self.outline = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CELLS * CELLS))

    def forward(self, tower: CLIPVisionModel, pixels: Float[Tensor, "b 3 s s"]) -> "Seen":
        """What is read off some tiles; blocks after the layer that the decoder gets are not run."""
        objects, colours, grounds = self.sizes
        stream = tower.pre_layrnorm(tower.embeddings(pixels))
        outlines = stream[:, 1:, :0]
        for number, block in enumerate(tower.encoder.layers[: FEATURE_LAYER + 1], start=1):
            stream = block(stream, None)
            if number == OUTLINE_LAYER:
                outlines = self.outline(stream[:, 1:])
        whole = self.whole(stream[:, 0]).split(self.sizes, dim=-1)
        patches = self.patch(stream[:, 1:]).transpose(1, 2).split((objects + 1, colours, grounds), dim=1)
        return Seen(list(whole), list(patches), outlines)


@dataclass(frozen=True)
class Seen:
    """Logits of object, colour and ground, of the tile (b c) and of its patches (b c p; a last object means "none"), and of the
    outline in each patch's cells.
    """

    whole: list[Tensor]
    patches: list[Tensor]
    outlines: Float[Tensor, "b p cells"]


def fit_tower(
    tower: CLIPVisionModel, heads: TowerHeads, views: Views, n_epochs: int, batch_size: int, peak_rate: float, seed: int
) -> Iterator[dict[str, float]]:
    """Train tower and heads in place; yields the mean losses of each epoch."""
    params = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(params, lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    n = len(views.pixels)
    steps = n_epochs * (n // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=max(steps, 2), pct_start=0.1)
    rng = torch.Generator().manual_seed(seed)
    tower.train()
    for _ in range(n_epochs):
        sums: dict[str, float] = {}
        order = torch.randperm(n, generator=rng)
        for start in range(0, n - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            shown = _recolour_some(_mirror_some(_take(views, rows), rng), rng)
            seen = heads(tower, scale_pixels(shown.pixels))
            losses = _losses(seen.whole, shown.whole, "tile") | _losses(seen.patches, shown.patches, "patch")
            losses["outline"] = OUTLINE_WEIGHT * nn.functional.binary_cross_entropy_with_logits(
                seen.outlines, _by_patch(shown.outlines)
            )
            loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            schedule.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        yield {name: total / (n // batch_size) for name, total in sums.items()}
    tower.eval()


@dataclass(frozen=True)
class Tiles:
    """A batch of tiles, 0..255, with object, colour and ground of each tile and of each of its patches, and outlines, 0..1."""

    pixels: Float[Tensor, "b 3 s s"]
    whole: Int[Tensor, "b 3"]
    patches: Int[Tensor, "b 3 p"]
    outlines: Float[Tensor, "b c c"]


def _take(views: Views, rows: Int[Tensor, " b"]) -> Tiles:
    return Tiles(views.pixels[rows].float(), views.whole[rows], views.patches[rows], views.outlines[rows].float() / 255)


def _by_patch(outlines: Float[Tensor, "b c c"]) -> Float[Tensor, "b p cells"]:
    """The cells of each patch, row by row."""
    return outlines.unflatten(2, (GRID, CELLS)).unflatten(1, (GRID, CELLS)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _mirror_some(tiles: Tiles, rng: torch.Generator) -> Tiles:
    """Half of the tiles seen in a mirror, with the truth of their patches."""
    mirrored = torch.rand(len(tiles.pixels), generator=rng) < 0.5
    grid = tiles.patches.unflatten(-1, (GRID, GRID))
    return Tiles(
        torch.where(mirrored[:, None, None, None], tiles.pixels.flip(-1), tiles.pixels),
        tiles.whole,
        torch.where(mirrored[:, None, None, None], grid.flip(-1), grid).flatten(-2),
        torch.where(mirrored[:, None, None], tiles.outlines.flip(-1), tiles.outlines),
    )


def _recolour_some(tiles: Tiles, rng: torch.Generator) -> Tiles:
    """Half of the tiles in colours of no scene, where only the objects are asked.

    Channels change places, half of them are turned into their negative, contrast and brightness of each channel vary. A shape
    has to be known by its outline then, whatever it is painted in: that is what unseen combinations of object and colour need.
    """
    n = len(tiles.pixels)
    recoloured = torch.rand(n, generator=rng) < RECOLOURED
    places = torch.rand(n, 3, generator=rng).argsort(1)
    pixels = tiles.pixels.gather(1, places[:, :, None, None].expand_as(tiles.pixels))
    pixels = torch.where(torch.rand(n, 1, 1, 1, generator=rng) < 0.5, 255 - pixels, pixels)
    contrast, brightness = torch.rand(2, n, 3, 1, 1, generator=rng)
    pixels = ((pixels - 128) * (0.4 + 0.8 * contrast) + 128 + 80 * (brightness - 0.5)).clamp(0, 255)
    unasked = recoloured[:, None] & torch.tensor([False, True, True])
    return Tiles(
        torch.where(recoloured[:, None, None, None], pixels, tiles.pixels),
        tiles.whole.masked_fill(unasked, UNKNOWN),
        tiles.patches.masked_fill(unasked[:, :, None], UNKNOWN),
        tiles.outlines,
    )


def _losses(logits: list[Float[Tensor, "b _ *p"]], labels: Int[Tensor, "b 3 *p"], where: str) -> dict[str, Tensor]:
    names = ("object", "colour", "ground")
    return {
        f"{where} {name}": nn.functional.cross_entropy(
            one, labels[:, i], ignore_index=UNKNOWN, label_smoothing=0.02, reduction="sum"
        )
        / max(int((labels[:, i] != UNKNOWN).sum()), 1)
        for i, (name, one) in enumerate(zip(names, logits, strict=True))
    }
