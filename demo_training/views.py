"""The tiles that the tower sees, with the truth of every patch: what the second stage of training learns from.

An image gives its base view (the whole image squeezed into one tile) and, in LLaVA-NeXT's way, the tiles it is cut into.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from PIL import Image
from torch import Tensor
from transformers import LlavaNextProcessor

from demo_training.model import GRID, TILE
from linrep.demo.paint import jpeg_bytes, object_mask, paint, patch_shares
from linrep.demo.scene import COLOURS, GROUNDS, Scene
from linrep.demo.shapes import OBJECTS

UNKNOWN = -100
CELLS = 4
"""An outline has CELLS x CELLS values a patch."""
ON_OBJECT, OFF_OBJECT = 0.35, 0.05
"""A patch shows an object from this share of its pixels on, and none up to that one; between them the patch is not asked."""


@dataclass(frozen=True)
class Views:
    """Tiles of many images, and of each patch its object (last class: "none"), colour and ground; UNKNOWN where not asked.

    whole: the tile's object, colour and ground, asked where it shows nearly all of exactly one object; outlines: share of each
    cell that objects cover, 0 to 255; first: where each image's tiles begin.
    """

    pixels: UInt8[Tensor, "n 3 s s"]
    patches: Int[Tensor, "n 3 p"]
    whole: Int[Tensor, "n 3"]
    outlines: UInt8[Tensor, "n c c"]
    first: list[int]


def stored_image(scene: Scene) -> Image.Image:
    """The image as a reader of its file sees it."""
    return Image.open(BytesIO(jpeg_bytes(paint(scene)))).convert("RGB")


def cut_tiles(scene: Scene, processor: LlavaNextProcessor) -> UInt8[np.ndarray, "n 3 s s"]:
    """Base view and tiles, as the processor cuts them, before it scales the values."""
    tiles = processor.image_processor(stored_image(scene), do_normalize=False, do_rescale=False)["pixel_values"][0]
    return np.clip(np.round(tiles), 0, 255).astype(np.uint8)


def scale_pixels(pixels: Shaped[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
    """What the processor does with values 0..255: mean 0.5, standard deviation 0.25 of the range."""
    return (pixels.float() / 255 - 0.5) / 0.25


def cut_views(scenes: list[Scene], processor: LlavaNextProcessor) -> Views:
    """Tiles and truth of these scenes."""
    pixels, patches, whole, outlines, first, n = [], [], [], [], [], 0
    for scene in scenes:
        tiles = cut_tiles(scene, processor)
        pixels.append(tiles)
        labels, tile_labels = _truth(scene)
        patches.append(labels)
        whole.append(tile_labels)
        outlines.append(_outlines(scene))
        first.append(n)
        n += len(tiles)
    return Views(
        torch.from_numpy(np.concatenate(pixels)),
        torch.from_numpy(np.concatenate(patches)),
        torch.from_numpy(np.concatenate(whole)),
        torch.from_numpy(np.concatenate(outlines)),
        first,
    )


def _truth(scene: Scene) -> tuple[Int[np.ndarray, "n 3 p"], Int[np.ndarray, "n 3"]]:
    masks = [object_mask(scene, i) for i in range(len(scene.things))]
    grounds = _ground_pixels(scene)
    base = _label(scene, [patch_shares(m, GRID, GRID) for m in masks], [patch_shares(g, GRID, GRID) for g in grounds])
    if scene.width == scene.height:
        cut = [base]
    else:
        rows, cols = (2 * GRID, GRID) if scene.stacked else (GRID, 2 * GRID)
        shares = [patch_shares(_pad(m), rows, cols) for m in masks]
        ground_shares = [patch_shares(_pad(g), rows, cols) for g in grounds]
        long = _label(scene, shares, ground_shares).reshape(3, rows, cols)
        cut = [half.reshape(3, -1) for half in np.split(long, 2, axis=1 if scene.stacked else 2)]
    tiles = [base.reshape(3, -1), *(labels.reshape(3, -1) for labels in cut)]
    return np.stack(tiles), np.stack([_whole(scene, labels, masks) for labels in tiles])


def _outlines(scene: Scene) -> UInt8[np.ndarray, "n c c"]:
    """What objects cover, in the tiles' order: base view first, then the halves of a wide or tall image."""
    covered = np.any([object_mask(scene, i) for i in range(len(scene.things))], axis=0)
    n = CELLS * GRID
    tiles = [patch_shares(covered, n, n)]
    if scene.width == scene.height:
        tiles *= 2
    else:
        tiles += np.split(
            patch_shares(_pad(covered), *((2 * n, n) if scene.stacked else (n, 2 * n))), 2, axis=0 if scene.stacked else 1
        )
    return np.round(255 * np.stack(tiles)).astype(np.uint8)


