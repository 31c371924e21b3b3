"""The map of image positions, against transformers' own arithmetic and against painted pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import layout
from linrep.vlm.families.llava_next import choose_canvas, cut_canvas
from linrep.vlm.prepared import Role
from linrep.vlm.tokens import patch_box

SIZES = [
    (28, 28),
    (336, 336),
    (60, 60),
    (480, 640),
    (640, 480),
    (100, 30),
    (30, 100),
    (37, 53),
    (1, 1),
    (1, 300),
    (300, 1),
    (999, 7),
    (56, 57),
]
MANY = [(h, w) for h in (1, 2, 13, 27, 28, 29, 55, 56, 84, 333, 1001) for w in (1, 3, 14, 28, 57, 83, 100, 375, 2048)]


@pytest.fixture(scope="module")
def card(folder):
    return describe(ModelConfig(path=str(folder)))


@pytest.fixture(scope="module")
def card_336(folder_336):
    return describe(ModelConfig(path=str(folder_336)))


def test_canvas_is_the_one_transformers_picks(card, card_336):
    for pinpoints in (card.vision.grid_pinpoints, card_336.vision.grid_pinpoints):
        for size in MANY:
            assert choose_canvas(size, pinpoints) == select_best_resolution(size, list(pinpoints))


def test_published_token_counts(card_336):
    """Numbers of the paper: 336x336 gives 576 + 24 x 25 = 1,176; 480x640 gives 2,340."""
    assert layout((336, 336), card_336).n_tokens == 1176
    assert layout((480, 640), card_336).n_tokens == 2340


@pytest.mark.parametrize("name", ["small", "336"])
def test_count_equals_the_processors_for_many_sizes(name, card, card_336, official, folder_336):
    from transformers import LlavaNextProcessor

    processor = official["mistral"][1] if name == "small" else LlavaNextProcessor.from_pretrained(folder_336, backend="pil")
    one = card if name == "small" else card_336
    counts = processor._get_num_multimodal_tokens(MANY)["num_image_tokens"]
    assert [layout(size, one).n_tokens for size in MANY] == counts
    assert [len(layout(size, one).map.tile) for size in MANY] == counts


@pytest.mark.parametrize("size", SIZES)
def test_map_follows_the_models_own_packing(card, official, size):
    """The model's `pack_image_features`, given features that are their own tile, row and column, returns the map."""
    model = official["mistral"][0].model
    plan = layout(size, card)
    side, (tile_rows, tile_cols) = card.tile_size // card.patch_size, (plan.tile_rows, plan.tile_cols)
    features = torch.empty(1 + tile_rows * tile_cols, side, side, 3)
    for tile in range(len(features)):
        crop_row, crop_col = divmod(tile - 1, tile_cols) if tile else (0, 0)
        rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        origin = first_kept(plan) if tile else (0, 0)
        features[tile] = torch.stack(
            [torch.full_like(rows, tile), rows + crop_row * side - origin[0], cols + crop_col * side - origin[1]], dim=-1
        )
    newline = torch.tensor([-1.0, -2.0, -1.0])
    packed, _ = model.pack_image_features([features.flatten(1, 2)], torch.tensor([size]), "default", newline)
    found = plan.map
    expected = packed[0].numpy()
    np.testing.assert_array_equal(found.tile, expected[:, 0])
    np.testing.assert_array_equal(found.col, expected[:, 2])
    is_newline = expected[:, 1] == -2
    np.testing.assert_array_equal(found.role == Role.NEWLINE, is_newline)
    np.testing.assert_array_equal(found.row[~is_newline], expected[~is_newline, 1])
    np.testing.assert_array_equal(found.row[is_newline], np.arange(plan.grid[0]))


def test_a_wide_image_by_hand(card):
    """20 x 90 pixels with tiles of 28 and patches of 7.

    The canvas of 28 x 84 keeps most: scale .933, so 19 x 84 pixels, 4 pixels of padding above. In patches: 12 columns and, as
    90/20 > 12/4, int(20 * 12/90) = 2 rows of 4, beginning with row 1.
    """
    plan = layout((20, 90), card)
    assert (plan.tile_rows, plan.tile_cols, plan.crops.scaled, plan.grid) == (1, 3, (19, 84), (2, 12))
    assert (plan.crops.down[0], plan.crops.across[0]) == ((1 * 7 - 4, 2 * 7 - 4), (0, 7))
    found = plan.map
    assert found.tile[:16].tolist() == [0] * 16
    assert found.tile[16:29].tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [-1]
    assert found.row[16:].tolist() == [0] * 13 + [1] * 13
    assert found.col[16:29].tolist() == [*range(12), -1]
    # Row 0 begins at 7 canvas pixels, 3 below the image's edge: 3 to 10 of 19 scaled pixels, of 20 in the source.
    assert patch_box(plan, 1, 0, 0) == pytest.approx((0, 3 * 20 / 19, 7 * 90 / 84, 10 * 20 / 19))


