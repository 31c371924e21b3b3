"""A judge made of people: a shuffled sheet of four-way choices goes out as CSV, comes back filled in, and is compared.

The sheet shows the answer and four classes in a drawn order: the source, the target, and two distractors. Who fills it in cannot
know which is which, nor which edit made the answer.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from linrep.errors import RecipeError
from linrep.places import Place
from linrep.sample import unit_hash
from linrep.sheets import read_csv, write_csv
from linrep.steer.config import Human
from linrep.steer.intervals import estimate
from linrep.steer.judges.readers import by_words
from linrep.steer.judges.verdict import Answer, Verdict

CHOICES = ("A", "B", "C", "D")
NONE = "none"
MIX = "mix"
COLUMNS = ("item", "question", "answer", *CHOICES, "choice", "sensible")
SENSIBLE = {"yes": 1.0, "y": 1.0, "true": 1.0, "no": 0.0, "n": 0.0, "false": 0.0, "": None}
HEAD = "choice: A, B, C or D for what the answer describes; none; or mix for two of them. sensible: yes or no."
_DIGITS, _LETTERS = "0123456789abcdef", "abcdefghijklmnop"


def write_sheet(answers: Sequence[Answer], classes: Sequence[str], file: Place, max_answers: int = 400, seed: int = 0) -> int:
    """Write the sheet; returns how many answers are on it.

    Args:
        answers: Answers about the class; equal ones stand there once.
        classes: Where distractors come from, four at least.
        file: The CSV.
        max_answers: Rows at most, drawn by a hash.
        seed: Of the order and the distractors.

    Raises:
        RecipeError: There are fewer than four classes.
    """
    _check_number(classes)
    distinct = {answer.key: answer for answer in answers if answer.about == "class"}
    order = sorted(distinct, key=lambda key: unit_hash(key, f"sheet {seed}"))[:max_answers]
    rows = [(distinct[key].question, distinct[key].text, *options(distinct[key], classes, seed), "", "") for key in order]
    write_csv(file, COLUMNS, [(item_of(key), *row) for key, row in zip(order, rows, strict=True)])
    return len(order)


def item_of(key: str) -> str:
    """An answer's key in letters alone: a spreadsheet takes 99893267e9313770 for a number.

    >>> item_of("09af")
    'ajkp'
    """
    return key.translate(str.maketrans(_DIGITS, _LETTERS))


def _check_number(classes: Sequence[str]) -> None:
    if len(set(classes)) < 4:
        raise RecipeError(f"a four-way sheet needs four classes, there are {len(set(classes))}: take another steer.judge")


def options(answer: Answer, classes: Sequence[str], seed: int = 0) -> list[str]:
    """The four classes of an answer's row: the same whenever asked for, so that the sheet need not say which is which."""
    others = [c for c in sorted(set(classes)) if c not in (answer.source, answer.target)]
    others.sort(key=lambda c: unit_hash(c, f"{answer.key} {seed}"))
    four = [answer.source, answer.target, *others[:2]]
    return sorted(four, key=lambda c: unit_hash(c, f"place {answer.key} {seed}"))


class Filled(NamedTuple):
    """A sheet as it came back.

    Attributes:
        verdicts: By the answers' keys.
        refused: A line for each row that cannot be read.
        empty: Rows without a choice yet.
        n: Rows.
    """

    verdicts: dict[str, Verdict]
    refused: list[str]
    empty: int
    n: int


def read_filled(file: Place, answers: Sequence[Answer], classes: Sequence[str], seed: int = 0) -> Filled:
    """What people filled in; a damaged row is refused by its line and costs no other.

    Raises:
        RecipeError: The file is no such sheet, or none of the rows that were filled in can be read.
    """
    known = {item_of(answer.key): answer for answer in answers}
    table = read_csv(file, COLUMNS)
    found: dict[str, Verdict] = {}
    lines: dict[str, int] = {}
    refused, empty = list(table.damaged), 0
    for row in table.rows:
        item, choice, sensible = (_word(row.cells[name]) for name in ("item", "choice", "sensible"))
        why = None
        if item not in known:
            why = f"no answer {row.cells['item']!r} in this artefact"
        elif not choice:
            empty += 1
            continue
        elif choice not in (*(c.lower() for c in CHOICES), NONE, MIX):
            why = f"choice is {choice!r}, it should be A, B, C, D, {NONE} or {MIX}"
        elif sensible not in SENSIBLE:
            why = f"sensible is {sensible!r}, it should be yes or no"
        if why is not None:
            refused.append(f"line {row.line}: {why}")
            continue
        answer = known[item]
        shown = options(answer, classes, seed)
        picked = shown["abcd".index(choice)] if choice in "abcd" else choice
        named = {answer.source: -1.0, answer.target: 1.0}
        score = (named if choice in "abcd" else {MIX: 0.5}).get(picked, 0.0)
        verdict = Verdict(score=score, coherence=SENSIBLE[sensible])
        if lines.setdefault(answer.key, row.line) != row.line and found.get(answer.key) != verdict:
            refused.append(f"lines {lines[answer.key]} and {row.line}: the answer {item!r} stands there twice, with two verdicts")
            found.pop(answer.key, None)
            continue
        found[answer.key] = verdict
    if refused and not found and not empty:
        raise RecipeError(f"{file} {refused[0]}" + (f"; and {len(refused) - 1} more" if len(refused) > 1 else ""))
    return Filled(found, refused, empty, len(table.rows) + len(table.damaged))


