"""The committed model: what it names, and that moving its image tokens towards another object's mean changes what it sees."""

from functools import cache

import pytest
import torch
from transformers import AutoProcessor

from demo_training.evaluate import named
from demo_training.looking import Group, answers, group
from linrep.demo import model_folder
from linrep.demo.language import WHAT, parse_answer, prompt
from linrep.demo.scene import draw_scene
from linrep.demo.shapes import OBJECTS
from linrep.vlm.config import ModelConfig
from linrep.vlm.hooks import edit_rows, record
from linrep.vlm.load import load

LAYERS = (0, 1, 2, 6)


@cache
def official():
    """The processor as transformers loads it: what trained the model."""
    return AutoProcessor.from_pretrained(model_folder(), backend="pil")


@pytest.fixture(scope="module")
def vlm():
    return load(ModelConfig(path=str(model_folder())), depth=None)


def groups_of(vlm, scenes) -> list[Group]:
    return list(group(official(), scenes, [prompt(WHAT)] * len(scenes)))


@pytest.fixture(scope="module")
def means(vlm):
    """Mean image token of each object and layer, over training scenes."""
    scenes = [draw_scene(0, "train", i) for i in range(320)]
    sums = {k: torch.zeros(len(OBJECTS), vlm.model.config.text_config.hidden_size) for k in LAYERS}
    counts = torch.zeros(len(OBJECTS))
    for some in groups_of(vlm, scenes):
        mask = some.inputs["input_ids"] == vlm.card.image_token_id
        labels = torch.tensor([OBJECTS.index(scenes[i].main.object) for i in some.rows])
        with record(vlm, LAYERS) as streams, torch.no_grad():
            vlm.model(**some.inputs)
        for k in LAYERS:
            pooled = torch.stack([h[m].mean(0) for h, m in zip(streams[k], mask, strict=True)])
            sums[k].index_add_(0, labels, pooled)
        counts.index_add_(0, labels, torch.ones(len(labels)))
    return {k: sums[k] / counts[:, None] for k in LAYERS}


def steered(vlm, scenes, vectors: dict[int, torch.Tensor]) -> list[str]:
    """What the model says of each scene with its row of `vectors[k]` added to every image token at layer k."""
    said: dict[int, str] = {}
    for some in groups_of(vlm, scenes):
        mask = some.inputs["input_ids"] == vlm.card.image_token_id
        rows = torch.tensor(some.rows)
        moves = {k: (lambda h, row, v=v[rows]: h + v[row]) for k, v in vectors.items()}
        with edit_rows(vlm, moves, mask):
            texts = answers(vlm.model, official(), [Group(list(range(len(some.rows))), some.inputs)], max_new_tokens=2)
        said.update(zip(some.rows, texts, strict=True))
    return [said[i] for i in range(len(scenes))]


def test_objects_colours_and_grounds_are_named():
    """Far above the 1 in 16, 8 and 4 of guessing; the exact shares are in the model's card."""
    found = named(120, first=40000)
    assert found["object"].value > 0.8
    assert found["colour"].value > 0.9
    assert found["ground"].value > 0.9


@pytest.mark.slow
def test_a_class_mean_turns_answers_at_several_layers_where_a_random_direction_does_not(vlm, means):
    scenes = [draw_scene(0, "train", 50000 + i) for i in range(96)]
    plain = steered(vlm, scenes, {})
    assert plain == answers(vlm.model, official(), groups_of(vlm, scenes), max_new_tokens=2)
    right = [parse_answer(a).objects == (s.main.object,) for a, s in zip(plain, scenes, strict=True)]
    sources = torch.tensor([OBJECTS.index(s.main.object) for s in scenes])
    targets = (sources + 5) % len(OBJECTS)
    rng = torch.Generator().manual_seed(0)

    def turned(k: int, random: bool) -> float:
        moves = 2 * (means[k][targets] - means[k][sources])
        if random:
            noise = torch.randn(moves.shape, generator=rng)
            moves = noise / noise.norm(dim=-1, keepdim=True) * moves.norm(dim=-1, keepdim=True)
        said = steered(vlm, scenes, {k: moves})
        hits = [parse_answer(a).objects == (OBJECTS[t],) for a, t in zip(said, targets, strict=True)]
        return sum(h for h, r in zip(hits, right, strict=True) if r) / sum(right)

    effect = {k: turned(k, random=False) for k in LAYERS}
    control = {k: turned(k, random=True) for k in LAYERS}
    assert max(control.values()) < 0.1
    assert sum(effect[k] > control[k] + 0.3 for k in (0, 1, 2)) >= 2
    assert effect[6] == 0  # nothing reads image tokens after the last block
    assert steered(vlm, scenes, {k: torch.zeros_like(means[k][targets]) for k in LAYERS}) == plain
