"""What is in an image: objects, colours, grounds, places and sizes, a pure function of (seed, split, index). No pixels here.

A scene shows one object on one ground, or two objects, each on its own half of the image. An eighth of the (object, colour,
ground) combinations is set aside: training scenes never show them, every fourth held-out scene does, to test composition.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from linrep.demo.shapes import OBJECTS

Split = Literal["train", "heldout"]
Layout = Literal["square", "wide", "tall"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 36),
    "orange": (240, 132, 20),
    "yellow": (244, 220, 40),
    "green": (24, 150, 50),
    "blue": (30, 60, 220),
    "purple": (140, 40, 170),
    "pink": (250, 130, 185),
    "black": (28, 26, 30),
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "grass": (124, 158, 78),
    "sand": (216, 190, 142),
    "water": (112, 170, 196),
    "snow": (232, 236, 242),
}
SIZES: dict[Layout, tuple[tuple[int, int], ...]] = {
    "square": ((72, 72),),
    "wide": ((96, 72), (144, 72)),
    "tall": ((72, 96), (72, 144)),
}
"""Width and height in pixels. A tile is 72 pixels, so wide and tall images take two tiles, the shorter ones with padding."""

UNSEEN_EVERY = 8
"""One combination in this many is never shown in training; the choice is a fixed pattern, so every word is met in many others."""


@dataclass(frozen=True)
class Thing:
    """One object in a scene.

    x, y: centre in pixels; size: side of the square that the upright silhouette fills, in pixels; tilt: degrees clockwise;
    place: where the centre lies in words, such as "top left" or "middle".
    """

    object: str
    colour: str
    ground: str
    place: str
    x: float
    y: float
    size: float
    tilt: float

    @classmethod
    def from_row(cls, row: dict) -> "Thing":
        """The object that a row names, other keys (its box) left aside."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Scene:
    """Everything an image is painted from. `things[0]` is the main object, which gives the image its class.

    split_at: where the second ground begins, in pixels along the longer side; 0 where there is one ground.
    noise: standard deviation of the pixel noise; light: factor on all colours; texture: seed of everything random in the pixels.
    """

    id: str
    layout: Layout
    width: int
    height: int
    things: tuple[Thing, ...]
    split_at: int
    noise: float
    light: float
    texture: int

    @property
    def main(self) -> Thing:
        return self.things[0]

    @property
    def stacked(self) -> bool:
        """Whether two grounds lie above each other (tall images) rather than side by side."""
        return self.height > self.width

    def to_row(self) -> dict:
        """The scene as plain values for a JSON line; `Scene.from_row` gives back an equal scene."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: dict) -> "Scene":
        """The scene that `to_row` wrote, other keys left aside."""
        fields = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "things": tuple(Thing.from_row(thing) for thing in row["things"])})


def is_unseen(obj: str, colour: str, ground: str) -> bool:
    """Whether this combination is kept from training."""
    return (OBJECTS.index(obj) + 3 * list(COLOURS).index(colour) + 2 * list(GROUNDS).index(ground)) % UNSEEN_EVERY == 0


def draw_scene(seed: int, split: Split, index: int, pair_share: float = 0.0) -> Scene:
    """The scene with this number, the same on every machine.

    Args:
        seed: World seed.
        split: Training scenes never hold an unseen combination; of held-out scenes every fourth has one as its main object.
        index: Number of the scene in its split, from 0.
        pair_share: Share of scenes that show two objects.
    """
    rng = np.random.default_rng([seed, 0 if split == "train" else 1, index])
    is_pair = rng.random() < pair_share
    shares = [0, 0.5, 0.5] if is_pair else [0.5, 0.25, 0.25]  # two objects in one tile would be two patches wide each
    layout: Layout = ("square", "wide", "tall")[rng.choice(3, p=shares)]
    width, height = SIZES[layout][rng.integers(len(SIZES[layout]))]
    want_unseen = split == "heldout" and index % 4 == 3
    first = _draw_combination(rng, want_unseen)
    combinations = [first]
    if is_pair:
        second = _draw_combination(rng, False)
        while second[0] == first[0] or second[1] == first[1]:  # a question names an object by its colour, and the other way round
            second = _draw_combination(rng, False)
        combinations.append(second)
    long_side = max(width, height)
    split_at = round(long_side * rng.uniform(0.46, 0.54)) if is_pair else 0
    things = []
    for i, combination in enumerate(combinations):
        start, end = ((0, split_at), (split_at, long_side))[i] if is_pair else (0, long_side)
        room_x, room_y = ((0, width), (start, end)) if height > width else ((start, end), (0, height))
        things.append(_place(rng, combination, room_x, room_y, width, height))
    if is_pair and rng.random() < 0.5:  # the main object is on either side
        things = _swapped(things)
    return Scene(
        id=f"{split}-{seed}-{index:06d}",
        layout=layout,
        width=width,
        height=height,
        things=tuple(things),
        split_at=split_at,
        noise=float(np.round(rng.uniform(2, 10), 2)),
        light=float(np.round(rng.uniform(0.85, 1.1), 3)),
        texture=int(rng.integers(2**31)),
    )


def _draw_combination(rng: np.random.Generator, unseen: bool) -> tuple[str, str, str]:
    while True:
        combination = (
            OBJECTS[rng.integers(len(OBJECTS))],
            list(COLOURS)[rng.integers(len(COLOURS))],
            list(GROUNDS)[rng.integers(len(GROUNDS))],
        )
        if is_unseen(*combination) == unseen:
            return combination


def _place(
    rng: np.random.Generator,
    combination: tuple[str, str, str],
    room_x: tuple[int, int],
    room_y: tuple[int, int],
    width: int,
    height: int,
) -> Thing:
    """Put an object into its room: half to nearly all of the room's shorter side, tilted by up to 25 degrees, never cut off."""
    short = min(room_x[1] - room_x[0], room_y[1] - room_y[0])
    size = min(float(rng.uniform(0.55, 0.92) * short), 60.0)
    margin = 0.52 * size
    x = float(rng.uniform(room_x[0] + margin, room_x[1] - margin))
    y = float(rng.uniform(room_y[0] + margin, room_y[1] - margin))
    obj, colour, ground = combination
    tilt = float(np.round(rng.uniform(-25, 25), 1))
    place = _place_in_words(x / width, y / height)
    return Thing(obj, colour, ground, place, round(x, 1), round(y, 1), round(size, 1), tilt)


def _swapped(things: list[Thing]) -> list[Thing]:
    """Main and further object exchange everything but their room."""
    a, b = things
    kept = ("place", "x", "y", "size", "tilt")
    return [
        Thing(a.object, a.colour, a.ground, *(getattr(b, k) for k in kept)),
        Thing(b.object, b.colour, b.ground, *(getattr(a, k) for k in kept)),
    ]


def _place_in_words(x: float, y: float) -> str:
    """The ninth of the image that holds the centre: "top left" ... "middle" ... "bottom right"."""
    words = [("top", "", "bottom")[min(int(3 * y), 2)], ("left", "", "right")[min(int(3 * x), 2)]]
    return " ".join(word for word in words if word) or "middle"
