"""Regions of real images, where those are present: files are found by name, and people's annotations where there are some."""

import json
from pathlib import Path

import pytest
from PIL import Image

from linrep.places import place
from linrep.regions.annotated import Listed, Region
from linrep.regions.coco import read_coco
from linrep.regions.config import Coco
from linrep.regions.covers import PatchMap, cover
from linrep.regions.matching import Window, match, window
from linrep.regions.shapes import Box
from tests.regions.images import samples


def names(real_data: Path) -> dict[int, list[str]]:
    folder = real_data / "imagenette/val"
    return {i: [str(file.relative_to(folder))] for i, file in enumerate(sorted(folder.rglob("*.JPEG")))}


def test_every_image_of_a_folder_of_classes_is_found_by_the_name_of_its_file_alone(real_data):
    own = names(real_data)
    annotated = [Listed(name.rsplit("/", 1)[-1], (375, 500), ()) for (name,) in own.values()]
    assert len(own) > 400
    assert match(annotated, own).found == {i: i for i in own}
    assert match(annotated[::-1], own).found == {i: len(own) - 1 - i for i in own}


def test_a_cropped_image_shows_the_middle_of_the_one_that_was_annotated(real_data):
    name = names(real_data)[0][0]
    with Image.open(real_data / "imagenette/val" / name) as image:
        size = image.height, image.width
    assert size == (224, 224)
    assert isinstance(window(size, (375, 500), False, None), str)
    part = window(size, (375, 500), False, "cropped")
    assert isinstance(part, Window)
    assert part.box == pytest.approx((62.5, 0, 437.5, 375))
    patches = PatchMap(samples(a=size)).of("a")
    found = cover([Region("middle", Box(156.25, 93.75, 343.75, 281.25))], part, patches)
    inside = (patches.boxes[:, :2] >= 0.25 - 1e-9).all(1) & (patches.boxes[:, 2:] <= 0.75 + 1e-9).all(1)
    assert (found.shares[inside, 0] > 1 - 1e-9).all()
    assert found.sizes[0] == pytest.approx(0.25)


def test_what_people_annotated_is_read(real_data):
    files = [file for file in real_data.rglob("*.json") if "annotations" in json.loads(file.read_bytes())]
    if not files:
        pytest.skip(f"no annotations in COCO's form lie in {real_data}")
    for file in files:
        found = read_coco(place(file), Coco(path=str(file)))
        assert sum(len(image.regions) for image in found.images) > 0
