"""The projector between the embedded tower and SmolLM2: what is committed, what is asked, and how it is trained."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoProcessor, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from linrep.demo import model_folder
from linrep.demo.language import parse_answer
from linrep.demo.scene import draw_scene
from smol_training.build import GGUF, PROJECTOR, main, read_language_model
from smol_training.chat import COLOUR, DESCRIBE, GROUND, QUESTIONS, START, WHAT
from smol_training.train import Budget, Scenes, Stage, Trainee, fit, learned

ROOT = Path(__file__).parents[2]
WIDTH = 48


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(model_folder(), backend="pil")


def tiny() -> LlavaNextForConditionalGeneration:
    """The embedded tower before a language model of two small blocks."""
    torch.manual_seed(0)
    seen = LlavaNextForConditionalGeneration.from_pretrained(model_folder(), dtype=torch.float32)
    config: Any = seen.config
    text = LlamaConfig(
        vocab_size=config.text_config.vocab_size,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.15,
    )
    own = config.to_dict() | {"text_config": text, "vision_config": config.vision_config, "tie_word_embeddings": True}
    model = LlavaNextForConditionalGeneration(LlavaNextConfig(**own)).eval()
    model.model.vision_tower.load_state_dict(seen.model.vision_tower.state_dict())
    return model


@pytest.fixture(scope="module")
def shown(processor):
    model = tiny()
    return model, Scenes(model, processor, [draw_scene(0, "train", i) for i in range(24)])


def test_the_committed_projector_is_small_and_fits_tower_and_language_model():
    parts = load_file(PROJECTOR)
    shapes = {name: tuple(tensor.shape) for name, tensor in parts.items()}
    assert shapes == {
        "linear_1.weight": (576, 64),
        "linear_1.bias": (576,),
        "linear_2.weight": (576, 576),
        "linear_2.bias": (576,),
        "image_newline": (576,),
    }
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in parts.values())
    assert PROJECTOR.stat().st_size < 1_000_000
    spent = json.loads((PROJECTOR.parent / "training.json").read_text())
    assert spent["cpu_s"] < 40 * 60


def test_the_recipe_asks_what_was_trained():
    recipe = yaml.safe_load((ROOT / "recipes" / "smol.yaml").read_text())
    asked = {one["about"]: one["prompt"] for one in recipe["steer"]["ask"]["questions"]}
    assert asked == {"class": WHAT.prompt, "colour": COLOUR.prompt, "ground": GROUND.prompt}
    assert recipe["harvest"]["image_prompt"] == recipe["steer"]["ask"]["choice"] == WHAT.prompt
    assert recipe["steer"]["damage"]["prompt"] == f"{DESCRIBE.prompt} "
    assert recipe["sae"]["evaluation"]["prompt"] == f"{DESCRIBE.prompt} {{text}}"
    assert WHAT.prompt.startswith(START)


@pytest.mark.parametrize("question", QUESTIONS, ids=[one.about for one in QUESTIONS])
def test_right_answers_are_read_exactly(question):
    scene = draw_scene(0, "train", 3)
    read = parse_answer(question.answer(scene))
    assert read.well_formed
    wanted = {"object": (scene.main.object,), "colour": (scene.main.colour,), "ground": (scene.main.ground,)}
    kept = wanted if question.about == "scene" else {question.about: wanted[question.about]}
    assert {"object": read.objects, "colour": read.colours, "ground": read.grounds} == dict.fromkeys(wanted, ()) | kept


def test_training_moves_the_projector_alone_and_lowers_the_loss(shown, processor):
    model, scenes = shown
    trainee = Trainee(model, processor, Budget(stages=(Stage(60, 8, 2, 1e-2, tokens=12), Stage(20, 8, 2, 3e-3, few=0.3))))
    trainee.match_norms(scenes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = list(fit(trainee, scenes, seed=0, report_every=10))
    assert said[-1]["loss"] < said[0]["loss"] - 0.3
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if "projector" in name or "newline" in name}


def test_what_is_saved_takes_features_as_the_tower_gives_them(shown, processor):
    """The standardisation of features is folded in: raw features give what standardised ones gave in training."""
    model, scenes = shown
    trainee = Trainee(model, processor, Budget())
    raw = scenes.features * scenes.std + scenes.mean
    wanted = trainee.projector(scenes.features[:5])
    parts = {name: tensor.float() for name, tensor in learned(trainee, scenes).items()}
    assert torch.equal(parts.pop("image_newline"), trainee.newline.detach().half().float())
    other = tiny().model.multi_modal_projector
    other.load_state_dict(parts)
    assert (other(raw[:5]) - wanted).abs().max() < 0.01 * wanted.abs().max()
    with torch.no_grad():
        parts["linear_1.weight"] *= 1.1
    other.load_state_dict(parts)
    assert (other(raw[:5]) - wanted).abs().max() > 0.02 * wanted.abs().max()


def test_image_tokens_begin_near_the_norm_of_words(processor):
    """Near: the map's weights are scaled, its bias is not."""
    model = tiny()
    scenes = Scenes(model, processor, [draw_scene(0, "train", i) for i in range(8)])
    trainee = Trainee(model, processor, Budget())
    with torch.no_grad():
        trainee.projector.linear_2.weight *= 10
    trainee.match_norms(scenes)
    words = trainee.head.float().norm(dim=-1).mean()
    tokens = trainee.projector(scenes.features[:256].flatten(0, 1)).norm(dim=-1).mean()
    assert tokens.item() == pytest.approx(words.item(), rel=0.2)
    assert trainee.newline.norm().item() == pytest.approx(words.item(), rel=1e-3)


def test_few_tokens_are_a_sample_of_the_image_in_order(shown, processor):
    """With one token in the image its place is all that the language model sees of it: the loss must still be finite."""
    model, scenes = shown
    trainee = Trainee(model, processor, Budget())
    loss = trainee.loss(scenes, np.random.default_rng(0), Stage(1, 4, 4, 1e-3, tokens=1))
    assert loss.isfinite()


def test_another_language_model_is_refused_in_a_line(tmp_path, monkeypatch):
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr(GGUF, b"GGUF other")
    with pytest.raises(ValueError, match="SHA-256"):
        read_language_model(wheel)
    monkeypatch.setattr("sys.argv", ["build", "--wheel", str(wheel), "--out", str(tmp_path / "model")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert "download the wheel anew" in str(ended.value)
    assert not (tmp_path / "model").exists()
