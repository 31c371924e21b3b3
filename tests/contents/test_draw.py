"""Heat on images: values by hand, and heat of patches on an object lies on the object in square, wide and tall images."""

import numpy as np
import pytest
from PIL import Image

from linrep.contents.draw import fit, heat_map, outlined, strengths
from linrep.contents.stored import Token
from linrep.demo import model_folder
from linrep.demo.paint import object_mask, paint, patch_shares
from linrep.demo.scene import draw_scene
from linrep.notebook.images import SampleImage
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import layout


def test_the_largest_value_counts_where_boxes_overlap():
    found = strengths((4, 2), [(0, 0, 4, 2), (1, 0, 3, 1), (2, 0, 4, 1)], [1.0, 4.0, 2.0], 4.0)
    assert found.tolist() == [[0.25, 1.0, 1.0, 0.5], [0.25, 0.25, 0.25, 0.25]]
    assert strengths((2, 2), [(0, 0, 2, 2)], [9.0], 3.0).max() == 1.0
    assert strengths((2, 2), [(0, 0, 2, 2)], [0.0], 0.0).max() == 0.0


def test_heat_is_stronger_the_larger_the_value_and_grey_elsewhere():
    image = Image.new("RGB", (30, 10), (40, 90, 200))
    pixels = np.asarray(heat_map(image, [(0, 0, 10, 10), (10, 0, 20, 10)], [1.0, 4.0], 4.0, 60)).astype(int)
    assert pixels.shape == (20, 60, 3)
    weak, strong, none = (pixels[10, x] for x in (10, 30, 50))
    assert none[0] == none[1] == none[2]
    assert strong.tolist() == [213, 94, 0]
    assert 0 < weak[0] - weak[2] < strong[0] - strong[2]


def test_lines_stay_within_the_image():
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    drawn = np.asarray(outlined(image, [(4, 4, 8, 8)], 16))
    assert (drawn[8, 8:] == (213, 94, 0)).all()
    assert (drawn[15, 8:] == (213, 94, 0)).all()
    assert (drawn[:8] == 255).all()
    assert fit(Image.new("RGB", (400, 100)), 100).size == (100, 25)


@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
@pytest.mark.parametrize("view", ["base", "crops"])
def test_heat_of_the_patches_on_an_object_lies_on_the_object(shape, view):
    """Shares of patches come from the grid, another way than the boxes that are drawn."""
    card = describe(ModelConfig(path=str(model_folder())))
    scenes = (s for s in (draw_scene(1, "heldout", i) for i in range(2000)) if s.layout == shape and len(s.things) == 1)
    for scene in scenes:
        plan = layout((scene.height, scene.width), card)
        rows, cols = plan.grid if view == "crops" else [card.tile_size // card.patch_size] * 2
        share = patch_shares(object_mask(scene), rows, cols)
        if (share > 0.8).sum() >= 2:
            break
    else:
        pytest.fail("no object covers enough patches to see anything")
    places = plan.map
    tokens = [
        Token(i, int(tile), int(row), int(col))
        for i, (tile, row, col) in enumerate(zip(places.tile, places.row, places.col, strict=True))
        if (tile == 0) == (view == "base") and tile >= 0 and col >= 0
    ]
    assert len(tokens) == rows * cols
    values = [float(share[token.row, token.col] > 0.8) for token in tokens]
    drawn = SampleImage({"sample_id": "x"}, paint(scene), plan).at(tokens, values).drawn(max(scene.width, scene.height))
    pixels = np.asarray(drawn).astype(int)
    hot = pixels[..., 0] - pixels[..., 2] > 100
    assert hot.sum() >= sum(values) * 0.8 * scene.width / cols * scene.height / rows
    assert object_mask(scene)[hot].mean() > 0.8


@pytest.mark.parametrize("view", ["base", "crops"])
def test_patches_of_an_image_that_the_harvest_squashed_cover_the_image_as_it_is(view):
    plan = layout((72, 72), describe(ModelConfig(path=str(model_folder()))))
    boxes = SampleImage({"sample_id": "x"}, Image.new("RGB", (300, 100)), plan).patches(view).boxes
    assert (strengths((300, 100), boxes, [1.0] * len(boxes), 1.0) == 1.0).all()
    left, top, right, bottom = boxes[0]
    assert (right - left) / (bottom - top) == pytest.approx(3.0)
