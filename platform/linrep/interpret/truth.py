"""A backend that knows the world: it explains by the rule that fits the shown samples best, and judges by the truth of scenes.

It never sees whether a latent fires on what it judges. So its scores have a right answer: a latent that follows a rule of its
language scores 1, one that does not scores what that language can say about it.
"""

from collections.abc import Sequence
from dataclasses import replace

from linrep.contents.stored import Box, Contents, Token
from linrep.errors import RecipeError
from linrep.interpret.backends import Effort, Said
from linrep.interpret.config import Truth
from linrep.interpret.fit import Spoken, fit_image, fit_places, fit_text
from linrep.interpret.rule import ZONES, ImageRule, Rule, TextRule, read_rule, zone
from linrep.interpret.scenes import Scenes
from linrep.interpret.views import Evidence, Task, View
from linrep.store.layout import Modality

PLACES = ("part", "height", "side")
"""What is said of patches beside their zone."""


class TruthBackend:
    """Explains and judges by what is drawn and by the words themselves.

    Args:
        config: What it may say.
        contents: The samples' texts, and where patches lie.
        scenes: The truth of the images.
    """

    source, parallel, batch, needs_images = "truth", 1, 1, False

    def __init__(self, config: Truth, contents: Contents, scenes: Scenes) -> None:
        self._config, self._contents, self._scenes = config, contents, scenes

    def check(self) -> None:
        """Nothing can be missing."""

    def explain(self, evidence: Evidence) -> Said:
        """The rule that agrees best with what is shown."""
        images = [view for view in evidence.active if view.modality == "image"]
        texts = [view for view in evidence.active if view.modality == "text"]
        rule = Rule(self._image(images, evidence) if images else None, self._text(texts, evidence) if texts else None)
        return Said(str(rule)) if str(rule) else Said(None, "nothing that fires is shown")

    def _image(self, active: Sequence[View], evidence: Evidence) -> ImageRule:
        silent = [view for view in evidence.silent if view.modality == "image"]
        shown, contrast = ([self._scenes.attributes(v.sample) for v in some] for some in (active, silent))
        rule = fit_image(shown, contrast, self._config.attributes, self._config.values)
        patches = [(self._patches(view.sample, view.marks), self._patches(view.sample, view.quiet)) for view in active]
        where = dict(fit_places(patches, ("zone", *PLACES), self._config.values))
        zones = tuple(name for name in ZONES if name in where.get("zone", ZONES))
        return replace(rule, zones=zones, places=tuple(own for own in where.items() if own[0] != "zone"))

    def _text(self, active: Sequence[View], evidence: Evidence) -> TextRule | None:
        silent = [view for view in evidence.silent if view.modality == "text"]
        return fit_text([self._spoken(v) for v in active], [self._spoken(v, False) for v in silent], self._config.values)

    def _spoken(self, view: View, unmarked: bool | None = None) -> Spoken:
        window = self._contents.window(view.sample, view.centre)
        fires, quiet = {t.position for t in view.marks}, {t.position for t in view.quiet}
        known = tuple(True if p in fires else False if p in quiet else unmarked for p in window.positions)
        return Spoken(_words(window.pieces), known)

    def _patches(self, sample: str, tokens: Sequence[Token]) -> list[dict[str, str]]:
        """Where patches lie: on the object or beside it, in the whole view or a crop, in which third of the image."""
        size = self._scenes.size(sample)
        tokens = [token for token in tokens if token.is_patch]
        boxes = self._contents.boxes(sample, tokens, size)
        shares = self._scenes.shares(sample, boxes)
        return [_patch(*own, size) for own in zip(tokens, boxes, shares, strict=True)]

    def judge(self, task: Task, explanation: str, views: Sequence[View]) -> list[bool | None]:
        """Whether each view is as the rule says."""
        rule = read_rule(explanation)
        return [self._fits(rule, view, task) for view in views]

    def _fits(self, rule: Rule, view: View, task: Task) -> bool:
        if view.modality == "image":
            if rule.image is None or not rule.image.fits(self._scenes.attributes(view.sample)):
                return False
            return task == "detection" or rule.image.fits_marks(self._patches(view.sample, view.marks))
        if rule.text is None:
            return False
        window = self._contents.window(view.sample, view.centre)
        fires = rule.text.fires(_words(window.pieces))
        if task == "detection":
            return any(fires)
        marked = {token.position for token in view.marks}
        right = [fire for position, fire in zip(window.positions, fires, strict=True) if position in marked]
        return 2 * sum(right) > len(right)

    def alike(self, one: str, other: str, modality: Modality) -> bool:
        """Whether both rules have the same part."""
        return read_rule(one).part(modality) == read_rule(other).part(modality)

    def refuse(self, explanation: str) -> str | None:
        """Why a line is no rule."""
        try:
            rule = read_rule(explanation)
        except ValueError as error:
            return str(error)
        image = rule.image or ImageRule()
        for clauses, known in (((image.conditions, *image.others), self._config.attributes), ((image.places,), PLACES)):
            unknown = [name for clause in clauses for name, _ in clause if name not in known]
            if unknown:
                return f"no attribute {unknown[0]!r}: there are {', '.join(known)}"
        return None

    def estimate(self, explained: Sequence[Evidence], asked: Sequence[Sequence[View]]) -> Effort:
        """Nothing is asked of anybody."""
        return Effort()

    def spent(self) -> Effort:
        """Nothing."""
        return Effort()


def truth_backend(config: Truth, contents: Contents, scenes: Scenes | None) -> TruthBackend:
    """The backend, if there is a truth.

    Raises:
        RecipeError: There is none.
    """
    if scenes is None:
        raise RecipeError("interpret.backend truth needs interpret.scenes: the embedded world's are demo://scenes.jsonl")
    return TruthBackend(config, contents, scenes)


def _patch(token: Token, box: Box, share: float, size: tuple[int, int] | None) -> dict[str, str]:
    height, width = size or (box[3], box[2])
    middles = (box[1] + box[3]) / 2 / max(height, 1), (box[0] + box[2]) / 2 / max(width, 1)
    thirds = [min(max(int(3 * middle), 0), 2) for middle in middles]
    return {
        "zone": zone(share),
        "part": "crop" if token.tile else "whole",
        "height": ("top", "middle", "bottom")[thirds[0]],
        "side": ("left", "middle", "right")[thirds[1]],
    }


def _words(pieces: Sequence[str]) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in pieces)
