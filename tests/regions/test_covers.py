"""Patches that regions cover, in the base view and in the crops: by hand."""

import numpy as np
import polars as pl
import pytest

from linrep.demo.paint import object_masks, patch_shares
from linrep.demo.scene import draw_scene
from linrep.regions.annotated import Region
from linrep.regions.covers import BACKGROUND, UNKNOWN, PatchMap, cover
from linrep.regions.matching import Window
from linrep.regions.shapes import Box, Mask
from linrep.regions.unit import ImageTask
from tests.regions.images import annotated, block, labelled, places, samples

WIDE = (72, 144)
"""Two tiles side by side: 6 x 6 patches of 24 x 12 pixels in the base view, 6 x 12 of 12 x 12 in the crops."""


def one(regions, size=WIDE, seen=None, box=None, **config):
    """The tables of one image with some regions; its annotations are of the same size unless they are said to be of another."""
    contents = samples(a=seen or size)
    return labelled(contents, [ImageTask("a", annotated(regions, size, box))], **config)


def test_a_box_labels_its_patches_in_both_views():
    patches = one([Region("boat", Box(0, 0, 72, 24))])["patches"]
    assert places(patches) == block(range(2), range(3))
    assert places(patches, crops=True) == block(range(2), range(6))
    assert patches["cover"].to_list() == [1.0] * (6 + 12)
    assert patches["first"].all()
    assert not patches["shuffled"].any()


def test_a_patch_half_covered_is_covered_by_a_half_and_by_no_more():
    half = [Region("boat", Box(0, 0, 72, 6))]  # half of the first row
    patches = one(half)["patches"]
    assert places(patches) == block(range(1), range(3))
    np.testing.assert_allclose(patches["cover"], 0.5)
    assert not len(one(half, share=0.51)["patches"])
    assert len(one(half, share=0.49)["patches"]) == len(patches)


def test_shares_are_those_of_a_sum_over_pixels():
    scene = draw_scene(3, "heldout", 5)
    (mask,) = object_masks(scene)
    size = (scene.height, scene.width)
    contents = samples(a=size)
    patches = PatchMap(contents).of("a")
    found = cover([Region("x", Mask(mask))], Window(size, (0, 0, scene.width, scene.height)), patches)
    base = patches.tile == 0
    np.testing.assert_allclose(found.shares[base, 0].reshape(6, 6), patch_shares(mask, 6, 6), atol=1e-9)
    assert found.sizes[0] == pytest.approx(mask.mean())


def test_two_halves_of_one_category_are_one_and_of_two_are_none():
    left, right = Box(0, 0, 10.8, 12), Box(10.8, 0, 24, 12)  # 45% and 55% of the first patch of the base view
    assert places(one([Region("boat", left), Region("boat", right)], share=0.9)["patches"]) == {(0, 0)}
    both = one([Region("boat", left), Region("tree", right)], share=0.9)
    assert places(both["patches"]) == set()
    assert both["regions"]["n_patches"].to_list() == [1, 1]  # a patch each of the crops, which are finer
    assert both["images"].row(0, named=True)["n_labelled"] == 2


def test_overlapping_boxes_of_one_category_count_once():
    covered = one([Region("boat", Box(0, 0, 24, 6)), Region("boat", Box(0, 0, 24, 6))], share=0.6)
    assert places(covered["patches"]) == set()


def test_a_patch_has_every_category_that_covers_it_and_is_labelled_with_the_one_in_front():
    large, small = Region("tree", Box(0, 0, 144, 72)), Region("boat", Box(0, 0, 72, 24))
    for regions in ([large, small], [small, large]):
        patches = one(regions)["patches"]
        assert places(patches, category="tree") == block(range(6), range(6))
        assert places(patches, category="boat") == block(range(2), range(3))
        assert places(patches, category="boat", first=True) == block(range(2), range(3))  # as well covered, and smaller
        assert places(patches, category="tree", first=True) == block(range(6), range(6)) - block(range(2), range(3))