def test_partly_padded_patch_has_a_clipped_box(card):
    """100 x 30 in a canvas of 84 x 28 becomes 84 x 26 with a column of padding on each side; all four columns stay."""
    plan = layout((100, 30), card)
    assert (plan.crops.scaled, plan.crops.across[0], plan.grid) == ((84, 26), (-1, 6), (12, 4))
    left, _, right, _ = patch_box(plan, 1, 0, 0)
    assert (left, right) == pytest.approx((0, 6 * 30 / 26))
    left, _, right, _ = patch_box(plan, 1, 0, 3)
    assert (left, right) == pytest.approx((20 * 30 / 26, 30))


def test_boxes_of_the_base_view_tile_the_image(card):
    plan = layout((40, 60), card)
    assert patch_box(plan, 0, 0, 0) == (0, 0, 15, 10)
    assert patch_box(plan, 0, 3, 2) == (30, 30, 45, 40)


def test_boxes_of_a_squashed_image_are_in_source_pixels(card):
    plan = layout((28, 28), card)
    assert patch_box(plan, 0, 1, 2, source=(280, 140)) == (70, 70, 105, 140)


@pytest.mark.parametrize("place", [(-1, 0, -1), (0, 4, 0), (0, 0, -1), (1, 2, 0), (1, 0, 12)])
def test_no_box_for_newlines_or_beyond_the_grid(card, place):
    with pytest.raises(ValueError, match="no patch at"):
        patch_box(layout((20, 90), card), *place)


@pytest.mark.parametrize("size", [(280, 280), (90, 400), (400, 90), (211, 307), (333, 150)])
@pytest.mark.parametrize("squash", [None, (84, 84)])
def test_painted_block_is_in_the_patch_whose_box_covers_it(card, size, squash):
    """Paint each patch's box white on black: the patch's own pixels turn white, and patches far from it stay black."""
    seen = squash or size
    plan = layout(seen, card)
    found = plan.map
    patches = [i for i in range(plan.n_tokens) if found.role[i] == Role.IMAGE]
    for i in patches[:: max(1, len(patches) // 24)]:
        tile, row, col = int(found.tile[i]), int(found.row[i]), int(found.col[i])
        left, top, right, bottom = patch_box(plan, tile, row, col, source=size)
        canvas = np.zeros((*size, 3), np.uint8)
        canvas[round(top) : round(bottom), round(left) : round(right)] = 255
        image = Image.fromarray(canvas)
        if squash:
            image = image.resize(squash[::-1], Image.Resampling.BICUBIC)
        light = brightness(cut_canvas(image, plan, Image.Resampling.BICUBIC), plan, found)
        same_view = [j for j in patches if (found.tile[j] == 0) == (tile == 0)]
        assert max(same_view, key=lambda j: light[j]) == i
        far = [j for j in same_view if max(abs(found.row[j] - row), abs(found.col[j] - col)) > 1]
        assert max((light[j] for j in far), default=0) < 3


def brightness(tiles, plan, found):
    """Mean pixel value of each position's own patch of the uint8 tiles, found from the map."""
    p, side = plan.base.down[0][1], plan.base.rows
    light = np.zeros(plan.n_tokens)
    for i in range(plan.n_tokens):
        if found.role[i] == Role.IMAGE:
            row, col = int(found.row[i]), int(found.col[i])
            if found.tile[i] > 0:
                row, col = ((own + first) % side for own, first in zip((row, col), first_kept(plan), strict=True))
            light[i] = tiles[found.tile[i], :, row * p : (row + 1) * p, col * p : (col + 1) * p].mean()
    return light


def first_kept(plan):
    """First row and column of the canvas' patches that are no padding, from where the image lies in the canvas."""
    side = plan.base.scaled[0]
    canvas = plan.tile_rows * side, plan.tile_cols * side
    margins = [(whole - own) // 2 for whole, own in zip(canvas, plan.crops.scaled, strict=True)]
    begins = [spans[0][0] if spans else 0 for spans in (plan.crops.down, plan.crops.across)]  # none where all is padding
    return tuple((begin + margin) // plan.base.down[0][1] for begin, margin in zip(begins, margins, strict=True))
