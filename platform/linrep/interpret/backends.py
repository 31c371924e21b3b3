"""What explains latents and judges explanations, whatever it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from linrep.interpret.views import Evidence, Task, View
from linrep.store.layout import Modality


@dataclass(frozen=True)
class Said:
    """An explanation, or why there is none."""

    text: str | None
    error: str | None = None


@dataclass(frozen=True)
class Effort:
    """What answering takes.

    Attributes:
        calls: Requests.
        prompt_tokens: Tokens in them.
        completion_tokens: Tokens of the answers.
        cost: By the recipe's prices.
        cached: Of all questions, those that were answered before.
        uncounted: Attempts whose tokens are not known: the cost is above what stands here.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    cached: int = 0
    uncounted: int = 0

    def __str__(self) -> str:
        price = f", cost {self.cost:,.2f}" if self.cost else ""
        known = f", {self.cached:,} answered before" if self.cached else ""
        unknown = f", and {self.uncounted:,} attempts whose cost is not known" if self.uncounted else ""
        return f"{self.calls:,} calls, {self.prompt_tokens:,} + {self.completion_tokens:,} tokens{price}{known}{unknown}"


@runtime_checkable
class Interpreter(Protocol):
    """Explains latents, and says by an explanation alone when a latent fires. Several threads may use it at once."""

    @property
    def source(self) -> str:
        """What tables call it."""
        ...

    @property
    def parallel(self) -> int:
        """Questions that it takes at once."""
        ...

    @property
    def batch(self) -> int:
        """Views that it judges in one question."""
        ...

    @property
    def needs_images(self) -> bool:
        """Whether it looks at pixels."""
        ...

    def check(self) -> None:
        """Make sure that it can answer.

        Raises:
            LinrepError: It cannot; the message says what to do.
        """
        ...

    def explain(self, evidence: Evidence) -> Said:
        """When the latent fires, in words."""
        ...

    def judge(self, task: Task, explanation: str, views: Sequence[View]) -> list[bool | None]:
        """Detection: whether a latent so explained fires in each view; fuzzing: whether the marks are where it fires."""
        ...

    def alike(self, one: str, other: str, modality: Modality) -> bool:
        """Whether two explanations say the same of a modality."""
        ...

    def refuse(self, explanation: str) -> str | None:
        """Why an explanation that a person wrote cannot be judged; None where it can."""
        ...

    def estimate(self, explained: Sequence[Evidence], asked: Sequence[Sequence[View]]) -> Effort:
        """What it will take to explain and to judge some batches of views, before anything is asked."""
        ...

    def spent(self) -> Effort:
        """What was asked so far."""
        ...