def test_the_category_that_covers_more_of_a_patch_labels_it():
    most, small = Region("tree", Box(0, 0, 144, 12)), Region("boat", Box(0, 0, 24, 8))
    patches = one([most, small])["patches"]
    assert places(patches, category="boat") == {(0, 0)}
    assert places(patches, first=True) == {(0, column) for column in range(6)}
    assert places(patches, category="boat", first=True) == set()


def test_nothing_is_known_of_a_crowd_but_where_something_else_is():
    crowd, boat = Region(None, Box(0, 0, 144, 12)), Region("boat", Box(0, 0, 24, 72))
    size = (72, 144)
    patches = PatchMap(samples(a=size)).of("a")
    labels = cover([crowd, boat], Window(size, (0, 0, 144, 72)), patches).labels(0.5)[patches.tile == 0].reshape(6, 6)
    assert (labels[:, 0] == 0).all()
    assert (labels[0, 1:] == UNKNOWN).all()
    assert (labels[1:, 1:] == BACKGROUND).all()
    tables = one([crowd, boat])
    assert places(tables["patches"], category=None) == block(range(1), range(6))
    assert places(tables["patches"], category=None, first=True) == block(range(1), range(1, 6))
    assert tables["images"].row(0, named=True)["n_regions"] == 1


def test_a_squashed_image_and_a_smaller_one_have_the_labels_of_the_annotated_one():
    box = [Region("boat", Box(0, 0, 320, 240))]  # the upper left quarter of 640 x 480
    squashed = one(box, (480, 640), seen=(72, 72))["patches"]
    assert places(squashed) == block(range(3), range(3)) == places(one(box, (480, 640), seen=(72, 96))["patches"])


def test_a_cropped_image_has_the_labels_of_its_part():
    box = [Region("boat", Box(0, 0, 320, 480))]
    middle = one(box, (480, 640), seen=(72, 72), box=(80, 0, 560, 480))
    assert places(middle["patches"]) == block(range(6), range(3))
    row = middle["regions"].row(0, named=True)
    assert (row["left"], row["right"], row["area"]) == (0, 0.5, pytest.approx(0.5))
    assert row["outline"][0][0] == pytest.approx(-1 / 6, abs=1e-4)  # what was cut off lies outside


def test_the_control_deals_another_images_regions_at_their_places():
    own, other = [Region("boat", Box(0, 0, 144, 36))], [Region("tree", Box(0, 0, 36, 72))]
    contents = samples(a=WIDE)
    tables = labelled(contents, [ImageTask("a", annotated(own, WIDE), None, annotated(other, (72, 72)))])
    assert places(tables["patches"], shuffled=False) == block(range(3), range(6))
    # The left half of a square image, on a wide one: shares of width and height are what counts.
    assert places(tables["patches"], shuffled=True) == block(range(6), range(3))
    assert set(tables["patches"].filter(pl.col("shuffled"))["category"]) == {"tree"}
    groups = {row[1:3]: row[3] for row in tables["groups"].iter_rows()}
    assert groups == {("boat", "tree"): 27, ("boat", None): 27, (None, "tree"): 27, (None, None): 27}  # of 36 + 72 patches


def test_an_image_without_annotations_has_a_row_that_says_why():
    tables = labelled(samples(a=WIDE), [ImageTask("a", None, "why")])
    assert tables["images"].rows() == [("a", None, "why", 0, 0, 0)]
    assert all(not len(tables[name]) for name in ("regions", "groups", "patches"))


def test_only_the_categories_that_are_asked_for_are_taken():
    tables = one([Region("boat", Box(0, 0, 144, 72)), Region("tree", Box(0, 0, 144, 72))], categories=("tree",))
    assert set(tables["patches"]["category"]) == {"tree"} == set(tables["regions"]["category"])
