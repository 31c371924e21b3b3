"""Third stage: projector and decoder learn to answer questions about images; the tower's features stay and are computed once.

Texts are mixed in so that the language is kept. In part of the batches the words may not look at the image in the first blocks
(see `blindfold`), so that looking is learnt in later blocks, too. The finished model has no such mask.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration

from demo_training.features import Layout, image_embeddings
from demo_training.texts import TextSampler, decoder_logits
from demo_training.turns import Batch, Sample, answer_loss, collate
from linrep.demo.language import BOS_ID, IMAGE_ID, PAD_ID, questions
from linrep.demo.scene import Scene


class SceneImages:
    """Scenes with their features, served in batches of one size each (so no image is padded)."""

    def __init__(
        self, scenes: list[Scene], features: Float[Tensor, "n p w"], first: list[int], layouts: dict[tuple[int, int], Layout]
    ) -> None:
        self.scenes, self.features, self.first, self.layouts = scenes, features, first, layouts
        self.by_size: dict[tuple[int, int], list[int]] = {}
        for i, scene in enumerate(scenes):
            self.by_size.setdefault((scene.width, scene.height), []).append(i)

    def tiles(self, rows: list[int]) -> Float[Tensor, "b n p w"]:
        n = 2 if self.scenes[rows[0]].layout == "square" else 3
        return torch.stack([self.features[self.first[i] : self.first[i] + n] for i in rows])

    def layout(self, row: int) -> Layout:
        return self.layouts[self.scenes[row].width, self.scenes[row].height]

    def draw(self, rng: np.random.Generator, size: int) -> list[int]:
        """Images of one size, each size as often as it has images."""
        sizes = sorted(self.by_size)
        counts = np.array([len(self.by_size[s]) for s in sizes])
        of_size = self.by_size[sizes[rng.choice(len(sizes), p=counts / counts.sum())]]
        return [of_size[i] for i in rng.choice(len(of_size), size=min(size, len(of_size)), replace=False)]


def image_batch(sampler: TextSampler, images: SceneImages, rows: list[int], rng: np.random.Generator | None) -> Batch:
    """Some questions about each image, or all of them where no generator is given."""
    context = [BOS_ID] + [IMAGE_ID] * len(images.layout(rows[0]).index)
    samples = []
    for i in rows:
        asked = questions(images.scenes[i])
        picked = range(len(asked)) if rng is None else rng.permutation(len(asked))[: sampler.n_turns]
        samples.append(Sample(context, [sampler.turn(asked[k]) for k in picked]))
    return collate(samples, PAD_ID)


def image_logits(
    model: LlavaNextForConditionalGeneration, images: SceneImages, rows: list[int], batch: Batch
) -> Float[Tensor, "b t v"]:
    seen = image_embeddings(model, images.tiles(rows), images.layout(rows[0]))
    words = model.model.language_model.embed_tokens(batch.ids)
    n = 1 + seen.shape[1]
    return decoder_logits(model, batch, torch.cat([words[:, :1], seen, words[:, n:]], dim=1))


@contextmanager
def blindfold(model: LlavaNextForConditionalGeneration, batch: Batch, n_blocks: int) -> Iterator[None]:
    """Within, the words cannot look at the image in the first `n_blocks` blocks. Training only."""
    image = batch.branch == 0
    image[:, 0] = False  # <s> stays visible to all
    hidden = (image[:, None, :] & (batch.branch != 0)[:, :, None])[:, None]

    def cover(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, {**kwargs, "attention_mask": kwargs["attention_mask"] & ~hidden}

    hooks = [block.register_forward_pre_hook(cover, with_kwargs=True) for block in model.model.language_model.layers[:n_blocks]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def match_norms(model: LlavaNextForConditionalGeneration, images: SceneImages, rows: list[int]) -> None:
    """Scale the projector so that image tokens start with the mean norm of word embeddings."""
    with torch.no_grad():
        words = model.model.language_model.embed_tokens.weight.norm(dim=-1).mean()
        projector = model.model.multi_modal_projector
        tiles = images.tiles(rows).flatten(0, 2)
        projector.linear_1.weight /= tiles.std()
        projector.linear_2.weight *= words / projector(tiles).norm(dim=-1).mean()
        model.model.image_newline *= words / model.model.image_newline.norm()


def fit_images(
    model: LlavaNextForConditionalGeneration,
    sampler: TextSampler,
    images: SceneImages,
    n_steps: int,
    batch_size: int,
    peak_rate: float,
    seed: int,
    projector_only: int = 0,
    decoder_rate: float = 0.5,
    text_every: int = 4,
    blind_share: float = 0.0,
    blind_blocks: int = 0,
    report_every: int = 100,
) -> Iterator[dict[str, float]]:
    """Train projector, newline and (after `projector_only` steps) decoder in place.

    decoder_rate: the decoder's learning rate as a share of the projector's; text_every: one step in this many is a text batch;
    blind_share: share of image batches whose words are blind in the first blocks, their number drawn from 1 to blind_blocks.
    """
    eyes = [*model.model.multi_modal_projector.parameters(), model.model.image_newline]
    decoder = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    groups = [{"params": eyes, "lr": peak_rate}, {"params": decoder, "lr": peak_rate * decoder_rate}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    rng = np.random.default_rng([seed, 12])
    sums: dict[str, list[float]] = {}
    model.model.language_model.train()
    for step in range(n_steps):
        warm = min(1.0, (step + 1) / 40)
        cooled = 0.5 * (1 + np.cos(np.pi * step / n_steps))
        awake = step >= projector_only
        waking = min(1.0, (step - projector_only + 1) / 40) if awake else 0.0
        for group, share in zip(optimizer.param_groups, (1.0, decoder_rate * waking), strict=True):
            group["lr"] = peak_rate * share * max(0.02, warm * cooled)
        for p in decoder:
            p.requires_grad_(awake)
        if awake and step % text_every == text_every - 1:
            kind, batch = "text", sampler.batch(rng, 10**6 + step * batch_size, batch_size)
            loss = answer_loss(decoder_logits(model, batch), batch.labels)
        else:
            rows = images.draw(rng, batch_size)
            batch = image_batch(sampler, images, rows, rng)
            n_blind = int(rng.integers(1, blind_blocks + 1)) if rng.random() < blind_share else 0
            kind = "image, blind" if n_blind else "image"
            with blindfold(model, batch, n_blind):
                loss = answer_loss(image_logits(model, images, rows, batch), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*eyes, *decoder], 1.0)
        optimizer.step()
        sums.setdefault(kind, []).append(loss.item())
        if (step + 1) % report_every == 0:
            yield {"step": step + 1, **{name: float(np.mean(values)) for name, values in sums.items()}}
            sums = {}
    model.eval()
