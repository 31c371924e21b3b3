"""What is shown: shares of patches, crops with the right pixels, windows of text, marks; and how replies are read."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from linrep.contents.stored import Token, Window
from linrep.demo.paint import object_mask, patch_shares
from linrep.demo.scene import Scene, draw_scene
from linrep.demo.world import truth_row
from linrep.interpret.images import GREY, data_url, inside, marked, masked, sheet, sized
from linrep.interpret.prompts import explain_parts, highlighted, judge_parts, read_explanation, read_judgement
from linrep.interpret.scenes import Scenes
from linrep.interpret.views import Evidence, View


def test_shares_of_patches_are_those_of_the_grid():
    """`patch_shares` multiplies pooling matrices: another way to the same numbers."""
    scene = next(s for s in (draw_scene(1, "heldout", i) for i in range(50)) if s.width == 96)
    scenes = Scenes([truth_row(scene)])
    rows, cols = 5, 7
    height, width = scene.height / rows, scene.width / cols
    boxes = [(c * width, r * height, (c + 1) * width, (r + 1) * height) for r in range(rows) for c in range(cols)]
    found = np.array(scenes.shares(f"images/n1/{scene.id}.JPEG", boxes)).reshape(rows, cols)
    np.testing.assert_allclose(found, patch_shares(object_mask(scene), rows, cols), atol=1e-9)
    assert scenes.shares("images/n1/other.JPEG", boxes[:2]) == [0.0, 0.0]
    assert scenes.shares(scene.id, [(5.0, 5.0, 5.0, 9.0)]) == [0.0]


def test_a_line_of_the_truth_gives_back_its_scene():
    scene = draw_scene(1, "heldout", 3, pair_share=1.0)
    assert Scene.from_row(truth_row(scene)) == scene


def noise(width=8, height=6):
    return Image.fromarray(np.random.default_rng(0).integers(1, 255, (height, width, 3), np.uint8))


def test_a_crop_masked_to_patches_has_their_pixels_and_grey_beside_them():
    image = noise()
    pixels = np.asarray(image)
    crop = np.asarray(masked(image, [(2, 0, 4, 2), (4, 2, 6, 4)]))
    assert crop.shape == (4, 4, 3)  # columns 2..5, rows 0..3
    assert (crop[:2, :2] == pixels[:2, 2:4]).all()
    assert (crop[2:, 2:] == pixels[2:4, 4:6]).all()
    assert (crop[:2, 2:] == GREY).all()
    assert (crop[2:, :2] == GREY).all()
    assert masked(image, []) is image


def test_a_patch_takes_the_pixels_whose_middle_it_holds():
    # Columns .5, 1.5, 2.5 ...: of 0.6 .. 2.5 only 1.5 lies within, the upper edge is not taken.
    assert inside((4, 1), [(0.6, 0, 2.5, 1)]).tolist() == [[False, True, False, False]]
    assert not inside((4, 1), [(2, 0, 2, 1)]).any()


def test_marks_leave_the_patches_bright_and_the_rest_dark():
    image = noise()
    pixels, shown = np.asarray(image), np.asarray(marked(image, [(0, 0, 2, 2)]))
    assert (shown[:2, :2] == pixels[:2, :2]).all()
    assert (shown[2:] == (pixels[2:] * 0.25).astype(np.uint8)).all()


def test_images_travel_whole_and_small_ones_are_enlarged():
    kind, _, data = data_url(noise()).partition(",")
    assert kind == "data:image/png;base64"
    back = Image.open(io.BytesIO(base64.b64decode(data)))
    assert back.size == (8 * 28, 6 * 28)
    assert (np.asarray(back)[::28, ::28] == np.asarray(noise())).all()
    assert max(sized(Image.new("RGB", (3000, 10))).size) == 1024
    assert sheet([noise()] * 5).size == (3 * 232 + 8, 2 * 232 + 8)


class Shelf:
    """Contents made by hand."""

    def load(self, names):
        pass

    def image(self, name):
        return noise()

    def boxes(self, name, tokens, source=None):
        return [(2.0 * t.col, 2.0 * t.row, 2.0 * t.col + 2, 2.0 * t.row + 2) for t in tokens]

    def window(self, name, centre=None):
        return Window((3, 4, 5, 6), ("a", " red", " boat", " ."))


def test_successive_marked_tokens_stand_between_one_pair_of_brackets():
    def shown(*positions):
        return highlighted(View("t", "text", tuple(Token(p) for p in positions)), Shelf())

    assert shown() == "a red boat ."
    assert shown(4, 5) == "a <<red boat>> ."
    assert shown(3, 6) == "<<a>> red boat <<.>>"
    assert shown(99) == "a red boat ."


def test_who_judges_sees_marks_and_no_strength_and_who_explains_sees_crops():
    image = View("i", "image", (Token(0, 0, 1, 2),))
    parts = judge_parts("fuzzing", "boats {n}", [image, View("t", "text", (Token(5),))], Shelf())
    assert "boats {n}" in parts[0]
    assert "2 numbered samples" in parts[0]
    assert next(p for p in parts if isinstance(p, Image.Image)).size == (8, 6)
    assert "a red <<boat>> ." in parts
    evidence = Evidence((View("i", "image", image.marks, (4.0,)), View("t", "text", (Token(4),), (2.0,))), (View("s", "text"),))
    parts = explain_parts(evidence, Shelf())
    assert next(p for p in parts if isinstance(p, Image.Image)).size == (2, 2)
    assert "Sample 1, strength 10:" in parts
    assert "Sample 2, strength 5:" in parts
    assert "a red boat ." in parts


def test_explanations_and_answers_are_read_from_replies():
    assert read_explanation('Sure: {"explanation": "red  {boats}\\nand \\"ships\\""}') == 'red {boats} and "ships"'
    assert read_judgement("The list is [1, 0, true].", 3) == [True, False, True]
    assert read_judgement("Yes, it does.", 1) == [True]
    assert read_judgement("0", 1) == [False]
    for said, n in (("[1, 0]", 3), ("[1, 2]", 2), ("maybe", 1), ("nothing", 1)):
        with pytest.raises(ValueError, match="answers in"):
            read_judgement(said, n)
    for said in ("red boats", '{"explanation": ""}', '{"explanation": 3}'):
        with pytest.raises(ValueError, match=r"no (JSON with )?explanation"):
            read_explanation(said)
