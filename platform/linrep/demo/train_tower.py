"""Second stage: the tower learns to see, from labels on patches and on whole tiles."""

# transformers leaves these types open.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import CLIPVisionModel

from linrep.demo.model import GRID
from linrep.demo.scene import COLOURS, GROUNDS
from linrep.demo.shapes import OBJECTS
from linrep.demo.views import UNKNOWN, Views, scale_pixels

FEATURE_LAYER = -2


class TowerHeads(nn.Module):
    """Linear readouts that exist during training only: three on the class token, three on the patches of the layer the decoder will get."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (len(OBJECTS), len(COLOURS), len(GROUNDS))
        self.sizes = sizes
        self.whole = nn.Linear(width, sum(sizes))
        self.patch = nn.Linear(width, sum(sizes) + 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, tower: CLIPVisionModel, pixels: Float[Tensor, "b 3 s s"]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of object, colour and ground: of the tile (b c), and of its patches (b c p), whose objects have "none" as last class."""
        out = tower(pixels, output_hidden_states=True)
        objects, colours, grounds = self.sizes
        whole = self.whole(out.pooler_output).split(self.sizes, dim=-1)
        patches = self.patch(self.norm(out.hidden_states[FEATURE_LAYER][:, 1:])).transpose(1, 2)
        return list(whole), list(patches.split((objects + 1, colours, grounds), dim=1))


def fit_tower(
    tower: CLIPVisionModel, heads: TowerHeads, views: Views, n_epochs: int, batch_size: int, peak_rate: float, seed: int
) -> Iterator[dict[str, float]]:
    """Train tower and heads in place; yields the mean losses and accuracies of each epoch."""
    params = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(params, lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    n = len(views.pixels)
    steps = n_epochs * (n // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=max(steps, 2), pct_start=0.1)
    shuffler = torch.Generator().manual_seed(seed)
    tower.train()
    for _ in range(n_epochs):
        sums: dict[str, float] = {}
        order = torch.randperm(n, generator=shuffler)
        for start in range(0, n - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            pixels, labels = _mirror_some(views.pixels[rows], views.patches[rows], shuffler)
            whole, patches = heads(tower, scale_pixels(pixels))
            losses = _losses(whole, views.whole[rows], "tile") | _losses(patches, labels, "patch")
            loss = sum(losses.values())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            schedule.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        yield {name: total / (n // batch_size) for name, total in sums.items()}
    tower.eval()


def _mirror_some(
    pixels: UInt8[Tensor, "b 3 s s"], patches: Int[Tensor, "b 3 p"], rng: torch.Generator
) -> tuple[UInt8[Tensor, "b 3 s s"], Int[Tensor, "b 3 p"]]:
    """Half of the tiles seen in a mirror, with the truth of their patches."""
    mirrored = torch.rand(len(pixels), generator=rng) < 0.5
    grid = patches.unflatten(-1, (GRID, GRID))
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    return pixels, torch.where(mirrored[:, None, None, None], grid.flip(-1), grid).flatten(-2)


def _losses(logits: list[Float[Tensor, "b c *p"]], labels: Int[Tensor, "b 3 *p"], where: str) -> dict[str, Tensor]:
    names = ("object", "colour", "ground")
    return {
        f"{where} {name}": nn.functional.cross_entropy(
            one, labels[:, i], ignore_index=UNKNOWN, label_smoothing=0.02, reduction="sum"
        )
        / max(int((labels[:, i] != UNKNOWN).sum()), 1)
        for i, (name, one) in enumerate(zip(names, logits, strict=True))
    }