def _label(scene: Scene, shares: list[np.ndarray], grounds: list[np.ndarray]) -> Int[np.ndarray, "3 rows cols"]:
    """Object, colour and ground of each cell, from the shares that objects and grounds cover."""
    which = np.argmax(shares, axis=0)
    top = np.max(shares, axis=0)
    names = np.array([OBJECTS.index(t.object) for t in scene.things])[which]
    colours = np.array([list(COLOURS).index(t.colour) for t in scene.things])[which]
    objects = np.where(top >= ON_OBJECT, names, np.where(top <= OFF_OBJECT, len(OBJECTS), UNKNOWN))
    colours = np.where(top >= ON_OBJECT, colours, UNKNOWN)
    ground = np.argmax(grounds, axis=0)
    ground = np.where(np.max(grounds, axis=0) >= 0.9, ground, UNKNOWN)
    return np.stack([objects, colours, ground])


def _whole(scene: Scene, labels: Int[np.ndarray, "3 p"], masks: list[np.ndarray]) -> Int[np.ndarray, " 3"]:
    """The tile's own classes: those of the one object it shows, if it shows enough of it and nothing of another."""
    there = [t for t in scene.things if (labels[0] == OBJECTS.index(t.object)).any()]
    if len(there) != 1 or (len(scene.things) > 1 and (labels[0] == UNKNOWN).sum() > 12):
        return np.full(3, UNKNOWN)
    (thing,) = there
    n_needed = 0.5 * masks[scene.things.index(thing)].sum() / (TILE / GRID) ** 2
    squeezed = min(1.0, TILE / max(scene.width, scene.height))
    if (labels[0] == OBJECTS.index(thing.object)).sum() < n_needed * squeezed:
        return np.full(3, UNKNOWN)
    return np.array([OBJECTS.index(thing.object), list(COLOURS).index(thing.colour), list(GROUNDS).index(thing.ground)])


def _ground_pixels(scene: Scene) -> list[Bool[np.ndarray, "h w"]]:
    """For each ground, where it lies (the objects on it included)."""
    kinds = [list(GROUNDS).index(t.ground) for t in scene.things]
    canvas = np.full((scene.height, scene.width), kinds[0])
    if len(kinds) > 1:
        along = np.arange(max(scene.width, scene.height))
        order = np.argsort([t.y if scene.stacked else t.x for t in scene.things])
        line = np.where(along < scene.split_at, kinds[order[0]], kinds[order[1]])
        canvas = np.broadcast_to(line[:, None] if scene.stacked else line[None, :], canvas.shape)
    return [canvas == kind for kind in range(len(GROUNDS))]


def _pad(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "H W"]:
    """Padding as the processor does it: the image in the middle of two tiles."""
    want = (2 * TILE, TILE) if mask.shape[0] > mask.shape[1] else (TILE, 2 * TILE)
    pads = [((w - h) // 2, w - h - (w - h) // 2) for w, h in zip(want, mask.shape, strict=True)]
    return np.pad(mask, pads)
