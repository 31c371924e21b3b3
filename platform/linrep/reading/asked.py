"""What came of asking: one image or text, one prompt, and everything that was read and answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from linrep.reading.attribution import Attributed
from linrep.reading.live import Answer, ChangedAnswer
from linrep.reading.read import Reading


@dataclass(frozen=True)
class LatentNote:
    """What is known of a latent from the features and interpretation stages.

    Attributes:
        explanation: When it fires, in words.
        attribute: What it separates best of image samples.
        value: The value of that.
        f1: How well, on samples that had no part in the choice.
        words: Words that its decoder row raises most.
    """

    explanation: str | None = None
    attribute: str | None = None
    value: str | None = None
    f1: float | None = None
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The explanation, or else the label, or else the words."""
        if self.explanation:
            return self.explanation
        if self.value is not None and self.f1 is not None:
            return f"{self.attribute} {self.value}, F1 {self.f1:.2f}"
        return f"raises {', '.join(word.strip() for word in self.words[:3])}" if self.words else "nothing is known of it"


@dataclass(frozen=True)
class Asked:
    """What came of asking.

    Attributes:
        prompt: The whole prompt, `<image>` where the image stood; of a text alone, the text in its prompt.
        name: What the image is called; empty without one.
        answer: What the model says.
        reading: What is read in the sequence.
        words: The vocabulary as readable text, by token.
        changed: Answers under edits, controls beside them.
        attributed: The latents that speak for the answer's first word; None without an SAE.
        latents: What is known of the latents that fire, by layer, SAE and latent.
        made_from: The artefacts that were used, by stage.
        notes: What a reader must know of this one.
        missing: What is left out, with the command that makes it.
    """

    prompt: str
    name: str
    answer: Answer
    reading: Reading
    words: tuple[str, ...]
    changed: tuple[ChangedAnswer, ...] = ()
    attributed: Attributed | None = None
    latents: Mapping[tuple[int, str, int], LatentNote] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
