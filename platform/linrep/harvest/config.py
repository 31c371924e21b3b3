"""What a harvest keeps, and where it runs."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_serializer, model_validator

from linrep.config import Section
from linrep.store.layout import HIGH_NORM, View
from linrep.vlm.config import IMAGE, TEXT, Turn, check_prompt
from linrep.vlm.prompts import FIELDS, filled_in, follow
from linrep.vlm.turns import Scripts, check_chat

_AROUND = {"image": "an image", "pair": "an image with a text", "text": "a text"}


class HarvestConfig(Section):
    """What to keep of the residual stream: everything here decides rows of the store and enters its digest."""

    layers: tuple[int, ...] | Literal["all"] = Field(
        default="all", description="Layers k (0 embeddings .. n after the last block), or all."
    )
    views: tuple[View, ...] = Field(
        default=("pooled", "tokens", "last"), description="What to keep of each sample: pooled, tokens, last."
    )
    sites: tuple[Literal["attention", "mlp", "tower"], ...] = Field(
        default=(),
        description="Sites kept beside the residual stream: attention, mlp (what that of block k adds, at each layer k but n), "
        "tower (the vision tower's patches).",
    )
    tokens_per_sample: PositiveInt | None = Field(
        default=64, description="Tokens of each modality kept per sample in the tokens view, drawn by sample id; null keeps all"
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="auto",
        description="Number format of the stored vectors; auto: one that holds the family's activations.",
    )
    chat: tuple[Turn, ...] | None = Field(
        default=None,
        description="Turns around an image, in the model's own chat template, in place of the three prompts; null: the prompts",
        examples=[[{"role": "user", "content": "<image>What is shown?"}]],
    )
    image_prompt: str = Field(default="<image>", description="The prompt around an image, in place of <image>.")
    pair_prompt: str = Field(
        default="<image>\n{text}",
        description="Around an image and its caption; left out: image_prompt with the caption on a line after the image.",
    )
    text_prompt: str = Field(
        default="{text}", description="The prompt around a text; left out: image_prompt with the text in place of the image."
    )
    image_size: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="Squash images to this height and width; null keeps the native any-resolution tiles"
    )
    max_text_tokens: PositiveInt = Field(default=512, description="Longer texts are cut after this many tokens.")
    chunk_size: PositiveInt = Field(default=256, description="Samples per chunk: the unit of work, retry and commit.")
    seed: int = Field(default=0, description="Seed of the choice of tokens.")
    high_norm: float | None = Field(
        default=HIGH_NORM,
        gt=1,
        description="Tokens above this multiple of their modality's median norm (attention sinks) are kept apart; null: none",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_place_for_prompts(cls, values: Any) -> Any:
        return filled_in(values) if isinstance(values, dict) else values

    @model_serializer(mode="wrap")
    def _without_no_sites(self, plain: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Where no sites are asked for nothing is said of them, so that digests are what they were before there were any."""
        values = plain(self)
        return values if self.sites else {name: value for name, value in values.items() if name != "sites"}

    def stored_as(self, usual: Literal["float16", "bfloat16"]) -> "HarvestConfig":
        """The same with the number format named: auto and the format that it means make the same store."""
        return self if self.dtype != "auto" else self.model_copy(update={"dtype": usual})

    def scripted(self, scripts: Scripts) -> "HarvestConfig":
        """The same with the prompts that its chat makes.

        Args:
            scripts: What the model's chat template makes of it.

        Raises:
            ValueError: The recipe gives another prompt beside the chat.
        """
        made = {f"{name}_prompt": script.prompt for name, script in scripts._asdict().items()}
        for name, usual in follow(IMAGE)._asdict().items():
            field = f"{name}_prompt"
            if getattr(self, field) not in (usual, made[field]):
                raise ValueError(
                    f"harvest.chat and harvest.{field} both say what stands around {_AROUND[name]}: give one of them"
                )
        return self.model_copy(update=made)

    @property
    def stored(self) -> Literal["float16", "bfloat16", "float32"]:
        """The number format, once it is named.

        Raises:
            ValueError: It depends on the model, see `stored_as`.
        """
        if self.dtype == "auto":
            raise ValueError("the number format of the store depends on the model: ask stored_as first")
        return self.dtype

    @property
    def prompts(self) -> dict[str, str]:
        """The three prompts by the names of their fields."""
        return {name: getattr(self, name) for name in FIELDS}

    @property
    def preparation(self) -> dict[str, Any]:
        """What prepares samples as this harvest does, beside the model."""
        return {**self.prompts, "chat": self.chat, "image_size": self.image_size, "max_text_tokens": self.max_text_tokens}

    @field_validator("layers")
    @classmethod
    def _rising(cls, layers: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if isinstance(layers, tuple):
            if not layers:
                raise ValueError("is empty: name at least one layer, or all")
            if list(layers) != sorted(set(layers)) or layers[0] < 0:
                raise ValueError(f"must rise from 0 or more without repeats, got {list(layers)}")
        return layers

    @field_validator("views")
    @classmethod
    def _some(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        if not views or len(set(views)) < len(views):
            raise ValueError(f"must name pooled, tokens or last, each once at most, got {list(views)}")
        return views

    @field_validator("sites", mode="before")
    @classmethod
    def _stored(cls, sites: Any) -> Any:
        if isinstance(sites, list | tuple) and "projector" in sites:
            raise ValueError("what the projector gives is layer 0 at image tokens: name layer 0 in harvest.layers instead")
        return sites

    @model_validator(mode="after")
    def _tower_has_rows(self) -> "HarvestConfig":
        if "tower" in self.sites and self.views == ("last",):
            raise ValueError("sites: the tower has no last position: name pooled or tokens in harvest.views, or leave it out")
        return self

    @field_validator("sites")
    @classmethod
    def _once(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(sites)))

    @field_validator("chat")
    @classmethod
    def _shows_an_image(cls, chat: tuple[Turn, ...] | None) -> tuple[Turn, ...] | None:
        if chat is not None:
            check_chat(chat)
        return chat

    @field_validator("image_prompt")
    @classmethod
    def _has_image(cls, prompt: str) -> str:
        return check_prompt(prompt, IMAGE)

    @field_validator("pair_prompt")
    @classmethod
    def _has_image_and_text(cls, prompt: str) -> str:
        return check_prompt(prompt, IMAGE, TEXT)

    @field_validator("text_prompt")
    @classmethod
    def _has_text(cls, prompt: str) -> str:
        return check_prompt(prompt, TEXT)


class Pool(Section):
    """Where the work runs and how much of it at once: nothing here enters a digest."""

    actors: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="Fewest and most model actors; null: one per GPU share there is, or one on the CPU"
    )
    gpus: NonNegativeFloat | None = Field(
        default=None,
        description="GPUs per actor: a share of one, or several for a model larger than one; null: 1 where there are any, else 0",
    )
    cpus: PositiveFloat = Field(default=0.5, description="Logical CPUs that an actor reserves.")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        default="auto", description="Number format of the model while it runs; auto: bfloat16 on GPUs that have it, else float32"
    )
    tokens_per_batch: PositiveInt = Field(default=8192, description="Most positions in a micro-batch, padding included.")
    threads: PositiveInt | None = Field(default=None, description="Threads of a CPU actor; null: all cores.")
    check_room: bool = Field(default=True, description="Refuse a harvest that the workspace's disk cannot hold.")
    max_skipped: float = Field(
        default=0.01, ge=0, le=1, description="Share of the samples that may be skipped before the job fails."
    )

    @field_validator("gpus")
    @classmethod
    def _a_share_or_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"must be a share of one GPU or a whole number of them, got {gpus:g}")
        return gpus

    @field_validator("actors")
    @classmethod
    def _ordered(cls, actors: tuple[int, int] | None) -> tuple[int, int] | None:
        if actors is not None and actors[0] > actors[1]:
            raise ValueError(f"the fewest ({actors[0]}) must not be more than the most ({actors[1]})")
        return actors
