"""What the model is asked, in SmolLM2's own markup; every answer begins with the word that is asked for."""

from dataclasses import dataclass

from linrep.demo.language import caption
from linrep.demo.scene import Scene

START, END = "<|im_start|>", "<|im_end|>"
IMAGE_TOKEN = "<image>"
BEFORE = f"{START}user\n"
"""What stands before the image."""


@dataclass(frozen=True)
class Question:
    """A question about a scene, the words that its answer begins with, and what it is about."""

    asked: str
    cue: str
    about: str

    @property
    def after(self) -> str:
        """What stands after the image, up to where the answer goes on."""
        return f"\n{self.asked}{END}\n{START}assistant\n{self.cue}"

    @property
    def prompt(self) -> str:
        """The whole prompt."""
        return f"{BEFORE}{IMAGE_TOKEN}{self.after}"

    def answer(self, scene: Scene) -> str:
        """The right one, without the end token: " boat." """
        said = caption(scene).removesuffix(" .") if self.about == "scene" else getattr(scene.main, self.about)
        return f" {said}."


WHAT = Question("What is in the picture?", "The picture shows the", "object")
COLOUR = Question("What colour is it?", "It is", "colour")
GROUND = Question("Where is it?", "It is on the", "ground")
DESCRIBE = Question("Describe the picture.", "The picture shows", "scene")
QUESTIONS = WHAT, COLOUR, GROUND, DESCRIBE
