"""What areas cover of boxes: by hand, and against sums over many small cells."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from linrep.demo.paint import run_lengths
from linrep.regions.areas import of_box, of_mask, union
from linrep.regions.outlines import outlines
from linrep.regions.run_lengths import mask_of, unpacked
from linrep.regions.shapes import Box, Polygons, RunLengths


def shares(area, *boxes):
    return area.shares(np.array(boxes, float))


def test_a_box_covers_the_rectangle_that_it_shares_with_another():
    area = of_box(10, 20, 30, 40)
    found = shares(
        area, (10, 20, 30, 40), (20, 20, 40, 40), (25, 35, 35, 45), (0, 0, 100, 100), (30, 20, 50, 40), (15, 15, 15, 30)
    )
    np.testing.assert_allclose(found, [1, 0.5, 0.25, 0.04, 0, 0], atol=1e-12)
    assert area.size == 400


def test_a_mask_covers_parts_of_pixels():
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    mask[1, 3] = False
    area = of_mask(mask)
    # Half a pixel of column 2, in rows 1 and 2; the hole; one and a half columns of which the hole is one.
    np.testing.assert_allclose(shares(area, (1.5, 1, 2.5, 3), (3, 1, 4, 2), (2.5, 1, 4, 2)), [0.5, 0, 1 / 3], atol=1e-12)
    assert area.size == 5
    assert of_mask(np.zeros((3, 3), bool)).size == 0
    assert shares(of_mask(np.zeros((3, 3), bool)), (0, 0, 3, 3)) == 0


def test_what_two_areas_both_cover_counts_once():
    boxes = union([of_box(0, 0, 4, 4), of_box(2, 2, 6, 6), of_box(5.5, 0, 6, 0.5)])
    assert boxes.size == pytest.approx(16 + 16 - 4 + 0.25)
    mask = np.zeros((8, 8), bool)
    mask[3:5, 3:5] = True
    both = union([of_box(0.5, 0.5, 3.5, 3.5), of_mask(mask)])
    assert both.size == pytest.approx(9 + 4 - 0.25)
    np.testing.assert_allclose(shares(both, (3, 3, 4, 4), (3, 2, 4, 3)), [1, 0.5], atol=1e-12)


def test_a_union_covers_what_many_small_cells_say():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 25, (5, 2, 2)) * 4 / 10, axis=1)  # multiples of 0.4
    areas = [of_box(*one[0], *one[1]) for one in corners]
    fine = np.zeros((200, 200), bool)  # cells of 0.05
    for (left, top), (right, bottom) in corners:
        fine[round(top * 20) : round(bottom * 20), round(left * 20) : round(right * 20)] = True
    boxes = np.array([(1.5, 2.05, 7.25, 8.4), (0, 0, 10, 10), (3.3, 3.3, 3.4, 9.95)])
    wanted = [fine[round(t * 20) : round(b * 20), round(x * 20) : round(r * 20)].mean() for x, t, r, b in boxes]
    np.testing.assert_allclose(union(areas).shares(boxes), wanted, atol=1e-9)


def test_run_lengths_of_both_forms_are_the_same_mask():
    # By hand: column 0 is empty but for its last row, column 1 is covered, column 2 is covered in its first row.
    mask = np.array([[0, 1, 1], [0, 1, 0], [1, 1, 0]], bool)
    assert run_lengths(mask) == [2, 5, 2]
    assert (mask_of([2, 5, 2], 3, 3) == mask).all()
    assert (mask_of("252", 3, 3) == mask).all()
    # 20 needs two characters (its bit 16 would be a sign), 40 too; from the fourth run on it is the change: 1 - 3 = -2.
    assert unpacked("d03X1N") == [20, 3, 40, 1]
    assert unpacked(b"d03X1N") == [20, 3, 40, 1]
    with pytest.raises(ValueError, match=r"3 runs come to 9 pixels, the image has 3 x 4"):
        mask_of([2, 5, 2], 3, 4)
    with pytest.raises(ValueError, match="end within a number"):
        unpacked("d")
    with pytest.raises(ValueError, match=r"' ' is none of packed"):
        unpacked(" ")


def test_masks_survive_run_lengths():
    rng = np.random.default_rng(1)
    for shape in ((1, 7), (5, 1), (9, 13)):
        for share in (0.0, 0.3, 1.0):
            mask = rng.random(shape) < share
            assert (mask_of(run_lengths(mask), *shape) == mask).all()


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.49, -0.49)], ids=["on pixels", "between them"])
def test_a_polygon_is_the_mask_of_the_pixels_whose_middles_it_holds(moved):
    (dx, dy), wanted = moved, np.zeros((40, 50), bool)
    wanted[10:30, 5:25] = True
    wanted[12:20, 30:41] = True
    polygons = Polygons(
        (
            (5 + dx, 10 + dy, 25 + dx, 10 + dy, 25 + dx, 30 + dy, 5 + dx, 30 + dy),
            (30 + dx, 12 + dy, 41 + dx, 12 + dy, 41 + dx, 20 + dy, 30 + dx, 20 + dy),
        )
    )
    boxes = np.array([(x, y, x + 7, y + 5) for x in range(0, 43, 3) for y in range(0, 35, 3)], float)
    np.testing.assert_allclose(polygons.area(40, 50).shares(boxes), of_mask(wanted).shares(boxes), atol=1e-12)
    assert polygons.area(40, 50).size == wanted.sum()


def test_a_triangle_covers_half_of_its_box_within_its_edge():
    area = Polygons(((0, 0, 100, 0, 0, 60),)).area(60, 100)
    assert area.size == pytest.approx(3000, rel=0.01)
    # Of (50, 0) to (100, 30) the edge cuts off the upper left half.
    assert shares(area, (50, 0, 100, 30))[0] == pytest.approx(0.5, abs=0.02)


def test_what_lies_outside_of_the_image_is_cut_off():
    assert Box(-10, -10, 10, 10).area(40, 40).size == 100
    assert Polygons(((-10, -10, 10, -10, 10, 10, -10, 10),)).area(40, 40).size == 100
    assert Polygons(((50, 50, 60, 50, 60, 60),)).area(40, 40).size == 0


def painted(loops, height, width):
    """Pixels within an odd number of loops, drawn ten times larger."""
    found = np.zeros((height, width), bool)
    for loop in loops:
        drawn = Image.new("1", (width * 10, height * 10))
        ImageDraw.Draw(drawn).polygon([(x * 10, y * 10) for x, y in loop], fill=1)
        found ^= np.asarray(drawn)[5::10, 5::10]
    return found


def test_an_exact_outline_painted_again_is_the_mask():
    rng = np.random.default_rng(2)
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    touching = np.eye(4, dtype=bool)
    for mask in (ring, touching, touching[::-1], rng.random((12, 15)) < 0.5):
        assert (painted(outlines(mask, 0.0), *mask.shape) == mask).all()
    assert [len(loop) for loop in outlines(ring)] == [4, 4]
    assert len(outlines(touching)) == 4  # pixels that touch at a corner are apart


def test_an_outline_of_a_disc_has_few_corners_and_leaves_few_pixels_wrong():
    y, x = np.mgrid[:100, :100]
    disc = (x - 50) ** 2 + (y - 50) ** 2 < 40**2
    (loop,) = outlines(disc)
    assert len(loop) < 60
    assert (painted([loop], 100, 100) != disc).mean() < 0.03
    assert sorted(RunLengths((100, 100), run_lengths(disc)).outline(100, 100)[0]) == sorted(loop)
