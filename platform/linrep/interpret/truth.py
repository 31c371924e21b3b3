"""A backend that knows the world: it explains by the rule that fits the shown samples best, and judges by the truth of scenes.

It never sees whether a latent fires on what it judges. So its scores have a right answer: a latent that follows a rule of its
language scores 1, one that does not scores what that language can say about it.
"""

from collections.abc import Sequence

from linrep.errors import RecipeError
from linrep.interpret.backends import Effort, Said
from linrep.interpret.config import Truth
from linrep.interpret.contents import Contents, Scenes
from linrep.interpret.fit import Spoken, fit_picture, fit_text, fit_zones
from linrep.interpret.rule import PictureRule, Rule, TextRule, read_rule
from linrep.interpret.views import Evidence, Task, Token, View
from linrep.store.layout import Modality


class TruthBackend:
    """Explains and judges by what is drawn and by the words themselves.

    Args:
        config: What it may say.
        contents: The samples' texts, and where patches lie.
        scenes: The truth of the pictures.
    """

    source, parallel, batch, needs_pictures = "truth", 1, 1, False

    def __init__(self, config: Truth, contents: Contents, scenes: Scenes) -> None:
        self._config, self._contents, self._scenes = config, contents, scenes

    def check(self) -> None:
        """Nothing can be missing."""

    def explain(self, evidence: Evidence) -> Said:
        """The rule that agrees best with what is shown."""
        pictures = [view for view in evidence.active if view.modality == "image"]
        texts = [view for view in evidence.active if view.modality == "text"]
        rule = Rule(self._picture(pictures, evidence) if pictures else None, self._text(texts, evidence) if texts else None)
        return Said(str(rule)) if str(rule) else Said(None, "nothing that fires is shown")

    def _picture(self, active: Sequence[View], evidence: Evidence) -> PictureRule:
        silent = [view for view in evidence.silent if view.modality == "image"]
        shown, contrast = ([self._scenes.attributes(v.sample) for v in some] for some in (active, silent))
        rule = fit_picture(shown, contrast, self._config.attributes, self._config.values)
        marked = [share for view in active for share in self._shares(view.sample, view.marks)]
        quiet = [share for view in active for share in self._shares(view.sample, view.quiet)]
        return PictureRule(rule.conditions, fit_zones(marked, quiet))

    def _text(self, active: Sequence[View], evidence: Evidence) -> TextRule | None:
        silent = [view for view in evidence.silent if view.modality == "text"]
        return fit_text([self._spoken(v) for v in active], [self._spoken(v, False) for v in silent], self._config.values)

    def _spoken(self, view: View, unmarked: bool | None = None) -> Spoken:
        window = self._contents.window(view)
        fires, quiet = {t.position for t in view.marks}, {t.position for t in view.quiet}
        known = tuple(True if p in fires else False if p in quiet else unmarked for p in window.positions)
        return Spoken(_words(window.pieces), known)

    def _shares(self, sample: str, tokens: Sequence[Token]) -> list[float]:
        return self._scenes.shares(sample, self._contents.boxes(sample, tokens, self._scenes.size(sample)))

    def judge(self, task: Task, explanation: str, views: Sequence[View]) -> list[bool | None]:
        """Whether each view is as the rule says."""
        rule = read_rule(explanation)
        return [self._fits(rule, view, task) for view in views]

    def _fits(self, rule: Rule, view: View, task: Task) -> bool:
        if view.modality == "image":
            if rule.picture is None or not rule.picture.fits(self._scenes.attributes(view.sample)):
                return False
            return task == "detection" or rule.picture.fits_marks(self._shares(view.sample, view.marks))
        if rule.text is None:
            return False
        window = self._contents.window(view)
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
        named = [name for name, _ in rule.picture.conditions] if rule.picture else []
        unknown = [name for name in named if name not in self._config.attributes]
        return f"no attribute {unknown[0]!r}: there are {', '.join(self._config.attributes)}" if unknown else None

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


def _words(pieces: Sequence[str]) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in pieces)
