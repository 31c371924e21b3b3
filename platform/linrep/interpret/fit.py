"""The rule that agrees best with what an explainer is shown, and that a part of it also says of the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from linrep.interpret.clauses import Attribute, Clause, Things, tell_apart
from linrep.interpret.rule import ImageRule, TextRule

TOGETHER = 3
"""Attributes in one clause, at most."""
CLAUSES = 3
"""Clauses of a rule, at most."""

Attributes = Mapping[str, str]


@dataclass(frozen=True)
class Spoken:
    """A window of text.

    Attributes:
        words: Its successive words.
        fires: On which of them the latent fires; None where that is not known.
    """

    words: tuple[str, ...]
    fires: tuple[bool | None, ...]


def fit_image(active: Sequence[Attributes], silent: Sequence[Attributes], names: Sequence[str], n_values: int) -> ImageRule:
    """Which images.

    Args:
        active: Attributes of images on which the latent fires.
        silent: Of those on which it does not.
        names: Attributes that may be named.
        n_values: Values of an attribute at most.
    """
    images = [*active, *silent]
    gains = np.repeat([0.5 / max(len(active), 1), -0.5 / max(len(silent), 1)], [len(active), len(silent)])
    things = Things(np.zeros(len(gains)), np.arange(len(gains)), gains, _attributes(images, names))
    clauses = tell_apart(things, _together(names), n_values, CLAUSES)
    return ImageRule(clauses[0], others=clauses[1:]) if clauses else ImageRule()


def _attributes(things: Sequence[Attributes], names: Sequence[str]) -> dict[str, Attribute]:
    return {name: Attribute.of([[own[name]] if name in own else [] for own in things]) for name in names}


def _together(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [shape for n in range(1, TOGETHER + 1) for shape in combinations(names, n)]


def fit_places(
    images: Sequence[tuple[Sequence[Attributes], Sequence[Attributes]]], names: Sequence[str], n_values: int
) -> Clause:
    """What patches have in common.

    Args:
        images: Of each image the attributes of patches on which the latent fires, and of patches on which it is silent.
        names: Attributes that may be named.
        n_values: Values of an attribute at most.
    """
    patches = [patch for both in images for some in both for patch in some]
    fires = np.array([f for marked, quiet in images for f in [True] * len(marked) + [False] * len(quiet)], bool)
    if fires.all() or not fires.any():
        return ()
    gains = np.where(fires, 0.5 / fires.sum(), -0.5 / (~fires).sum())
    group = np.repeat(np.arange(len(images)), [len(marked) + len(quiet) for marked, quiet in images])
    things = Things(gains, group, np.zeros(len(images)), _attributes(patches, names))
    found = tell_apart(things, _together(names), n_values, 1)
    return found[0] if found else ()


CONTEXTS = ("after", "right after")


def fit_text(active: Sequence[Spoken], silent: Sequence[Spoken], n_values: int) -> TextRule | None:
    """Which words, and after which; None where it fires on no word that is shown.

    What counts is the mean of two agreements: whether the rule fires in the right texts, and on the right words of those.
    """
    texts = [*active, *silent]
    words = [(i, j) for i, text in enumerate(texts) for j in range(len(text.words))]
    fires = np.array([texts[i].fires[j] is True for i, j in words], bool)
    calm = np.array([texts[i].fires[j] is False for i, j in words], bool)
    if not fires.any():
        return None
    gains = np.where(fires, 0.25 / fires.sum(), np.where(calm, -0.25 / max(calm.sum(), 1), 0.0))
    of_texts = np.repeat([0.25 / max(len(active), 1), -0.25 / max(len(silent), 1)], [len(active), len(silent)])
    before = {
        "words": [[texts[i].words[j]] for i, j in words],
        "after": [sorted(set(texts[i].words[:j])) for i, j in words],
        "right after": [[texts[i].words[j - 1]] if j else [] for i, j in words],
    }
    things = Things(gains, np.array([i for i, _ in words]), of_texts, {n: Attribute.of(said) for n, said in before.items()})
    shapes = [("words",), ("right after",), *(("words", context) for context in CONTEXTS)]
    rules = [_text_rule(dict(clause)) for clause in tell_apart(things, shapes, n_values, CLAUSES)]
    if not rules:  # nothing pays: the word on which it fires most often is at least something to check
        said = [texts[i].words[j] for (i, j), f in zip(words, fires, strict=True) if f]
        rules = [TextRule((max(sorted(set(said)), key=said.count),))]
    return TextRule(rules[0].words, rules[0].after, rules[0].right, tuple(rules[1:]))


def _text_rule(clause: Mapping[str, tuple[str, ...]]) -> TextRule:
    right = "right after" in clause
    return TextRule(clause.get("words", ()), clause.get("right after" if right else "after", ()), right)
