"""A model on this machine as explainer and scorer. It takes one image a prompt, so several come as one sheet."""

import io
from collections.abc import Sequence

import torch
from PIL import Image

from linrep.contents.stored import Contents
from linrep.interpret.backends import Effort, Said
from linrep.interpret.config import Local
from linrep.interpret.images import sheet, sized
from linrep.interpret.prompts import Part, explain_parts, judge_parts, read_explanation, read_judgement
from linrep.interpret.views import Evidence, Task, View
from linrep.reply import after_thinking
from linrep.sample import Sample, Skipped
from linrep.store.layout import Modality
from linrep.vlm.config import IMAGE, TEXT, ModelConfig
from linrep.vlm.decode import alone, at_last, decode, embed, greedy, logits, run
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer

LONGEST = 4096
"""Tokens of a request."""


class LocalBackend:
    """A model of one's own; answers one view at a time, greedily.

    Args:
        config: Which model, and how it is asked.
        contents: Images and texts.
    """

    parallel, batch, needs_images = 1, 1, True

    def __init__(self, config: Local, contents: Contents) -> None:
        self._config, self._contents = config, contents
        self.source = f"local:{config.path}"
        self._vlm: VLM | None = None
        self._calls = self._read = self._said = 0

    def check(self) -> None:
        """Load the model.

        Raises:
            ModelError: It cannot be loaded.
        """
        self._vlm = load(
            ModelConfig(path=self._config.path, revision=self._config.revision), None, self._config.device, self._config.precision
        )
        form = self._config.prompt.replace("{request}", TEXT)
        alone = form.replace(f"{IMAGE}\n", "").replace(IMAGE, "")
        self._preparer = Preparer(
            self._vlm.processor, self._vlm.card, pair_prompt=form, text_prompt=alone, max_text_tokens=LONGEST
        )

    def explain(self, evidence: Evidence) -> Said:
        """What the model says; JSON if it can, else its first line."""
        said = self._ask(explain_parts(evidence, self._contents))
        try:
            return Said(read_explanation(said))
        except ValueError as error:
            line = next((line.strip() for line in after_thinking(said).splitlines() if line.strip()), "")
            return Said(line) if line else Said(None, str(error))

    def judge(self, task: Task, explanation: str, views: Sequence[View]) -> list[bool | None]:
        """The model's answers; none where it says neither yes nor no."""
        found: list[bool | None] = []
        for view in views:
            try:
                found += read_judgement(self._ask(judge_parts(task, explanation, [view], self._contents)), 1)
            except ValueError:
                found.append(None)
        return found

    @torch.inference_mode()
    def _ask(self, parts: Sequence[Part]) -> str:
        """What the model says to some texts and images; empty where the request is too long for it."""
        if self._vlm is None:
            self.check()
        assert self._vlm is not None
        vlm = self._vlm
        images = [part for part in parts if isinstance(part, Image.Image)]
        # The prompt's own placeholder is in the form; a corpus' text must not bring another one.
        text = "\n".join(part.replace(IMAGE, "") if isinstance(part, str) else "(see the image)" for part in parts)
        sample = Sample(id="request", corpus="pairs", modality="pair" if images else "text", uri="", split="test", text=text)
        if images:
            out = io.BytesIO()
            (sized(images[0]) if len(images) == 1 else sheet(images)).save(out, "PNG")
            sample = Sample(sample.id, sample.corpus, sample.modality, "", "test", text=text, image=out.getvalue())
        prepared = self._preparer(sample)
        if isinstance(prepared, Skipped):
            return ""
        stream, real = alone(embed(vlm, [prepared])[0])
        context, hidden = run(vlm, stream, real)
        said = greedy(vlm, context, logits(vlm, at_last(hidden, real)), self._config.max_new_tokens)
        self._calls, self._read, self._said = self._calls + 1, self._read + len(prepared), self._said + len(said[0])
        return decode(vlm, said)[0]

    def alike(self, one: str, other: str, modality: Modality) -> bool:
        """Whether both are the same sentence."""
        return one.strip().lower() == other.strip().lower()

    def refuse(self, explanation: str) -> str | None:
        """Any sentence will do."""
        return None

    def estimate(self, explained: Sequence[Evidence], asked: Sequence[Sequence[View]]) -> Effort:
        """Calls, and completion at most; what a sheet of images takes depends on the model."""
        calls = len(explained) + sum(map(len, asked))
        return Effort(calls, 0, calls * self._config.max_new_tokens)

    def spent(self) -> Effort:
        """What was run."""
        return Effort(self._calls, self._read, self._said)
