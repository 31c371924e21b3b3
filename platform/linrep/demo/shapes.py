"""The silhouettes of the sixteen objects, as polygons in a unit square; how they get onto an image is in `paint`.

A part is (shade, points): the shade multiplies the object's colour (1 plain, below 1 darker, above 1 lighter) and 0 cuts a hole
through which the ground shows. Points lie in [-1, 1] with y pointing down, as in images.
"""

import math

Point = tuple[float, float]
Part = tuple[float, tuple[Point, ...]]

HOLE = 0.0


def _ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> tuple[Point, ...]:
    """Points of an ellipse's arc, degrees clockwise from the right, as images count."""
    n = max(6, round(abs(end - start) / 15))
    angles = [math.radians(start + (end - start) * i / n) for i in range(n + 1)]
    return tuple((cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles)


def _box(x0: float, y0: float, x1: float, y1: float) -> tuple[Point, ...]:
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _star(points: int, outer: float, inner: float) -> tuple[Point, ...]:
    angles = [math.pi * i / points - math.pi / 2 for i in range(2 * points)]
    return tuple(((outer, inner)[i % 2] * math.cos(a), (outer, inner)[i % 2] * math.sin(a)) for i, a in enumerate(angles))


def _heart() -> tuple[Point, ...]:
    turns = [2 * math.pi * i / 32 for i in range(32)]
    xs = [math.sin(t) ** 3 for t in turns]
    ys = [-(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 for t in turns]
    return tuple(zip(xs, ys, strict=True))


SHAPES: dict[str, tuple[Part, ...]] = {
    "boat": (
        (1.0, ((-1, 0.3), (1, 0.3), (0.6, 0.9), (-0.6, 0.9))),
        (0.6, _box(-0.08, -0.9, 0.04, 0.3)),
        (1.25, ((0.1, -0.9), (0.85, 0.15), (0.1, 0.15))),
    ),
    "car": (
        (1.0, ((-1, 0.1), (-0.6, 0), (-0.4, -0.5), (0.35, -0.5), (0.6, 0), (1, 0.1), (1, 0.45), (-1, 0.45))),
        (1.5, ((-0.4, -0.02), (-0.28, -0.38), (0.24, -0.38), (0.42, -0.02))),
        (0.35, _ellipse(-0.52, 0.45, 0.26, 0.26)),
        (0.35, _ellipse(0.52, 0.45, 0.26, 0.26)),
    ),
    "tree": (
        (0.5, _box(-0.14, 0.3, 0.14, 1)),
        (1.0, ((0, -1), (0.5, -0.3), (0.28, -0.3), (0.8, 0.45), (-0.8, 0.45), (-0.28, -0.3), (-0.5, -0.3))),
    ),
    "flower": (
        (0.5, _box(-0.07, 0.0, 0.07, 1)),
        (0.5, ((0, 0.85), (0.5, 0.5), (0.45, 0.75))),
        *(
            (1.0, _ellipse(0.42 * math.cos(a), -0.35 + 0.42 * math.sin(a), 0.27, 0.27))
            for a in [2 * math.pi * i / 5 for i in range(5)]
        ),
        (1.6, _ellipse(0, -0.35, 0.22, 0.22)),
    ),
    "leaf": (
        (1.0, ((0, -1), (0.4, -0.6), (0.55, -0.1), (0.4, 0.4), (0, 0.75), (-0.4, 0.4), (-0.55, -0.1), (-0.4, -0.6))),
        (0.5, _box(-0.05, -0.7, 0.05, 1)),
        (0.5, ((0, 0.1), (0.38, -0.2), (0.38, -0.1), (0, 0.22))),
        (0.5, ((0, 0.1), (-0.38, -0.2), (-0.38, -0.1), (0, 0.22))),
    ),
    "fish": (
        (1.0, _ellipse(-0.2, 0, 0.75, 0.42)),
        (1.0, ((0.4, 0), (1, -0.5), (0.85, 0), (1, 0.5))),
        (0.6, ((-0.2, -0.35), (0.2, -0.7), (0.25, -0.25))),
        (0.2, _ellipse(-0.6, -0.1, 0.09, 0.09)),
    ),
    "bird": (
        (
            1.0,
            (
                (0, 0.2),
                (-0.35, -0.35),
                (-1, -0.5),
                (-0.75, -0.1),
                (-0.35, 0.25),
                (0, 0.65),
                (0.35, 0.25),
                (0.75, -0.1),
                (1, -0.5),
                (0.35, -0.35),
            ),
        ),
        (0.6, _ellipse(0, -0.05, 0.17, 0.55)),
        (1.5, ((-0.1, -0.55), (0, -0.85), (0.1, -0.55))),
    ),
    "key": (
        (1.0, _ellipse(-0.6, 0, 0.4, 0.4)),
        (HOLE, _ellipse(-0.6, 0, 0.19, 0.19)),
        (1.0, _box(-0.25, -0.11, 1, 0.11)),
        (0.8, _box(0.5, 0.1, 0.65, 0.42)),
        (0.8, _box(0.82, 0.1, 0.97, 0.5)),
    ),
    "bell": (
        (
            1.0,
            ((-0.14, -0.9), (0.14, -0.9), (0.45, -0.55), (0.52, 0.15), (0.85, 0.6), (-0.85, 0.6), (-0.52, 0.15), (-0.45, -0.55)),
        ),
        (0.6, _box(-0.85, 0.48, 0.85, 0.64)),
        (0.4, _ellipse(0, 0.78, 0.19, 0.19)),
    ),
    "arrow": (
        (1.0, _box(-1, -0.12, 0.4, 0.12)),
        (1.0, ((0.3, -0.5), (1, 0), (0.3, 0.5))),
        (0.7, ((-1, -0.4), (-0.75, -0.4), (-0.5, -0.1), (-0.75, -0.1))),
        (0.7, ((-1, 0.4), (-0.75, 0.4), (-0.5, 0.1), (-0.75, 0.1))),
    ),
    "cup": (
        (1.0, _ellipse(0.5, 0.05, 0.42, 0.42)),
        (HOLE, _ellipse(0.5, 0.05, 0.22, 0.22)),
        (1.0, ((-0.85, -0.65), (0.5, -0.65), (0.35, 0.75), (-0.7, 0.75))),
        (0.5, _ellipse(-0.175, -0.65, 0.67, 0.16)),
    ),
    "house": (
        (1.0, _box(-0.7, -0.1, 0.7, 0.9)),
        (0.55, ((-0.95, -0.1), (0, -0.95), (0.95, -0.1))),
        (0.4, _box(-0.15, 0.3, 0.18, 0.9)),
        (1.6, _box(0.32, 0.12, 0.56, 0.42)),
    ),
    "star": ((1.0, _star(5, 1.0, 0.42)),),
    "moon": ((1.0, (*_ellipse(0, 0, 0.95, 0.95, 60, 300), *_ellipse(0.35, 0, 0.68, 0.82, 270, 90))),),
    "heart": ((1.0, _heart()), (1.4, _ellipse(-0.45, -0.4, 0.16, 0.16))),
    "cloud": (
        (1.0, _ellipse(-0.5, 0.15, 0.42, 0.36)),
        (1.0, _ellipse(0.5, 0.15, 0.45, 0.36)),
        (1.0, _ellipse(0.0, -0.15, 0.52, 0.5)),
        (0.75, _box(-0.55, 0.25, 0.55, 0.52)),
    ),
}
OBJECTS: tuple[str, ...] = tuple(SHAPES)
