"""Annotations in a JSON file of COCO's form.

    {"images": [{"id": 1, "file_name": "a.jpg", "height": 480, "width": 640}, ...],
     "categories": [{"id": 7, "name": "boat"}, ...],
     "annotations": [{"image_id": 1, "category_id": 7, "bbox": [left, top, width, height],
                      "segmentation": [[x, y, ...], ...] or {"size": [height, width], "counts": [...] or "..."},
                      "iscrowd": 0}, ...]}

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from linrep.errors import CorpusError
from linrep.places import Place
from linrep.regions.annotated import Annotations, Listed, Region
from linrep.regions.config import Coco
from linrep.regions.run_lengths import mask_of
from linrep.regions.shapes import Box, Polygons, RunLengths, Shape

_WANTED = "it should hold images, annotations and categories, as COCO's files do"


def read_coco(file: Place, config: Coco) -> Annotations:
    """The annotations of a file; one without a usable shape is left out, and counted by its reason.

    Args:
        file: The JSON file.
        config: What to take of it.

    Raises:
        CorpusError: It is missing, no JSON, or not of this form.
    """
    if not file.is_file():
        raise CorpusError(f"regions.source.path: no file at {file}")
    try:
        held = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"regions.source.path: {file} is not JSON: {error}") from None
    try:
        return _read(held, config)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CorpusError(f"regions.source.path: cannot read {file}: {type(error).__name__} {error}; {_WANTED}") from None


def _read(held: Any, config: Coco) -> Annotations:
    categories = _categories(held["categories"])
    by_image: dict[Any, list[Region]] = {image["id"]: [] for image in held["images"]}
    sizes = {image["id"]: _size(image) for image in held["images"]}
    left_out: Counter[str] = Counter()
    for annotation in held["annotations"]:
        image = annotation["image_id"]
        if image not in by_image:
            left_out["of an image that the file does not list"] += 1
        elif annotation["category_id"] not in categories:
            left_out["of a category that the file does not list"] += 1
        else:
            shape = _shape(annotation, config, sizes[image])
            if isinstance(shape, str):
                left_out[shape] += 1
                continue
            category = None if annotation.get("iscrowd") else categories[annotation["category_id"]]
            by_image[image].append(Region(category, shape))
    names = {image["id"]: str(image["id"] if config.match == "id" else image["file_name"]) for image in held["images"]}
    found = [Listed(names[image], sizes[image], tuple(regions)) for image, regions in by_image.items()]
    return Annotations(sorted(found, key=lambda one: one.name), left_out)


def _categories(listed: list[Mapping[str, Any]]) -> dict[Any, str]:
    """Names by id; where two categories have one name, their ids stand behind it."""
    names = [str(one["name"]) for one in listed]
    return {
        one["id"]: name if names.count(name) == 1 else f"{name} ({one['id']})" for one, name in zip(listed, names, strict=True)
    }


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    if image.get("height") is None or image.get("width") is None:
        return None
    height, width = int(image["height"]), int(image["width"])
    if height < 1 or width < 1:
        raise ValueError(f"image {image['id']} is of {height} x {width} pixels")
    return height, width


def _shape(annotation: Mapping[str, Any], config: Coco, size: tuple[int, int] | None) -> Shape | str:
    """The shape of an annotation, or why it has none."""
    segmentation = annotation.get("segmentation") if config.shape == "segmentation" else None
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, size)
    if segmentation:
        polygons = [[float(x) for x in some] for some in segmentation]
        if any(len(some) % 2 for some in polygons):
            return "with a polygon of an odd number of coordinates"
        kept = tuple(tuple(some) for some in polygons if len(some) >= 6)
        return Polygons(kept) if kept else "with polygons of fewer than three corners"
    box = annotation.get("bbox")
    if not box:
        return "without a box and a segmentation"
    left, top, width, height = (float(x) for x in box)
    if not (width > 0 and height > 0):
        return "with an empty box"
    return Box(left, top, left + width, top + height)


def _run_lengths(segmentation: Mapping[str, Any], size: tuple[int, int] | None) -> RunLengths | str:
    height, width = (int(x) for x in segmentation["size"])
    if size is not None and (height, width) != size:
        return "with a mask of another size than their image"
    counts = segmentation["counts"]
    try:
        mask = mask_of(counts, height, width)
    except ValueError:
        return "with run lengths that are no mask of their image"
    return (
        RunLengths((height, width), counts if isinstance(counts, str) else tuple(counts)) if mask.any() else "with an empty mask"
    )
