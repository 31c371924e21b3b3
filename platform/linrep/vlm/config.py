"""Which model: the section of a recipe that names it. Imports neither torch nor transformers."""

from typing import Literal

from pydantic import Field

from linrep.config import Section
from linrep.sample import IMAGE


class ModelConfig(Section):
    """A vision-language model, as a folder on disk or in a bucket, or as a name on the Hugging Face hub."""

    path: str = Field(
        min_length=1,
        description="Folder written by save_pretrained (on disk or in a bucket), or hub name: llava-hf/llava-v1.6-mistral-7b-hf.",
    )
    revision: str | None = Field(
        default=None, description="Commit, tag or branch on the hub; pin a commit to keep results comparable. Unused for folders."
    )
    quantization: Literal["8bit", "4bit"] | None = Field(
        default=None, description="Round the weights to 8 or 4 bits while loading (bitsandbytes); another model by its digest."
    )


class Turn(Section):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks: system, user or assistant.")
    content: str = Field(min_length=1, description="What is said; <image> shows the image there.")


TEXT = "{text}"
PLACEHOLDERS = IMAGE, TEXT
"""What a prompt holds in the place of the image and of the text or caption."""


def check_prompt(prompt: str, *wanted: str) -> str:
    """The prompt, if it holds the wanted placeholders once each, and no other.

    Raises:
        ValueError: It does not.
    """
    if any(prompt.count(one) != (one in wanted) for one in PLACEHOLDERS):
        raise ValueError(f"must hold {' and '.join(wanted)} exactly once and no other placeholder, got {prompt!r}")
    return prompt
