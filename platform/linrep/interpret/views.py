"""What an explainer and a scorer are shown. What a view's latent really did on it stands in the trial, apart from the view."""

from dataclasses import dataclass, field
from typing import Literal

from linrep.contents.stored import Token
from linrep.store.layout import Modality

Task = Literal["detection", "fuzzing"]


@dataclass(frozen=True)
class View:
    """A sample as somebody sees it.

    Attributes:
        sample: Name of the sample.
        modality: Of its tokens that are meant.
        marks: Tokens that are pointed out.
        strengths: Activation at each mark, for those who explain; empty for those who judge.
        quiet: Tokens known to be silent, for those who explain.
        centre: Position that a window of text lies around; None for somewhere.
    """

    sample: str
    modality: Modality
    marks: tuple[Token, ...] = ()
    strengths: tuple[float, ...] = ()
    quiet: tuple[Token, ...] = ()
    centre: int | None = None


@dataclass(frozen=True)
class Trial:
    """A question with its right answer; the view alone goes to the scorer.

    Attributes:
        view: What is asked about.
        truth: Detection: whether the latent fires; fuzzing: whether the marks are where it fires.
        hard: A negative on which one of the nearest latents fires.
        quantile: Of the sample's activation; None where the latent is silent.
    """

    view: View
    truth: bool
    hard: bool = False
    quantile: int | None = None


@dataclass(frozen=True)
class Latent:
    """Which latent."""

    layer: int
    sae: str
    number: int


@dataclass(frozen=True)
class Evidence:
    """What the explainer sees of a latent.

    Attributes:
        active: Samples on which it fires, the strongest first, with marks where.
        silent: Samples on which it does not.
    """

    active: tuple[View, ...]
    silent: tuple[View, ...]


@dataclass(frozen=True)
class Case:
    """All that is asked about a latent.

    Attributes:
        latent: The latent.
        rates: Share of the tokens of each modality on which it fires.
        evidence: For the explainer.
        trials: For the scorer.
        found: Samples scored by overlap: marks where it fires, quiet where it does not.
    """

    latent: Latent
    rates: dict[Modality, float]
    evidence: Evidence
    trials: dict[tuple[Modality, Task], tuple[Trial, ...]]
    found: tuple[View, ...] = field(default=(), repr=False)

    def modalities(self) -> tuple[Modality, ...]:
        """Modalities in which something is asked."""
        return tuple(dict.fromkeys(modality for modality, _ in self.trials))
