"""`python -m demo_training.train --out DIR [--design looking]`: makes a model from nothing, in three stages as LLaVA was made.

1. texts: the decoder learns the language and to answer questions about scenes described in words.
2. tower: the vision tower learns objects, colours and grounds from labelled tiles.
3. images: projector and decoder learn to answer the same questions about images.

Each stage leaves a checkpoint in `DIR/stages`; running the command again goes on after the last finished stage. What the third
begins with lies in `DIR/pre-visual`, a model as the finished one is: it sees, and its decoder has met no image.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import LlavaNextForConditionalGeneration

from demo_training.design import DESIGNS, Design
from demo_training.features import token_layouts, tower_features
from demo_training.images import SceneImages, fit_images, match_norms
from demo_training.model import (
    TOWER_WIDTH,
    build_model,
    build_processor,
    build_tokenizer,
    drop_later_blocks,
    save_model,
)
from demo_training.texts import TextSampler, fit_texts
from demo_training.tower import TowerHeads, fit_tower
from demo_training.views import Views, cut_views
from linrep.demo.scene import draw_scene


def train(out: Path, seed: int = 0, design: Design | None = None, say: Callable[[str], None] = print) -> Path:
    """Train a model and write it to `out` as a Hugging Face folder, with `training.json`: design, seed and what each stage took.

    Everything random follows from the seed; the bits follow from it on one kind of machine and one number of threads.
    """
    design = design or Design()
    b = design.budget
    model = build_model(seed, design)
    stages = out / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    sampler = TextSampler(build_tokenizer(), b.n_turns, b.pair_share, design.facts)
    views: list[Views] = []

    def seen() -> Views:
        if not views:  # the second and the third stage share the images; a resumed run may need them for the third alone
            views.append(cut_views(scenes, build_processor()))
        return views[0]

    scenes = [draw_scene(seed, "train", i, b.pair_share) for i in range(b.n_scenes)]

    def texts() -> Iterator[dict]:
        return fit_texts(model, sampler, b.text_steps, b.text_batch, b.text_rate, seed)

    def tower() -> Iterator[dict]:
        torch.manual_seed(seed)
        heads = TowerHeads(TOWER_WIDTH)
        return fit_tower(model.model.vision_tower, heads, seen(), b.tower_epochs, b.tower_batch, b.tower_rate, seed)

    def images() -> Iterator[dict]:
        shown = SceneImages(scenes, tower_features(model, seen().pixels), seen().first, token_layouts(model, scenes))
        match_norms(model, shown, shown.by_size[72, 72][:64])
        save_model(out / "pre-visual", deepcopy(model))  # of a copy: saving rounds the weights
        return fit_images(model, sampler, shown, design, seed)

    spent = {}
    for number, stage in enumerate((texts, tower, images), start=1):
        spent[stage.__name__] = _run_stage(model, stages / f"{number}-{stage.__name__}.pt", stage, say)
        if stage is tower:
            drop_later_blocks(model, design)
    save_model(out, model)
    report = {"seed": seed, "threads": torch.get_num_threads(), **asdict(design), "stages": spent}
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    return out


def _run_stage(
    model: LlavaNextForConditionalGeneration, checkpoint: Path, stage: Callable[[], Iterator[dict]], say: Callable[[str], None]
) -> dict[str, float]:
    """Run a stage, or take up its checkpoint; what it cost in CPU and wall seconds."""
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        say(f"{checkpoint.stem}: taken from {checkpoint}")
        return saved["spent"]
    wall, cpu = time.perf_counter(), time.process_time()
    for metrics in stage():
        spent = {"cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.perf_counter() - wall, 1)}
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        say(f"{checkpoint.stem}: {numbers} (CPU {spent['cpu_s']:.0f} s, wall {spent['wall_s']:.0f} s)")
    spent = {"cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.perf_counter() - wall, 1)}
    growing = checkpoint.with_suffix(".part")
    torch.save({"model": model.state_dict(), "spent": spent}, growing)
    growing.rename(checkpoint)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model from nothing, in three stages.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the model; its checkpoints go to OUT/stages.")
    parser.add_argument("--design", choices=list(DESIGNS), default="demo", help="Which of the committed models.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the committed weights were made with one.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args.out, args.seed, DESIGNS[args.design], say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