def read_sheet(file: Place, answers: Sequence[Answer], classes: Sequence[str], seed: int = 0) -> dict[str, Verdict]:
    """The verdicts of `read_filled`, which also says what is refused and what is empty.

    Raises:
        RecipeError: As there.
    """
    return read_filled(file, answers, classes, seed).verdicts


def _word(cell: str) -> str:
    """What a person typed, without the marks and spaces around it, in small letters of usual width."""
    return unicodedata.normalize("NFKC", cell).strip().strip(".,;:()[]'\"` ").lower()


@dataclass
class People:
    """People as a judge: their sheet is written where it is missing, and read as it is whenever the job runs.

    Attributes:
        config: The sheet.
        file: Where it lies.
        classes: Where distractors come from.
    """

    config: Human
    file: Place
    classes: Sequence[str]
    extra: dict[str, Any] = field(default_factory=dict, init=False)
    waiting: str | None = field(default=None, init=False)

    def check(self) -> None:
        """Make sure that there are distractors.

        Raises:
            RecipeError: There are fewer than four classes.
        """
        _check_number(self.classes)

    @property
    def source(self) -> str | None:
        """Names the sheet's content."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()[:10] if self.file.is_file() else None

    def __call__(self, answers: Sequence[Answer]) -> list[Verdict]:
        """What the sheet says; answers that are not on it, or not filled in yet, have no verdict."""
        if not self.file.is_file():
            n = write_sheet(answers, self.classes, self.file, self.config.max_answers)
            self.waiting = f"{n} answers are on {self.file}: fill in choice and sensible, then run the same command"
            return [Verdict(error="nobody has judged it yet") for _ in answers]
        filled = read_filled(self.file, answers, self.classes)
        found = filled.verdicts
        todo = f"{filled.empty} of {filled.n} rows of {self.file} have no choice yet: fill them in, then run the same command"
        self.waiting = todo if filled.empty else None
        # What the rules would have said of the same answers, to see how far they can be trusted.
        asked = [answer for answer in answers if answer.key in found]
        rules = {answer.key: verdict for answer, verdict in zip(asked, by_words(asked), strict=True)}
        shown = asdict(agreement(found, rules))
        self.extra = {"agreement_with_words": {k: v if v == v else None for k, v in shown.items()}}  # NaN, which JSON lacks
        if filled.refused:
            self.extra["sheet"] = {"rows": filled.n, "refused": len(filled.refused), "why": "; ".join(filled.refused[:5])}
        return [found.get(answer.key, Verdict(error="not on the sheet, or not filled in")) for answer in answers]


@dataclass(frozen=True)
class Agreement:
    """How far two judges agree.

    Attributes:
        n: Answers that both judged.
        share: Share of them with the same score.
        low: Lower end of its 95% interval (Wilson's, over answers).
        high: Upper end.
        kappa: Cohen's kappa: 0 as much agreement as chance gives, 1 complete; NaN where both always say the same one thing.
    """

    n: int
    share: float
    low: float
    high: float
    kappa: float


def agreement(one: dict[str, Verdict], other: dict[str, Verdict]) -> Agreement:
    """Agreement of two judges' scores on the answers that both judged.

    Source: Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    both = [key for key in one if key in other and one[key].score is not None and other[key].score is not None]
    a, b = (np.array([judge[key].score for key in both], float) for judge in (one, other))
    if not len(both):
        return Agreement(0, *(float("nan"),) * 4)
    same = (a == b).astype(float)
    index: Int[np.ndarray, " n"] = np.arange(len(both))
    found = estimate(np.zeros_like(index), np.zeros_like(index), index, same, "share")
    chance = sum(float((a == step).mean() * (b == step).mean()) for step in np.unique(np.concatenate([a, b])))
    kappa = (found.value - chance) / (1 - chance) if chance < 1 else float("nan")
    return Agreement(len(both), found.value, found.low, found.high, kappa)
