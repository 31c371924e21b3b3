"""What a judge is given and what it says, on the paper's scale."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

SCALE = (-1.0, 0.0, 0.25, 0.5, 0.75, 1.0)
"""-1: of the original class. 0: of neither. 1: of the target; .25, .5, .75: more and more of it. Source: the paper."""


@dataclass(frozen=True)
class Answer:
    """An answer to judge.

    Attributes:
        text: What the model said under the edit.
        plain: What it says to the same question without an edit.
        source: Class of the image.
        target: Class that the edit leads to.
        question: What was asked.
        about: What the question asks for: class, or another attribute.
        p_target: Probability of the target in the forced choice under the same edit.
    """

    text: str
    plain: str
    source: str
    target: str
    question: str
    about: str = "class"
    p_target: float | None = None

    @property
    def key(self) -> str:
        """A name that equal answers share, whatever run they come from; the forced choice plays no part."""
        value = {name: x for name, x in asdict(self).items() if name != "p_target"}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an answer.

    Attributes:
        score: On `SCALE`; None where the question is not about the class, or there is no verdict.
        coherence: 0 no sensible answer .. 1 a sensible one; None where the judge cannot say.
        kept: Whether another attribute is answered as it is without the edit; None for questions about the class.
        error: Why there is no verdict.
    """

    score: float | None = None
    coherence: float | None = None
    kept: bool | None = None
    error: str | None = None


Judge = Callable[[Sequence[Answer]], list[Verdict]]


@runtime_checkable
class JobJudge(Protocol):
    """A judge with what a job must know: whether it can begin, whether its verdicts are final, and what else there is to say."""

    def __call__(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Verdicts in the order of the answers."""
        ...

    def check(self) -> None:
        """Make sure that it can judge; asked before anything is run.

        Raises:
            LinrepError: It cannot; one line says what to do.
        """
        ...

    @property
    def source(self) -> str | None:
        """Names what verdicts are read from, where that may change between two runs of the same recipe."""
        ...

    @property
    def waiting(self) -> str | None:
        """What must happen before the last verdicts are final; None where they are."""
        ...

    @property
    def extra(self) -> dict[str, Any]:
        """What else there is to say of the last verdicts."""
        ...


def on_scale(value: float) -> float:
    """The step of the scale next to a number from -1 to 1; of two equally near, the one nearer to 0."""
    return min(SCALE, key=lambda step: (abs(step - value), abs(step)))
