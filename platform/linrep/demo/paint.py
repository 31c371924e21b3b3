"""From a scene to its pixels and to the truth about them: which pixels, and which cells of a patch grid, belong to an object."""

import math
from io import BytesIO

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw

from linrep.demo.scene import COLOURS, GROUNDS, Scene, Thing
from linrep.demo.shapes import HOLE, SHAPES

_FINE = 3
"""Silhouettes are drawn this many times larger and then reduced, which smooths their edges."""

JPEG_QUALITY = 92

Mask = Bool[np.ndarray, "h w"]
"""True on the pixels that belong to an object."""


def paint(scene: Scene) -> Image.Image:
    """The image of a scene, RGB, the same pixels every time."""
    rng = np.random.default_rng(scene.texture)
    canvas = _ground(rng, scene.things[0].ground, scene.width, scene.height)
    if scene.split_at:
        first, second = _by_place(scene)
        canvas = _ground(rng, first.ground, scene.width, scene.height)
        other = _ground(rng, second.ground, scene.width, scene.height)
        canvas = np.where(_second_half(rng, scene)[..., None], other, canvas)
    for thing in scene.things:
        colour, alpha = _silhouette(thing, scene.width, scene.height)
        canvas = canvas * (1 - alpha) + colour * alpha
    canvas = canvas * scene.light + rng.normal(0, scene.noise, canvas.shape)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def jpeg_bytes(image: Image.Image) -> bytes:
    """The image as it is stored. Everything, training too, sees the stored image and not the painted one."""
    out = BytesIO()
    image.save(out, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def object_mask(scene: Scene, which: int = 0) -> Mask:
    """True on the pixels that object number `which` covers (0 is the main object); holes, as in a key, are not covered."""
    return object_masks(scene)[which]


def object_masks(scene: Scene) -> list[Mask]:
    """The same of every object, the main one first."""
    alphas = [_alpha(_layer(thing, scene.width, scene.height)) for thing in scene.things]
    for i, alpha in enumerate(alphas):
        for later in alphas[i + 1 :]:
            np.minimum(alpha, 1 - later, out=alpha)
    return [alpha >= 0.5 for alpha in alphas]


def mask_box(mask: Mask) -> tuple[int, int, int, int]:
    """Smallest box around a mask's pixels: left, top, right, bottom, the last two exclusive."""
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def run_lengths(mask: Mask) -> list[int]:
    """A mask as COCO has it: column by column, lengths of runs that are outside and inside in turn.

    >>> run_lengths(np.array([[False, True], [True, True]]))
    [1, 3]
    """
    column = mask.T.ravel()
    ends = [*(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)]
    runs = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    return [0, *runs] if column[0] else runs


def patch_shares(mask: Bool[np.ndarray, "h w"], rows: int, cols: int) -> Float[np.ndarray, "rows cols"]:
    """What share of each cell of a patch grid the mask covers, 0 to 1.

    The grid spans the whole image: 6 x 6 for the base view, (height / 12) x (width / 12) for the tiles of an unpadded image.
    Pixels on a cell's border count for both cells in proportion.
    """
    return _pool_matrix(mask.shape[0], rows) @ mask.astype(np.float64) @ _pool_matrix(mask.shape[1], cols).T


def _pool_matrix(n_pixels: int, n_cells: int) -> Float[np.ndarray, "cells pixels"]:
    edges = np.linspace(0, n_pixels, n_cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(n_pixels)[None]
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) / (high - low)


def _by_place(scene: Scene) -> tuple[Thing, Thing]:
    """Both objects in reading order: left before right, top before bottom."""
    a, b = sorted(scene.things, key=lambda thing: thing.y if scene.stacked else thing.x)
    return a, b


def _second_half(rng: np.random.Generator, scene: Scene) -> Bool[np.ndarray, "h w"]:
    """Where the second ground lies: beyond a slightly wavy border."""
    along, across = np.arange(max(scene.width, scene.height)), np.arange(min(scene.width, scene.height))
    border = scene.split_at + 1.5 * np.sin(across / rng.uniform(4, 8) + rng.uniform(0, 6))
    beyond = along[:, None] >= border[None, :]
    return beyond if scene.stacked else beyond.T


def _smooth(field: np.ndarray, radius_y: int, radius_x: int) -> np.ndarray:
    """Box-smoothed noise brought back to standard deviation 1; wraps around at the borders."""
    for axis, radius in ((0, radius_y), (1, radius_x)):
        total = np.cumsum(np.concatenate([field, field.take(range(2 * radius), axis=axis)], axis=axis), axis=axis)
        if radius:
            n = field.shape[axis]
            field = total.take(range(2 * radius - 1, n + 2 * radius - 1), axis=axis) - total.take(range(n), axis=axis)
    return field / (field.std() + 1e-9)


def _ground(rng: np.random.Generator, ground: str, width: int, height: int) -> Float[np.ndarray, "h w 3"]:
    """A textured ground: upright blades, grains, long waves, or soft drifts."""
    noise = rng.normal(size=(height, width))
    if ground == "grass":
        texture = 16 * _smooth(noise, 3, 0) + 5 * rng.normal(size=noise.shape)
    elif ground == "sand":
        texture = 11 * noise + 4 * _smooth(rng.normal(size=noise.shape), 6, 6)
    elif ground == "water":
        waves = np.sin(np.arange(height) / rng.uniform(1.2, 1.8) + rng.uniform(0, 6))[:, None]
        texture = 8 * waves + 13 * _smooth(noise, 1, 6)
    else:
        texture = 7 * _smooth(noise, 8, 8)
    shift = rng.normal(0, 4, 3)
    return np.array(GROUNDS[ground], dtype=float) + shift + texture[..., None]


def _silhouette(thing: Thing, width: int, height: int) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 1"]]:
    """Colour and coverage (0 to 1) of one object on an empty image."""
    layer = _layer(thing, width, height)
    alpha = _alpha(layer)[..., None]
    weighted = np.asarray(layer.convert("RGBa").reduce(_FINE), dtype=float)[..., :3]  # colours already multiplied by coverage
    return np.divide(weighted, alpha, out=np.zeros_like(weighted), where=alpha > 0), alpha


def _alpha(layer: Image.Image) -> Float[np.ndarray, "h w"]:
    return np.asarray(layer.getchannel("A").reduce(_FINE), dtype=float) / 255


def _layer(thing: Thing, width: int, height: int) -> Image.Image:
    """One object on an empty image, enlarged."""
    layer = Image.new("RGBA", (width * _FINE, height * _FINE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    base = np.array(COLOURS[thing.colour], dtype=float)
    cos, sin = math.cos(math.radians(thing.tilt)), math.sin(math.radians(thing.tilt))
    half = thing.size / 2
    for shade, points in SHAPES[thing.object]:
        spots = [
            ((thing.x + half * (x * cos - y * sin)) * _FINE, (thing.y + half * (x * sin + y * cos)) * _FINE) for x, y in points
        ]
        if shade == HOLE:
            pen.polygon(spots, fill=(0, 0, 0, 0))
            continue
        # lighter parts go towards white, darker ones towards black, so the hue stays the object's own
        tone = base * shade if shade <= 1 else base + (255 - base) * min(shade - 1, 1) * 0.6
        pen.polygon(spots, fill=(*np.clip(tone, 0, 255).astype(int).tolist(), 255))
    return layer
