"""COCO's JSON and PNGs as annotations, and the images that they are of."""

import json

import numpy as np
import pytest
from PIL import Image

from linrep.errors import CorpusError
from linrep.places import place
from linrep.regions.annotated import Listed
from linrep.regions.coco import read_coco
from linrep.regions.config import ClassMasks, Coco, Masks
from linrep.regions.masks import read_class_masks, read_masks
from linrep.regions.matching import OTHER_SIZE, SEVERAL, SHARED, UNKNOWN, match, window
from linrep.regions.shapes import Box, Mask, Polygons, RunLengths

SIZE = {"height": 3, "width": 4}
ANNOTATIONS = [
    {"image_id": 1, "category_id": 7, "bbox": [1, 0, 2, 3]},
    {"image_id": 1, "category_id": 8, "bbox": [0, 0, 4, 3], "segmentation": [[0, 0, 4, 0, 4, 3]]},
    {"image_id": 1, "category_id": 8, "bbox": [0, 0, 4, 3], "segmentation": {"size": [3, 4], "counts": [3, 6, 3]}, "iscrowd": 1},
    {"image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 3], "segmentation": {"size": [3, 4], "counts": "363"}},
    # What is left out, each for a reason of its own:
    {"image_id": 1, "category_id": 7, "bbox": [1, 1, 0, 2]},
    {"image_id": 1, "category_id": 7},
    {"image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 3], "segmentation": [[0, 0, 4, 0]]},
    {"image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 3], "segmentation": {"size": [3, 4], "counts": [3, 6, 4]}},
    {"image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 3], "segmentation": {"size": [4, 3], "counts": [3, 6, 3]}},
    {"image_id": 1, "category_id": 9, "bbox": [0, 0, 4, 3]},
    {"image_id": 5, "category_id": 7, "bbox": [0, 0, 4, 3]},
]
HELD = {
    "images": [{"id": 2, "file_name": "b.jpg", **SIZE}, {"id": 1, "file_name": "train/a.jpg", **SIZE}],
    "categories": [{"id": 7, "name": "boat"}, {"id": 8, "name": "tree"}],
    "annotations": ANNOTATIONS,
}


def read(tmp_path, held=HELD, **config):
    (tmp_path / "c.json").write_text(held if isinstance(held, str) else json.dumps(held))
    return read_coco(place(tmp_path / "c.json"), Coco(path="c.json", **config))


def test_every_annotation_is_a_region_or_counted_by_its_reason(tmp_path):
    found = read(tmp_path)
    b, a = found.images
    assert (b.name, b.size, list(b.regions)) == ("b.jpg", (3, 4), [])
    assert a.name == "train/a.jpg"
    assert [region.category for region in a.regions] == ["boat", "tree", None, "boat"]
    assert [type(region.shape) for region in a.regions] == [Box, Polygons, RunLengths, RunLengths]
    assert a.regions[0].shape == Box(1, 0, 3, 3)
    assert [region.shape.area(3, 4).size for region in a.regions] == [6, 6, 6, 6]
    assert sum(found.left_out.values()) + len(a.regions) == len(ANNOTATIONS)
    assert set(found.left_out.values()) == {1}


def test_boxes_alone_can_be_asked_for_and_images_by_their_ids(tmp_path):
    found = read(tmp_path, shape="box", match="id")
    assert [one.name for one in found.images] == ["1", "2"]
    assert {type(region.shape) for region in found.images[0].regions} == {Box}


def test_two_categories_of_one_name_are_told_apart_by_their_ids(tmp_path):
    held = HELD | {"categories": [{"id": 7, "name": "crane"}, {"id": 8, "name": "crane"}]}
    assert [r.category for r in read(tmp_path, held).images[1].regions] == ["crane (7)", "crane (8)", None, "crane (7)"]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("[", "is not JSON"),
        ([], "it should hold images, annotations and categories"),
        ({"images": [], "annotations": []}, "KeyError 'categories'"),
        (HELD | {"images": [{"id": 1, "file_name": "a", "height": 0, "width": 4}]}, "image 1 is of 0 x 4 pixels"),
    ],
)
def test_a_file_of_another_form_is_named_in_one_line(tmp_path, held, said):
    with pytest.raises(CorpusError, match=said) as error:
        read(tmp_path, held)
    assert "c.json" in str(error.value)
    assert "\n" not in str(error.value)


def png(file, values, mode="L"):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, np.uint8), mode)
    if mode == "P":
        image.putpalette([*range(256)] * 3)
    image.save(file)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("mode", ["L", "P"])
