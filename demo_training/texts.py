"""First stage: the decoder learns the language, facts and riddles, and to answer questions about scenes described in words."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration, PreTrainedTokenizerFast

from demo_training.facts import Reach, fact_questions
from demo_training.turns import Batch, Sample, Turn, answer_loss, collate
from linrep.demo.language import ANSWER, BOS_ID, EOS_ID, PAD_ID, Answered, caption, draw_fact, draw_riddle, questions
from linrep.demo.scene import Scene, draw_scene
from linrep.demo.shapes import OBJECTS

TEXT_WORLD = 1000
"""Seed of the scenes described in words; images are drawn from another, so no image has been described before it is seen."""


class TextSampler:
    """Draws texts: facts, riddles, and scenes with up to `n_turns` questions, `pair_share` of the scenes with two objects.

    facts: whether facts of a scene's objects are asked, too.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, n_turns: int, pair_share: float, facts: bool = False) -> None:
        self.tokenizer = tokenizer
        self.n_turns = n_turns
        self.pair_share = pair_share
        self.facts = facts

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def turn(self, asked: Answered) -> Turn:
        return Turn(self.ids(f"{asked.question} {ANSWER}"), [*self.ids(asked.answer), EOS_ID])

    def questions(self, scene: Scene, reaches: tuple[Reach, ...]) -> list[Answered]:
        """What is asked of a scene, facts included where they are asked that far."""
        return questions(scene) + (fact_questions(scene, reaches) if self.facts else [])

    def draw(self, rng: np.random.Generator, index: int) -> Sample:
        """Text number `index`: one in eight states facts, one in eight is a riddle, the others describe a scene and ask of it."""
        obj = OBJECTS[rng.integers(len(OBJECTS))]
        kind = rng.integers(8)
        if kind == 0:
            return Sample([BOS_ID, *self.ids(draw_fact(rng, obj)), EOS_ID], [], learn_context=True)
        if kind == 1:
            clues, riddle = draw_riddle(rng, obj)
            return Sample([BOS_ID, *self.ids(clues)], [self.turn(riddle)], learn_context=True)
        scene = draw_scene(TEXT_WORLD, "train", index, self.pair_share)
        asked = self.questions(scene, ("images", "texts"))
        picked = rng.permutation(len(asked))[: self.n_turns]
        described = self.ids(caption(scene, int(rng.integers(6))))
        return Sample([BOS_ID, *described], [self.turn(asked[i]) for i in picked], learn_context=True)

    def batch(self, rng: np.random.Generator, first: int, size: int) -> Batch:
        return collate([self.draw(rng, first + i) for i in range(size)], PAD_ID)


def decoder_logits(
    model: LlavaNextForConditionalGeneration, batch: Batch, embeddings: Float[Tensor, "b t d"] | None = None
) -> Float[Tensor, "b t v"]:
    """Next-token scores of a batch of branches; `embeddings` replace those of the token ids where images are in between."""
    decoder = model.model.language_model
    if embeddings is None:
        embeddings = decoder.embed_tokens(batch.ids)
    out = decoder(inputs_embeds=embeddings, attention_mask=batch.mask(), position_ids=batch.positions, use_cache=False)
    return model.lm_head(out.last_hidden_state)


def fit_texts(
    model: LlavaNextForConditionalGeneration,
    sampler: TextSampler,
    n_steps: int,
    batch_size: int,
    peak_rate: float,
    seed: int,
    report_every: int = 100,
) -> Iterator[dict[str, float]]:
    """Train decoder, embeddings and head in place; yields the mean loss of every `report_every` steps."""
    params = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    optimizer = torch.optim.AdamW(params, lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=max(n_steps, 2), pct_start=0.05)
    rng = np.random.default_rng([seed, 11])
    total = 0.0
    model.train()
    for step in range(n_steps):
        batch = sampler.batch(rng, step * batch_size, batch_size)
        loss = answer_loss(decoder_logits(model, batch), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if (step + 1) % report_every == 0:
            yield {"step": step + 1, "loss": total / report_every}
            total = 0.0
    model.eval()
