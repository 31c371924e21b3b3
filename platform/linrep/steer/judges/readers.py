"""Judges that read with rules: whole words, the embedded world's parser, and the forced choice, which does not read at all."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from linrep.demo.language import parse_answer
from linrep.steer.judges.verdict import Answer, Judge, Verdict, on_scale


@dataclass(frozen=True)
class Rules:
    """A judge that reads with rules: always there, and final at once.

    Attributes:
        rule: How it reads.
    """

    rule: Judge
    source: str | None = None
    waiting: str | None = None

    def __call__(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Verdicts in the order of the answers."""
        return self.rule(answers)

    def check(self) -> None:
        """Rules are always there."""

    @property
    def extra(self) -> dict[str, Any]:
        """Nothing."""
        return {}


def by_words(answers: Sequence[Answer]) -> list[Verdict]:
    """Looks for the two names as whole words, in any case, also in the plural ("boats", "cherries", "leaves").

    Only the target named: 1. Only the source: -1. Both: 0.5. None: 0. Another attribute is kept where the words of the answer are
    the same as without the edit. Coherence is the share of word triples that are no repeats; 0 for an empty answer.
    """
    return [
        Verdict(score=_score(_names(a.source, a.text), _names(a.target, a.text)), coherence=unrepeated(a.text))
        if a.about == "class"
        else Verdict(kept=_words(a.text) == _words(a.plain), coherence=unrepeated(a.text))
        for a in answers
    ]


def by_parser(answers: Sequence[Answer]) -> list[Verdict]:
    """Reads the embedded world's sentences exactly, as `parse_answer` says; they are coherent where they are well formed.

    Scores as `by_words`; colours and grounds are kept where the answer names just what it names without the edit.
    """
    found = []
    for answer in answers:
        now, before = parse_answer(answer.text), parse_answer(answer.plain)
        coherence = float(now.well_formed)
        if answer.about == "class":
            score = _score(answer.source in now.objects, answer.target in now.objects)
            found.append(Verdict(score=score, coherence=coherence))
        else:
            field = f"{answer.about}s"
            if field not in ("colours", "grounds", "objects"):
                found.append(Verdict(error=f"the embedded world has no attribute {answer.about!r}: colour, ground or object"))
                continue
            same = bool(getattr(now, field)) and getattr(now, field) == getattr(before, field)
            found.append(Verdict(kept=same, coherence=coherence))
    return found


def by_choice(answers: Sequence[Answer]) -> list[Verdict]:
    """Scores by the forced choice: the step of the scale next to 2 p - 1. It cannot read coherence, nor other attributes."""
    return [
        Verdict(error=None if a.about != "class" else "the forced choice has no result")
        if a.p_target is None or a.about != "class"
        else Verdict(score=on_scale(2 * a.p_target - 1))
        for a in answers
    ]


def unrepeated(text: str) -> float:
    """The share of word triples that occur for the first time; 1 where there are none to compare, 0 for an empty text.

    >>> unrepeated("a red boat"), unrepeated(""), unrepeated("a a a a a")
    (1.0, 0.0, 0.3333333333333333)
    """
    words = _words(text)
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    if not words:
        return 0.0
    return len(set(triples)) / len(triples) if triples else 1.0


def _score(source: bool, target: bool) -> float:
    return {(True, False): -1.0, (False, True): 1.0, (True, True): 0.5, (False, False): 0.0}[source, target]


def _names(name: str, text: str) -> bool:
    """Whether a text holds a name: its words in a row, in any case; spaces, hyphens and other marks between them count alike."""
    name, text = _even(name), _even(text)
    if any(unicodedata.category(c) == "Lo" for c in name):  # a script without spaces or with endings of its own
        return name in text
    words = re.findall(r"\w+", name)
    if not words:
        return False
    last = words[-1]
    plural = {"y": f"|{last[:-1]}ies", "f": f"|{last[:-1]}ves"}.get(last[-1], f"|{last[:-2]}ves" if last.endswith("fe") else "")
    row = _BETWEEN.join([*words[:-1], f"(?:{last}(?:s|es)?{plural})"])
    return re.search(rf"(?<!\w){row}(?!\w)", text) is not None


_BETWEEN = r"[\s_\-\u2010-\u2015'’.]*"


def _even(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
