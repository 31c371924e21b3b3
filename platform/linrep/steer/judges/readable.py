"""Whether a judge can read a model at all, from its unedited answers: reported before the runs are paid for, and in the headline.

An answer is read where the judge finds the image's own class in it: of these `turned` and `left` are shares. Where there are none
they do not exist, and where there are few they speak of few.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from linrep.corpora.names import not_words
from linrep.errors import RecipeError
from linrep.steer.names import spoken

FEW = 0.1
"""Share of unedited answers under which a judge reads few."""
READERS = ("words", "exact", "chat")
"""Judges that look for a class in an answer, and can be tried before the runs."""


@dataclass(frozen=True)
class Readable:
    """What a judge makes of the unedited answers about the class.

    Attributes:
        judge: Its kind.
        n: Unedited answers, each image's to each question once.
        named: Those in which it finds the image's own class.
        judged: Those of which it says anything.
        never: Classes of images whose own name it finds in no answer.
        example: An answer in which it does not find it: class, question, answer.
        why: Why there is no verdict on some.
    """

    judge: str
    n: int
    named: int
    judged: int
    never: tuple[str, ...] = ()
    example: tuple[str, str, str] | None = None
    why: str | None = None

    @property
    def share(self) -> float:
        """Of the unedited answers, those in which the judge finds the class."""
        return self.named / self.n if self.n else 0.0

    def lines(self) -> list[str]:
        """What the headline says of it."""
        if self.judge == "forced":
            return ["judge forced reads no answers: it scores by the probability of the target in the forced choice"]
        if not self.n:
            return [f"judge {self.judge}: there are no unedited answers about the class"]
        found = [f"judge {self.judge} finds the class in {self.named:,} of {self.n:,} unedited answers ({self.share:.0%})"]
        if self.judged < self.n:
            found[0] += f"; {self.n - self.judged:,} have no verdict" + (f" ({self.why})" if self.why else "")
        if self.named and self.share < FEW:
            found.append(f"shares of answers turned speak of these {self.share:.0%} alone; {self._example()}")
        if self.never and self.named:
            some = ", ".join(map(repr, self.never[:8])) + (" ..." if len(self.never) > 8 else "")
            found.append(f"no unedited answer names {len(self.never)} of the source classes: {some}")
        return found

    def _example(self) -> str:
        if self.example is None:
            return "no answer was given"
        name, question, text = self.example
        return f"for example, of {name!r} to {question!r} it says {_short(text)!r}"

    def refuse(self) -> None:
        """Stop before anything is paid for that could not be read.

        Raises:
            RecipeError: No unedited answer can be read.
        """
        if self.judge in READERS and self.n and not self.named:
            why = f"; {self.why}" if self.why else ""
            raise RecipeError(
                f"steer.judge {self.judge} finds the class in none of {self.n:,} unedited answers: {self._example()}{why}. "
                "Nothing was run. Ask otherwise (steer.ask.questions), take another judge or class names that are said, or set "
                "steer.insist to run all the same"
            )


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


def readable(judge: str, verdicts: Sequence[Mapping[str, Any]], questions: Sequence[str]) -> Readable:
    """How a judge reads the unedited answers.

    Args:
        judge: Its kind.
        verdicts: Rows of schema `VERDICTS`.
        questions: What was asked, by number.
    """
    plain = [row for row in verdicts if row["edit"] == "none" and row["about"] == "class" and row["text"] is not None]
    # An image of several pairs is asked the same thing again, but the judge may look for another target.
    rows = list({(row["source"], row["sample_id"], row["question"]): row for row in plain}.values())
    named = [row for row in rows if row["score"] == -1]
    other = [row for row in rows if row["score"] != -1]
    seen = Counter(row["source"] for row in named)
    example = min(other, key=lambda row: (seen[row["source"]], not row["text"]), default=None)
    return Readable(
        judge,
        len(rows),
        len(named),
        sum(row["score"] is not None for row in rows),
        tuple(sorted({row["source"] for row in rows} - seen.keys())),
        None if example is None else (spoken(str(example["source"])), str(questions[example["question"]]), str(example["text"])),
        next((row["error"] for row in other if row["score"] is None and row["error"]), None),
    )


@dataclass(frozen=True)
class Names:
    """Names of a plan's classes that are no words.

    Attributes:
        bad: These.
        n: Classes of the plan.
    """

    bad: tuple[str, ...] = field(default=())
    n: int = 0

    @property
    def lines(self) -> list[str]:
        """What the headline says of it."""
        return [f"{self._said()}: no answer and no question can be expected to hold them"] if self.bad else []

    def refuse(self) -> None:
        """Stop before questions are asked about names that nobody says.

        Raises:
            RecipeError: There are such names.
        """
        if self.bad:
            raise RecipeError(
                f"steer.pairs: {self._said()}: a question cannot ask for them and no answer says them. Give the classes names "
                "(classes.json beside the folders, corpora.images.names), take other classes, or set steer.insist"
            )

    def _said(self) -> str:
        some = ", ".join(map(repr, self.bad[:5])) + (" ..." if len(self.bad) > 5 else "")
        return f"{len(self.bad)} of {self.n} class names are no words: {some}"


def names_of(pairs: Sequence[tuple[str, str]]) -> Names:
    """The names of a plan that are no words."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    return Names(tuple(name for name in names if not_words([spoken(name)])), len(names))
