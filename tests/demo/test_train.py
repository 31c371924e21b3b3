"""The training command: three stages, the same model every time, taken up where it stopped; what the tower is asked."""

import json

import pytest
import torch
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from demo_training.design import Budget, Design
from demo_training.looking import answers, group
from demo_training.model import GRID, TILE, build_processor
from demo_training.tower import Tiles, _by_patch, _mirror_some, _recolour_some
from demo_training.train import train
from demo_training.views import CELLS, UNKNOWN, cut_views
from linrep.demo.language import WHAT, prompt
from linrep.demo.scene import draw_scene

TINY = Design(
    budget=Budget(
        n_scenes=12,
        n_turns=2,
        text_steps=3,
        text_batch=2,
        tower_epochs=1,
        tower_batch=8,
        image_steps=5,
        image_batch=3,
        projector_only=2,
    )
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    lines: list[str] = []
    return train(tmp_path_factory.mktemp("model"), seed=5, design=TINY, say=lines.append), lines


def test_the_same_seed_gives_the_same_weights_and_a_stopped_training_goes_on(trained, tmp_path):
    folder, _ = trained
    weights = (folder / "model.safetensors").read_bytes()
    other = train(tmp_path / "other", seed=5, design=TINY, say=lambda line: None)
    assert (other / "model.safetensors").read_bytes() == weights

    (other / "stages" / "3-images.pt").unlink()
    (other / "model.safetensors").unlink()
    said: list[str] = []
    train(other, seed=5, design=TINY, say=said.append)
    assert [line.split(":")[0] for line in said if "taken from" in line] == ["1-texts", "2-tower"]
    assert (other / "model.safetensors").read_bytes() == weights
    assert (train(tmp_path / "third", seed=6, design=TINY, say=said.append) / "model.safetensors").read_bytes() != weights


def test_the_folder_loads_with_stock_classes_and_says_how_it_was_made(trained):
    folder, _ = trained
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    scenes = [draw_scene(0, "heldout", i) for i in range(2)]
    assert len(answers(model, processor, list(group(processor, scenes, [prompt(WHAT)] * 2)), max_new_tokens=2)) == 2
    report = json.loads((folder / "training.json").read_text())
    assert report["seed"] == 5
    assert report["budget"]["n_scenes"] == 12
    assert set(report["stages"]) == {"texts", "tower", "images"}
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in folder.iterdir() if file.is_file())


def test_every_size_of_image_has_as_many_image_tokens_as_the_model_gives_features(trained):
    model = LlavaNextForConditionalGeneration.from_pretrained(trained[0], dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(trained[0])
    sizes = {}
    for i in range(60):
        scene = draw_scene(0, "train", i)
        sizes.setdefault((scene.width, scene.height), scene)
    assert set(sizes) == {(72, 72), (96, 72), (144, 72), (72, 96), (72, 144)}
    for scene in sizes.values():
        (some,) = group(processor, [scene], [prompt(WHAT)])
        n_tokens = int((some.inputs["input_ids"] == model.config.image_token_index).sum())
        features = model.get_image_features(some.inputs["pixel_values"], some.inputs["image_sizes"])
        assert n_tokens == sum(len(f) for f in getattr(features, "pooler_output", features))


def test_recoloured_tiles_are_asked_for_their_object_only():
    n = 64
    pixels = torch.full((n, 3, TILE, TILE), 100.0)
    tiles = Tiles(
        pixels, torch.ones(n, 3).long(), torch.ones(n, 3, GRID * GRID).long(), torch.zeros(n, CELLS * GRID, CELLS * GRID)
    )
    seen = _recolour_some(tiles, torch.Generator().manual_seed(0))
    changed = (seen.pixels != pixels).flatten(1).any(1)
    assert 16 < changed.sum() < 48
    assert (seen.whole[:, 0] == 1).all()
    assert (seen.patches[:, 0] == 1).all()
    assert ((seen.whole[:, 1] == UNKNOWN) == changed).all()
    assert ((seen.patches[:, 2] == UNKNOWN).all(1) == changed).all()
    assert 0 <= seen.pixels.min() <= seen.pixels.max() <= 255


def test_a_mirrored_tile_carries_its_truth_along():
    views = cut_views([draw_scene(0, "train", i) for i in range(8)], build_processor())
    n = len(views.pixels)
    tiles = Tiles(views.pixels.float(), views.whole, views.patches, views.outlines.float() / 255)
    seen = _mirror_some(tiles, torch.Generator().manual_seed(0))
    for i in range(n):
        mirrored = not torch.equal(seen.pixels[i], tiles.pixels[i])
        columns = torch.arange(GRID).flip(0) if mirrored else torch.arange(GRID)
        assert torch.equal(seen.patches[i].view(3, GRID, GRID), tiles.patches[i].view(3, GRID, GRID)[:, :, columns])
        assert torch.equal(seen.outlines[i], tiles.outlines[i].flip(-1) if mirrored else tiles.outlines[i])


def test_outlines_agree_with_the_labels_of_the_patches():
    scenes = [draw_scene(0, "train", i) for i in range(20)]
    views = cut_views(scenes, build_processor())
    share = _by_patch(views.outlines.float() / 255).mean(-1)
    objects = views.patches[:, 0]
    nothing = objects == objects.max()
    assert (share[nothing] <= 0.06).all()
    assert (share[(objects != UNKNOWN) & ~nothing] >= 0.34).all()
