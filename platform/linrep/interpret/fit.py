"""The rule that agrees best with what an explainer is shown: every short one is tried, and ties go to the shorter."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from linrep.interpret.rule import ZONES, PictureRule, TextRule, zone

COST = 0.01
"""What a further value must add to the balanced accuracy on what is shown."""
LEADING = 3
"""Values of either attribute in a rule of two."""

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


def balanced(yes: Sequence[bool], no: Sequence[bool]) -> float:
    """Balanced accuracy of answers to positives and to negatives; of one kind alone the half that is missing counts one half."""
    sensitivity = sum(yes) / len(yes) if yes else 0.5
    specificity = 1 - sum(no) / len(no) if no else 0.5
    return (sensitivity + specificity) / 2


def fit_picture(active: Sequence[Attributes], silent: Sequence[Attributes], names: Sequence[str], n_values: int) -> PictureRule:
    """Which pictures: values of one attribute, or of two together.

    Args:
        active: Attributes of pictures on which the latent fires.
        silent: Of those on which it does not.
        names: Attributes that may be named.
        n_values: Values of an attribute at most.
    """
    best, most = PictureRule(), balanced([True] * len(active), [True] * len(silent))
    for rule in _picture_rules(active, silent, names, n_values):
        cost = COST * (sum(len(values) for _, values in rule.conditions) + len(rule.conditions))
        agreement = balanced([rule.fits(a) for a in active], [rule.fits(a) for a in silent]) - cost
        if agreement > most + 1e-9:
            best, most = rule, agreement
    return best


def _picture_rules(
    active: Sequence[Attributes], silent: Sequence[Attributes], names: Sequence[str], n_values: int
) -> Iterator[PictureRule]:
    for name in names:
        for values in _prefixes([a[name] for a in active if name in a], [a[name] for a in silent if name in a], n_values):
            yield PictureRule(((name, values),))
    for first, second in permutations(names, 2):
        for values in _prefixes([a[first] for a in active if first in a], [a[first] for a in silent if first in a], LEADING):
            left, right = ([a[second] for a in some if second in a and a.get(first) in values] for some in (active, silent))
            for others in _prefixes(left, right, LEADING):
                yield PictureRule(((first, values), (second, others)))


def _prefixes(active: Sequence[str], silent: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """The likeliest values among the active, 1 .. n of them: the set that separates best is one of these."""
    yes, no = Counter(active), Counter(silent)
    order = sorted(yes, key=lambda v: (-(yes[v] + 0.5) / (no[v] + 0.5), -yes[v], v))
    for size in range(1, min(n, len(order)) + 1):
        yield tuple(sorted(order[:size]))


def fit_zones(marked: Iterable[float], quiet: Iterable[float]) -> tuple[str, ...]:
    """Where in the pictures.

    Args:
        marked: Share of each patch on which the latent fires that the object covers.
        quiet: Likewise of patches of the same pictures on which it is silent.
    """
    yes, no = [zone(share) for share in marked], [zone(share) for share in quiet]
    if not yes or not no:
        return ZONES
    best, most = ZONES, 0.5
    for bits in range(1, 2 ** len(ZONES) - 1):
        zones = tuple(z for i, z in enumerate(ZONES) if bits >> i & 1)
        agreement = balanced([z in zones for z in yes], [z in zones for z in no]) - COST * len(zones)
        if agreement > most + 1e-9:
            best, most = zones, agreement
    return best


def fit_text(active: Sequence[Spoken], silent: Sequence[Spoken], n_values: int) -> TextRule | None:
    """Which words, and after which; None where it fires on no word that is shown.

    What counts is the mean of two agreements: whether the rule fires in the right texts, and on the right words of those.
    """
    fired = [w for s in active for w, f in zip(s.words, s.fires, strict=True) if f]
    calm = [w for s in (*active, *silent) for w, f in zip(s.words, s.fires, strict=True) if not f]
    best, most = None, -1.0
    for words in _prefixes(fired, calm, n_values):
        contexts = [(after, right) for right in (False, True) for after in _contexts(active, silent, words, n_values, right)]
        for after, right in (((), False), *contexts):
            rule = TextRule(words, after, right)
            agreement = _agreement(rule, active, silent) - COST * (len(words) + len(after))
            if agreement > most + 1e-9:
                best, most = rule, agreement
    return best


def _contexts(
    active: Sequence[Spoken], silent: Sequence[Spoken], words: tuple[str, ...], n_values: int, right: bool
) -> Iterator[tuple[str, ...]]:
    """Words that stand before (or right before) those on which it fires, and not before the same words where it is silent."""
    before: tuple[list[str], list[str]] = ([], [])
    for spoken in (*active, *silent):
        for i, (word, fires) in enumerate(zip(spoken.words, spoken.fires, strict=True)):
            if word in words:
                before[0 if fires else 1].extend(set(spoken.words[max(i - 1, 0) if right else 0 : i]))
    return _prefixes(*before, n_values)


def _agreement(rule: TextRule, active: Sequence[Spoken], silent: Sequence[Spoken]) -> float:
    in_active, in_silent = ([rule.fires(s.words) for s in some] for some in (active, silent))
    texts = balanced([any(f) for f in in_active], [any(f) for f in in_silent])
    said = [(f, known) for s, own in zip(active, in_active, strict=True) for f, known in zip(own, s.fires, strict=True)]
    tokens = balanced([f for f, known in said if known], [f for f, known in said if known is False])
    return (texts + tokens) / 2
