"""A drawn world without a model: samples, scenes and planted latents that follow a rule, or none."""

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from PIL import Image

from linrep.contents.stored import Token, Window
from linrep.demo import model_folder
from linrep.demo.paint import paint
from linrep.demo.scene import Scene, draw_scene
from linrep.demo.world import truth_row
from linrep.interpret.config import InterpretConfig, Scored, Shown, Truth
from linrep.interpret.draw import build_case, split_examples
from linrep.interpret.firing import Firing
from linrep.interpret.scenes import Scenes
from linrep.interpret.truth import TruthBackend
from linrep.interpret.views import Case, Latent
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import layout
from linrep.vlm.tokens import patch_box

WORDS = ("boat", "car", "tree", "red", "blue", "the", "a", "is", "on", "it")
CONFIG = InterpretConfig(
    scenes="x",
    show=Shown(top=6, spread=2, silent=20),
    score=Scored(positives=20, negatives=20),
    around=40,
)


CARD = describe(ModelConfig(path=str(model_folder())))


@cache
def patch_of(height: int, width: int, tile: int, row: int, col: int) -> tuple[float, float, float, float]:
    return patch_box(layout((height, width), CARD), tile, row, col)


@dataclass
class Codes:
    """What `Firing` reads."""

    sample: np.ndarray
    position: np.ndarray
    tile: np.ndarray
    row: np.ndarray
    col: np.ndarray
    offsets: np.ndarray
    latents: np.ndarray


@dataclass
class World:
    """Images and texts with their tokens; it also stands in for `Contents`.

    Attributes:
        scenes: Of the images.
        texts: Words of the texts.
        fires: By sample number, positions and activations by latent.
    """

    scenes: list[Scene]
    texts: list[tuple[str, ...]]
    fires: dict[int, dict[int, dict[int, float]]] = field(default_factory=dict)
    known: dict[int, tuple[list[Token], list[float]]] = field(default_factory=dict)

    @cached_property
    def ids(self) -> list[str]:
        return [f"images/{s.id}.JPEG" for s in self.scenes] + [f"text/{i}" for i in range(len(self.texts))]

    @cached_property
    def number(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def truth(self) -> Scenes:
        return Scenes(truth_row(scene) for scene in self.scenes)

    def tokens(self, number: int) -> list[Token]:
        return self.looked_at(number)[0]

    def looked_at(self, number: int) -> tuple[list[Token], list[float]]:
        """Tokens of a sample, and what share of each the object covers."""
        if number not in self.known:
            tokens, name = self._tokens(number), self.ids[number]
            patches = [t for t in tokens if t.tile >= 0]
            shares = iter(self.truth.shares(name, self.boxes(name, patches)) if patches else ())
            self.known[number] = tokens, [next(shares) if t.tile >= 0 else 0.0 for t in tokens]
        return self.known[number]

    def _tokens(self, number: int) -> list[Token]:
        if number >= len(self.scenes):
            return [Token(i) for i in range(len(self.texts[number - len(self.scenes)]))]
        scene = self.scenes[number]
        found = layout((scene.height, scene.width), CARD).map
        return [Token(i, *(int(x[i]) for x in (found.tile, found.row, found.col))) for i in range(len(found.tile))]

    def boxes(self, name, tokens, source=None):
        scene = self.scenes[self.number[name]]
        return [patch_of(scene.height, scene.width, *t[1:]) for t in tokens if t.tile >= 0]

    def window(self, name: str, centre: int | None = None) -> Window:
        words = self.texts[int(name.split("/")[1])]
        near = range(len(words)) if centre is None else [i for i in range(len(words)) if abs(i - centre) <= 40]
        return Window(tuple(near), tuple(f" {words[i]}" for i in near))

    def image(self, name: str) -> Image.Image:
        return paint(self.scenes[self.number[name]])

    def load(self, names) -> None:
        pass

    def plant(self, latent: int, rule) -> None:
        """A latent that fires where `rule(number, token, share)` gives more than 0."""
        for number in range(len(self.ids)):
            both = zip(*self.looked_at(number), strict=True)
            found = {t.position: s for t, share in both if (s := float(rule(number, t, share))) > 0}
            if found:
                self.fires.setdefault(number, {})[latent] = found

    def firing(self, latents) -> Firing:
        firing = Firing(
            latents, len(self.ids), {"image": range(len(self.scenes)), "text": range(len(self.scenes), len(self.ids))}
        )
        for modality, numbers in (("image", range(len(self.scenes))), ("text", range(len(self.scenes), len(self.ids)))):
            rows = [(n, t) for n in numbers for t in self.tokens(n)]
            lists = [sorted(z for z, where in self.fires.get(n, {}).items() if t.position in where) for n, t in rows]
            columns = np.array([(n, *t) for n, t in rows], np.int64).T
            ends = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
            firing.add(modality, Codes(*columns, ends, np.array([z for x in lists for z in x], np.int64)))
        return firing

    def examples(self, latent: int, modality: str, top: int = 8, per_quantile: int = 16) -> list[dict]:
        """Rows as the features job writes them."""
        numbers = range(len(self.scenes)) if modality == "image" else range(len(self.scenes), len(self.ids))
        strongest = {n: max(self.fires[n][latent].values()) for n in numbers if latent in self.fires.get(n, {})}
        order = sorted(strongest, key=lambda n: (-strongest[n], n))
        rows = [self._row(n, latent, "top", None, i) for i, n in enumerate(order[:top])]
        fair = order[::-1]
        for quantile in range(5):
            own = fair[len(fair) * quantile // 5 : len(fair) * (quantile + 1) // 5]
            own = [own[i] for i in np.random.default_rng([quantile, latent]).permutation(len(own))][:per_quantile]
            rows += [self._row(n, latent, "quantile", quantile, i) for i, n in enumerate(own)]
        return rows

    def _row(self, number: int, latent: int, kind: str, quantile: int | None, rank: int) -> dict:
        where = self.fires[number][latent]
        tokens = [t for t in self.tokens(number) if t.position in where or number >= len(self.scenes)]
        peak = max(where, key=lambda p: where[p])
        return {
            "kind": kind, "quantile": quantile, "rank": rank, "sample_id": self.ids[number], "activation": where[peak],
            "position": peak, "positions": [t.position for t in tokens],
            "activations": [where.get(t.position, 0.0) for t in tokens],
            "tiles": [t.tile for t in tokens], "rows": [t.row for t in tokens], "cols": [t.col for t in tokens],
        }  # fmt: skip

    def case(self, latent: int, firing: Firing, config: InterpretConfig = CONFIG, neighbours=()) -> Case:
        feature = {"rate_image": 0.1, "rate_text": 0.1, "neighbours": list(neighbours)}
        examples = {m: split_examples(self.examples(latent, m), config) for m in ("image", "text")}
        return build_case(Latent(4, "d", latent), feature, examples, firing, self.number, self.ids, config)

    def backend(self) -> TruthBackend:
        return TruthBackend(Truth(attributes=("object", "colour", "ground"), values=4), self, self.truth)


def draw_world(n_images: int = 160, n_texts: int = 140) -> World:
    """Scenes of one object each, and texts of ten words drawn at random."""
    rng = np.random.default_rng(0)
    drawn = (draw_scene(5, "heldout", i) for i in range(4 * n_images))
    scenes = [scene for scene in drawn if scene.layout == "square"][:n_images]
    texts = [tuple(WORDS[i] for i in rng.integers(len(WORDS), size=10)) for _ in range(n_texts)]
    return World(scenes, texts)