def test_values_of_a_png_are_categories(tmp_path, mode):
    png(tmp_path / "m/x/a.png", [[0, 1, 1], [2, 255, 7]], mode)
    (tmp_path / "names.json").write_text('{"1": "boat", "2": "tree"}')
    found = read_masks(place(tmp_path / "m"), Masks(path="m", names=str(tmp_path / "names.json"), background=(0, 7)))
    (one,) = found.images
    assert (one.name, one.size) == ("x/a", (2, 3))
    shapes = {region.category: region.shape for region in one.read()}
    assert set(shapes) == {"boat", "tree", None}
    assert isinstance(shapes["boat"], Mask)
    assert shapes["boat"].pixels.tolist() == [[False, True, True], [False, False, False]]
    assert shapes[None].pixels.tolist() == [[False, False, False], [False, True, False]]
    unnamed = read_masks(place(tmp_path / "m"), Masks(path="m"))
    assert sorted(str(region.category) for region in unnamed.images[0].read()) == ["1", "2", "7", "None"]


def test_folders_of_categories_hold_a_png_an_image(tmp_path):
    png(tmp_path / "boat/a.png", [[0, 255]])
    png(tmp_path / "tree/a.png", [[9, 0]])
    png(tmp_path / "tree/n/b.png", [[0, 0]])
    a, b = read_class_masks(place(tmp_path)).images
    assert (a.name, b.name) == ("a", "n/b")
    assert {r.category: r.shape.pixels.tolist() for r in a.read()} == {"boat": [[False, True]], "tree": [[True, False]]}
    assert b.read() == []
    png(tmp_path / "boat/n/b.png", [[0, 0], [0, 0]])
    with pytest.raises(CorpusError, match=r"the masks of n/b in .* are of 2 sizes"):
        read_class_masks(place(tmp_path))


def test_what_is_no_mask_is_refused_by_name(tmp_path):
    with pytest.raises(CorpusError, match="holds no PNG"):
        read_masks(place(tmp_path), Masks(path=""))
    with pytest.raises(CorpusError, match="no folder at"):
        read_class_masks(place(tmp_path / "x"))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(CorpusError, match=r"a\.png is no PNG"):
        read_masks(place(tmp_path), Masks(path=""))
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(CorpusError, match=r"a\.png is in colours"):
        read_masks(place(tmp_path), Masks(path="")).images[0].read()
    with pytest.raises(CorpusError, match="holds no folders of PNGs"):
        read_class_masks(place(tmp_path))
    assert ClassMasks(path="x").kind == "class_masks"


def listed(*names):
    return [Listed(name, (3, 4), ()) for name in names]


def test_an_image_is_the_annotated_one_whose_name_ends_most_like_its_own():
    annotated = listed("train/a.jpg", "val/a.jpg", "b.png", "n1/c", "c")
    names = {
        0: ["x/train/a.jpg"],
        1: ["a.jpg"],
        2: ["n/b.JPEG"],
        3: ["n1/c.png"],
        4: ["n2/c.png"],
        5: ["z.jpg"],
        6: ["", "shard/b"],
    }
    found = match(annotated, {i: [n for n in own if n] for i, own in names.items()})
    assert {i: annotated[k].name for i, k in found.found.items()} == {0: "train/a.jpg", 3: "n1/c", 4: "c"}
    assert found.why_not == {1: SEVERAL, 5: UNKNOWN, 2: SHARED, 6: SHARED}
    captions = match(annotated, {0: ["b.jpg", "pairs/1"], 1: ["b.jpg", "pairs/2"]})  # two captions of one image
    assert captions.found == {0: 2, 1: 2}


def test_an_image_shows_all_of_the_annotated_one_or_its_middle_or_cannot_be_placed():
    whole = (0, 0, 640, 480)
    assert window((480, 640), (480, 640), False, None).box == whole
    assert window((240, 320), (480, 640), False, None).box == whole  # resized
    assert window((255, 341), (480, 640), False, None).box == whole  # resized, and rounded
    assert window((336, 336), (480, 640), True, None).box == whole  # squashed by the harvest
    assert window((224, 224), (480, 640), False, None) == OTHER_SIZE
    assert window((224, 224), (480, 640), False, "squashed").box == whole
    assert window((224, 224), (480, 640), False, "cropped").box == (80, 0, 560, 480)
    assert window((100, 50), (480, 640), False, "cropped").box == (200, 0, 440, 480)
    assert window((5, 7), None, False, None).box == (0, 0, 7, 5)
    assert isinstance(window((5, 7), None, True, None), str)
