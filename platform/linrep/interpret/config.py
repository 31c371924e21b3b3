"""Which latents to explain, from what, by whom, and how to score it. All but `backend`'s limits decides the digest."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from linrep.chat_server import ChatServer
from linrep.config import Section

Task = Literal["detection", "fuzzing"]


class Truth(Section):
    """Knows the scenes of the embedded world and reads its words: exact and for nothing, to have right answers."""

    kind: Literal["truth"] = Field(default="truth", description="The known truth of the embedded world.")
    attributes: tuple[str, ...] = Field(
        default=("object", "colour", "ground", "place", "layout"), description="Columns of the scenes that it may speak of."
    )
    values: PositiveInt = Field(default=6, description="Values of an attribute, or words, in an explanation at most.")


class Chat(ChatServer):
    """A vision-language model behind an OpenAI-compatible server (vLLM, a hosted one)."""

    kind: Literal["chat"] = Field(default="chat", description="An OpenAI-compatible server that takes images.")
    batch: PositiveInt = Field(default=5, description="Examples judged in one request.")
    image_tokens: PositiveInt = Field(default=600, description="Tokens that an image costs, for the estimate alone.")
    budget: PositiveFloat | None = Field(
        default=None, description="Refuse to begin where the estimate, by `price`, is above this."
    )


class Local(Section):
    """A vision-language LLM of this machine's own; it sees several examples as one sheet of images."""

    kind: Literal["local"] = Field(default="local", description="A LLaVA-NeXT in a folder, run here.")
    path: str = Field(description="Folder or hub name of the model.")
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    prompt: str = Field(default="[INST] <image>\n{request} [/INST]", description="Around a request; holds {request} and <image>.")
    max_new_tokens: PositiveInt = Field(default=60, description="Tokens of an explanation, at most.")
    device: str = Field(default="cpu", description="Where it runs: cpu, cuda, cuda:1 ...")
    precision: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="Number format it runs in.")

    @field_validator("prompt")
    @classmethod
    def _has_places(cls, prompt: str) -> str:
        if prompt.count("{request}") != 1 or prompt.count("<image>") != 1:
            raise ValueError(f"must hold {{request}} and <image> once each, got {prompt!r}")
        return prompt


Backend = Annotated[Truth | Chat | Local, Field(discriminator="kind")]


class Shown(Section):
    """What the explainer sees of a latent, of each modality."""

    top: NonNegativeInt = Field(default=8, description="Samples of the largest activations.")
    spread: NonNegativeInt = Field(
        default=1, description="Samples of each quantile, at most half of it: what it does where it fires less."
    )
    silent: NonNegativeInt = Field(default=4, description="Samples where it is silent, for contrast.")


class Scored(Section):
    """What the scorer is asked about, of each modality and task; never a sample that the explainer saw."""

    positives: int = Field(default=20, ge=4, description="Samples where the latent fires, as many of each quantile as can be.")
    negatives: int = Field(default=20, ge=4, description="Samples where it is silent.")
    hard: float = Field(
        default=0.5, ge=0, le=1, description="Share of the negatives on which one of the nearest latents by cosine fires."
    )
    tasks: tuple[Task, ...] = Field(
        default=("detection", "fuzzing"), description="detection: which samples; fuzzing: where in them."
    )

    @field_validator("tasks")
    @classmethod
    def _some(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"must name detection or fuzzing, each once at most, got {list(tasks)}")
        return tasks


class InterpretConfig(Section):
    """Explanations of latents and their scores; shuffled explanations and random SAEs stand beside them."""

    backend: Backend = Field(default=Truth(), description="Who explains and scores.")
    features: str | None = Field(default=None, description="Folder of the features; null: those of this recipe's features job.")
    latents: PositiveInt | Literal["all"] = Field(
        default=64, description="Latents of each SAE, drawn among all that fire at all; all for every one of them."
    )
    show: Shown = Field(default=Shown(), description="What the explainer sees.")
    score: Scored = Field(default=Scored(), description="What the scorer is asked.")
    around: PositiveInt = Field(default=12, description="Text tokens shown before and after the largest activation.")
    scenes: str | None = Field(
        default=None,
        description="Truth of the images (demo://scenes.jsonl): object masks for the overlap, and the truth backend.",
    )
    edited: str | None = Field(
        default=None, description="A CSV of explanations that people edited (explanations.csv of a finished run): scored anew."
    )
    chunk_size: PositiveInt = Field(default=16, description="Latents per chunk: the unit of commit and of resuming.")
    seed: int = Field(default=0, description="Seed of draws and of the shuffle.")
