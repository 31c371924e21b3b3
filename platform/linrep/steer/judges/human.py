"""A judge made of people: a shuffled sheet of four-way choices goes out as CSV, comes back filled in, and is compared.

The sheet shows the answer and four classes in a drawn order: the source, the target, and two distractors. Who fills it in cannot
know which is which, nor which edit made the answer.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from linrep.errors import RecipeError
from linrep.places import Place
from linrep.sample import unit_hash
from linrep.steer.config import Human
from linrep.steer.intervals import estimate
from linrep.steer.judges.readers import by_words
from linrep.steer.judges.verdict import Answer, Verdict

CHOICES = ("A", "B", "C", "D")
NONE = "none"
MIX = "mix"
COLUMNS = ("item", "question", "answer", *CHOICES, "choice", "sensible")
HEAD = "choice: A, B, C or D for what the answer describes; none; or mix for two of them. sensible: yes or no."


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
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key in order:
        answer = distinct[key]
        writer.writerow([key, _safe(answer.question), _safe(answer.text), *options(answer, classes, seed), "", ""])
    file.write_bytes(out.getvalue().encode())
    return len(order)


def _check_number(classes: Sequence[str]) -> None:
    if len(set(classes)) < 4:
        raise RecipeError(f"a four-way sheet needs four classes, there are {len(set(classes))}: take another steer.judge")


def options(answer: Answer, classes: Sequence[str], seed: int = 0) -> list[str]:
    """The four classes of an answer's row: the same whenever asked for, so that the sheet need not say which is which."""
    others = [c for c in sorted(set(classes)) if c not in (answer.source, answer.target)]
    others.sort(key=lambda c: unit_hash(c, f"{answer.key} {seed}"))
    four = [answer.source, answer.target, *others[:2]]
    return sorted(four, key=lambda c: unit_hash(c, f"place {answer.key} {seed}"))


def read_sheet(file: Place, answers: Sequence[Answer], classes: Sequence[str], seed: int = 0) -> dict[str, Verdict]:
    """Verdicts by the answers' keys; rows that were left empty give none.

    Raises:
        RecipeError: The file is no such sheet, or a cell holds something else than asked for; the line is named.
    """
    known = {answer.key: answer for answer in answers}
    found: dict[str, Verdict] = {}
    for line, row in enumerate(_rows(file), start=2):
        choice, sensible = ((row[name] or "").strip().lower() for name in ("choice", "sensible"))
        if not choice:
            continue
        if row["item"] not in known:
            raise RecipeError(f"{file} line {line}: no answer {row['item']!r} in this artefact")
        if choice not in (*(c.lower() for c in CHOICES), NONE, MIX):
            raise RecipeError(f"{file} line {line}: choice is {choice!r}, it should be A, B, C, D, {NONE} or {MIX}")
        if sensible not in ("yes", "no", ""):
            raise RecipeError(f"{file} line {line}: sensible is {sensible!r}, it should be yes or no")
        answer = known[row["item"]]
        shown = options(answer, classes, seed)
        picked = shown["abcd".index(choice)] if choice in "abcd" else choice
        score = {answer.source: -1.0, answer.target: 1.0, MIX: 0.5}.get(picked, 0.0)
        found[answer.key] = Verdict(score=score, coherence={"yes": 1.0, "no": 0.0, "": None}[sensible])
    return found


def unfilled(file: Place) -> tuple[int, int]:
    """How many rows of a sheet have no choice yet, and how many it has.

    Raises:
        RecipeError: The file is no such sheet.
    """
    rows = _rows(file)
    return sum(not (row["choice"] or "").strip() for row in rows), len(rows)


def _rows(file: Place) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"cannot read the sheet {file}: {error}") from None
    if not rows or any(name not in rows[0] for name in COLUMNS):
        raise RecipeError(f"{file} is no sheet: it should have the columns {', '.join(COLUMNS)}")
    return rows


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
        """See to it that there are distractors.

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
        found = read_sheet(self.file, answers, self.classes)
        empty, n = unfilled(self.file)
        todo = f"{empty} of {n} rows of {self.file} have no choice yet: fill them in, then run the same command"
        self.waiting = todo if empty else None
        # What the rules would have said of the same answers, to see how far they can be trusted.
        asked = [answer for answer in answers if answer.key in found]
        rules = {answer.key: verdict for answer, verdict in zip(asked, by_words(asked), strict=True)}
        shown = asdict(agreement(found, rules))
        self.extra = {"agreement_with_words": {k: v if v == v else None for k, v in shown.items()}}  # NaN, which JSON lacks
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


def _safe(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
