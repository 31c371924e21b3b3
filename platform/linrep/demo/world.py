"""A world on disk: images in ImageNet's layout, captions, texts, and the truth about every image."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from linrep.demo.config import DemoWorld
from linrep.demo.language import caption, draw_text
from linrep.demo.paint import Mask, jpeg_bytes, mask_box, object_masks, paint, run_lengths
from linrep.demo.scene import Scene, draw_scene, is_unseen
from linrep.demo.shapes import OBJECTS

WNIDS: dict[str, str] = {obj: f"n9{i + 1:07d}" for i, obj in enumerate(OBJECTS)}
"""ImageNet-like folder names; WordNet has no n9... numbers, so they meet no real class."""

FORM = 2
"""Of a world's files: raised when there are others, so that a folder of an earlier form is not taken for a whole one."""


def write_world(folder: Path, config: DemoWorld) -> Path:
    """Write the world to a folder and return it; a folder that is there already is complete and left alone.

    Files: `images/<wnid>/<scene id>.JPEG`, `images/classes.json`, `captions.jsonl`, `text.jsonl`, `scenes.jsonl`,
    `regions.json`. The same config gives the same bytes. Everything is written to a sibling first and renamed, so the folder
    never exists in part.

    Raises:
        FileExistsError: The folder holds something else, or a world of another config.
    """
    folder = Path(folder)
    if folder.exists():
        return _check_same(folder, config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    growing = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        growing.chmod(0o755)  # mkdtemp's 0700 would lock out readers on shared disks
        _write(growing, config)
        os.rename(growing, folder)
    except OSError:
        if not folder.exists():
            raise
        return _check_same(folder, config)  # another process was faster
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return folder


def _check_same(folder: Path, config: DemoWorld) -> Path:
    written = folder / "world.json"
    if not written.exists():
        raise FileExistsError(f"{folder} exists and is no world: choose another folder")
    if written.read_text() != _config_text(config):
        raise FileExistsError(f"{folder} holds a world of another config, {written.read_text().strip()}: choose another folder")
    return folder


def _config_text(config: DemoWorld) -> str:
    return json.dumps(config.model_dump(mode="json"), sort_keys=True) + "\n"


def _write(folder: Path, config: DemoWorld) -> None:
    images = folder / "images"
    for wnid in WNIDS.values():
        (images / wnid).mkdir(parents=True)
    (images / "classes.json").write_text(json.dumps({wnid: obj for obj, wnid in WNIDS.items()}, indent=1) + "\n")
    scenes = [draw_scene(config.seed, config.split, i, config.pair_share) for i in range(config.n_images)]
    for scene in scenes:
        (folder / image_path(scene)).write_bytes(jpeg_bytes(paint(scene)))
    _write_lines(folder / "captions.jsonl", (caption_row(scene) for scene in scenes))
    masks = [object_masks(scene) for scene in scenes]
    _write_lines(folder / "scenes.jsonl", map(truth_row, scenes, masks))
    (folder / "regions.json").write_text(json.dumps(regions(zip(scenes, masks, strict=True))) + "\n")
    _write_lines(folder / "text.jsonl", (text_row(config, i) for i in range(config.n_texts)))
    (folder / "world.json").write_text(_config_text(config))


def _write_lines(path: Path, rows: Iterable[dict]) -> None:
    with path.open("w", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def regions(scenes: Iterable[tuple[Scene, Sequence[Mask]]]) -> dict:
    """Where the objects are, in COCO's form: `regions.json`. Masks are run lengths, as their holes are no polygons.

    Args:
        scenes: Each with the masks of its objects.
    """
    images, annotations = [], []
    for number, (scene, masks) in enumerate(scenes):
        images.append({"id": number, "file_name": image_path(scene), "height": scene.height, "width": scene.width})
        for thing, mask in zip(scene.things, masks, strict=True):
            left, top, right, bottom = mask_box(mask)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": OBJECTS.index(thing.object),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                    "segmentation": {"size": [scene.height, scene.width], "counts": run_lengths(mask)},
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(OBJECTS)]
    return {"images": images, "categories": categories, "annotations": annotations}


def image_path(scene: Scene) -> str:
    """Where the image of a scene lies in a world's folder."""
    return f"images/{WNIDS[scene.main.object]}/{scene.id}.JPEG"


def caption_row(scene: Scene) -> dict:
    """A line of `captions.jsonl`: id, image (relative to the file), text. The wording varies from scene to scene."""
    variant = int(np.random.default_rng(scene.texture).integers(6))
    return {"id": scene.id, "image": image_path(scene), "text": caption(scene, variant)}


def text_row(config: DemoWorld, index: int) -> dict:
    """A line of `text.jsonl`: id (which ends with the object that the text is about) and text."""
    obj, text = draw_text(config.seed, config.split, index)
    return {"id": f"text-{config.split}-{config.seed}-{index:06d}-{obj}", "text": text}


def truth_row(scene: Scene, masks: Sequence[Mask] | None = None) -> dict:
    """A line of `scenes.jsonl`: what the main object is and where, in words and pixels; `things` holds every object the same way.

    `box` is left, top, right, bottom in pixels, the last two exclusive. `Scene.from_row` turns the row back into the scene, and
    `paint.object_mask` that scene into the object's pixels.

    Args:
        scene: The scene.
        masks: Those pixels of each object, where they are known.
    """
    row = scene.to_row()
    masks = object_masks(scene) if masks is None else masks
    for thing, values, mask in zip(scene.things, row["things"], masks, strict=True):
        values["box"] = mask_box(mask)
        values["unseen_combination"] = is_unseen(thing.object, thing.colour, thing.ground)
    return {**row, **row["things"][0], "image": image_path(scene)}
