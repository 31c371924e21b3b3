"""Third stage: projector and decoder learn to answer questions about images; the tower's features stay and are computed once.

Texts are mixed in so that the language is kept. In part of the batches the words may not look at the image in the first blocks
(see `blindfold`), so that looking is learnt in later blocks, too. The finished model has no such mask.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration

from demo_training.design import Design
from demo_training.features import Layout, image_embeddings
from demo_training.texts import TextSampler, decoder_logits
from demo_training.turns import Batch, Sample, answer_loss, collate
from linrep.demo.language import BOS_ID, IMAGE_ID, PAD_ID, caption
from linrep.demo.scene import Scene, draw_scene

OTHER_WORLD = 1001
"""Seed of the scenes that are described after an image."""


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


def image_batch(
    sampler: TextSampler,
    images: SceneImages,
    rows: list[int],
    rng: np.random.Generator,
    interleaved: float = 0.0,
    described: bool = False,
) -> Batch:
    """Some questions about each image.

    Args:
        sampler: Which questions there are, and how many are asked.
        images: Scenes.
        rows: Which of them, all of one size.
        rng: Draws the questions.
        interleaved: Share of the one-object scenes after which a sentence describes a second object.
        described: Words take the image's place, and everything else stays as it is.
    """
    image = [IMAGE_ID] * len(images.layout(rows[0]).index)
    samples = []
    for i in rows:
        scene = images.scenes[i]
        context = sampler.ids(caption(scene, int(rng.integers(6)))) if described else list(image)
        asked = sampler.questions(scene, ("images",))
        if interleaved and len(scene.things) == 1 and rng.random() < interleaved:
            other = _draw_other(rng, scene)
            context += sampler.ids(caption(other, int(rng.integers(6))))
            both = replace(scene, things=(scene.main, other.main))
            asked = sampler.questions(both, ("images",))[1:]  # not "describe the picture ."
        picked = rng.permutation(len(asked))[: sampler.n_turns]
        samples.append(Sample([BOS_ID, *context], [sampler.turn(asked[k]) for k in picked]))
    return collate(samples, PAD_ID)


def _draw_other(rng: np.random.Generator, scene: Scene) -> Scene:
    """A scene in words with another object in another colour, for a question names either by its colour or its kind."""
    while True:
        other = draw_scene(OTHER_WORLD, "train", int(rng.integers(2**31)))
        if other.main.object != scene.main.object and other.main.colour != scene.main.colour:
            return other


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
    design: Design,
    seed: int,
    text_every: int = 4,
    report_every: int = 100,
) -> Iterator[dict[str, float]]:
    """Train projector, newline and (after the budget's `projector_only` steps) decoder in place.

    Of the budget: decoder_rate is the decoder's learning rate as a share of the projector's; blind_share the share of image
    batches whose words are blind in the first blocks, their number drawn from 1 to blind_blocks. text_every: one step in this
    many is a text batch.
    """
    b = design.budget
    eyes = [*model.model.multi_modal_projector.parameters(), model.model.image_newline]
    decoder = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    groups = [{"params": eyes, "lr": b.image_rate}, {"params": decoder, "lr": b.image_rate * b.decoder_rate}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    rng = np.random.default_rng([seed, 12])
    sums: dict[str, list[float]] = {}
    model.model.language_model.train()
    for step in range(b.image_steps):
        warm = min(1.0, (step + 1) / 40)
        cooled = 0.5 * (1 + np.cos(np.pi * step / b.image_steps))
        awake = step >= b.projector_only
        waking = min(1.0, (step - b.projector_only + 1) / 40) if awake else 0.0
        for group, share in zip(optimizer.param_groups, (1.0, b.decoder_rate * waking), strict=True):
            group["lr"] = b.image_rate * share * max(0.02, warm * cooled)
        for p in decoder:
            p.requires_grad_(awake)
        if awake and step % text_every == text_every - 1:
            kind, batch = "text", sampler.batch(rng, 10**6 + step * b.image_batch, b.image_batch)
            loss = answer_loss(decoder_logits(model, batch), batch.labels)
        else:
            rows = images.draw(rng, b.image_batch)
            described = design.described_share > 0 and rng.random() < design.described_share
            batch = image_batch(sampler, images, rows, rng, design.interleaved, described)
            n_blind = int(rng.integers(1, b.blind_blocks + 1)) if rng.random() < b.blind_share else 0
            kind = "described" if described else "image, blind" if n_blind else "image"
            with blindfold(model, batch, n_blind):
                logits = decoder_logits(model, batch) if described else image_logits(model, images, rows, batch)
                loss = answer_loss(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*eyes, *decoder], 1.0)
        optimizer.step()
        sums.setdefault(kind, []).append(loss.item())
        if (step + 1) % report_every == 0:
            yield {"step": step + 1, **{name: float(np.mean(values)) for name, values in sums.items()}}
            sums = {}
    model.eval()
