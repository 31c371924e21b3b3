"""The recipe's section on SAEs: which are trained, on which layers and rows; and the grid that it spans."""

from itertools import product
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from linrep.config import Section
from linrep.errors import RecipeError
from linrep.sae.config import Product, SaeDesign
from linrep.vlm.config import IMAGE, TEXT, check_prompt


class Grid(Section):
    """Values that take the place of the SAE's own, in all combinations; all are trained in one pass over the rows."""

    sparsity: tuple[PositiveFloat, ...] = Field(
        default=(), description="Of the activation: k, target_l0 or l1, whichever it has. Empty: its own.", examples=[(16, 32)]
    )
    expansion: tuple[PositiveFloat, ...] = Field(default=(), description="Latents per dimension. Empty: the SAE's own.")
    learning_rate: tuple[PositiveFloat, ...] = Field(default=(), description="Heights of the rate. Empty: the optimiser's own.")
    seed: tuple[NonNegativeInt, ...] = Field(default=(), description="Seeds of the first weights. Empty: the SAE's own.")

    @field_validator("sparsity", "expansion", "learning_rate", "seed")
    @classmethod
    def _differ(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"names a value twice: {list(values)}")
        return values


class Rows(Section):
    """Which rows of the tokens view make a batch."""

    text_share: float | None = Field(
        default=0.5, ge=0, le=1, description="Share of text rows in every batch, whatever the store holds; null: as it has them."
    )
    special: bool = Field(default=False, description="Also start, prompt and template tokens, which count as text.")
    high_norm: Literal["drop", "clip", "keep"] = Field(
        default="drop", description="Rows of more than ten times the median norm of their modality (attention sinks)."
    )
    normalise: Literal["layer", "modality"] = Field(
        default="layer", description="Scale to mean norm sqrt(d): both modalities by one factor, or each by its own."
    )
    shuffle_rows: PositiveInt = Field(
        default=65536, description="Rows of each modality that a worker mixes at once; it holds twice as many in memory."
    )


class Evaluation(Section):
    """How much the finished SAEs are tested; nothing here changes their weights."""

    rows: PositiveInt = Field(default=16384, description="Held-out rows of each modality.")
    texts: NonNegativeInt = Field(default=64, description="Held-out captions for the loss with an SAE spliced in; 0: none.")
    wording: Literal["corpus", "model"] = Field(
        default="corpus",
        description="Whose words these captions are: corpus, as they stand; model, what the model itself says of the image after "
        "the prompt, greedily. Texts without an image are always the corpus's.",
    )
    prompt: str | None = Field(
        default=None,
        description="Prompt of an image and its caption for that loss, one that the model knows; null: the harvest's.",
        examples=["USER: <image> Describe it. ASSISTANT: {text}"],
    )
    samples: NonNegativeInt = Field(default=1024, description="Samples for finding known attributes in latents; 0: none.")
    vectors: NonNegativeInt = Field(default=64, description="Class directions to rebuild from few latents, at most; 0: none.")
    most_latents: PositiveInt = Field(default=64, description="Latents that a direction is rebuilt from, at most.")

    insist: bool = Field(
        default=False,
        description="Test the SAE of --evaluate although it says that it is of another layer, model or modality; results say so.",
    )

    @field_validator("prompt")
    @classmethod
    def _has_image_and_text(cls, prompt: str | None) -> str | None:
        return None if prompt is None else check_prompt(prompt, IMAGE, TEXT)


class SaeConfig(Section):
    """Which SAEs to train."""

    layers: tuple[int, ...] | Literal["all"] = Field(default="all", description="Layers of the harvest, or all.")
    design: SaeDesign = Field(default=SaeDesign(), description="The SAE.")
    grid: Grid = Field(default=Grid(), description="Values that vary between the SAEs of a layer.")
    rows: PositiveInt = Field(default=2_000_000, description="Rows that each SAE is trained on.")
    batch: int = Field(default=2048, ge=2, description="Rows of a step; every worker takes all of them.")
    data: Rows = Field(default=Rows(), description="Which rows.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the order of the rows.")
    workers: PositiveInt = Field(
        default=1,
        description="Processes over which the latents of an SAE lie; no part of the digest.",
    )
    product: Product = Field(
        default="float32",
        description="Number format of dense products. bfloat16 is several times faster on GPUs, and on CPUs that have it.",
    )
    checkpoint_every: PositiveInt = Field(default=2000, description="Steps between two checkpoints; no part of the digest.")
    evaluation: Evaluation = Field(default=Evaluation(), description="How much they are tested; no part of the digest.")

    @model_validator(mode="after")
    def _shared_out(self) -> "SaeConfig":
        if self.workers > 1 and not self.design.activation.splits:
            kind = self.design.activation.kind
            raise ValueError(f"workers is {self.workers}, but the latents of {kind} cannot lie on several: set workers to 1")
        self.designs()  # every combination of the grid must be an SAE
        return self

    @property
    def steps(self) -> int:
        """Steps of the run, at least one."""
        return max(1, self.rows // self.batch)

    @property
    def report_every(self) -> int:
        """Steps between two reports: a hundred in all, but no further apart than 500."""
        return min(max(self.steps // 100, 1), 500)

    def decisive(self) -> dict[str, object]:
        """What decides weights, as plain values: the section without cadence, workers and evaluation.

        The rows of each step and what is made of them do not depend on the number of workers. Sums do, in their last digits, as
        they do on the device: SAEs are named as those of one worker, and the commit of a layer says how many there were.
        """
        return {**self.model_dump(mode="json", exclude={"checkpoint_every", "evaluation"}), "workers": 1}

    def check_active(self, width: int) -> None:
        """Refuse SAEs that are to have more active latents, or more workers, than latents.

        Args:
            width: Of the residual stream.

        Raises:
            RecipeError: Names one.
        """
        for name, design in self.designs().items():
            most, field = design.n_latents(width), design.activation.sparsity
            if self.workers > most:
                raise RecipeError(
                    f"sae: {name} has {most} latents, which cannot lie on {self.workers} workers: lower sae.workers"
                )
            if design.activation.counts and sparsity_of(design) > most:
                raise RecipeError(
                    f"sae: {name} has {field} {sparsity_of(design):g}, but expansion {design.expansion:g} of {width} dimensions "
                    f"gives {most} latents: lower {field} or raise expansion"
                )

    def designs(self) -> dict[str, SaeDesign]:
        """All SAEs of a layer by name.

        >>> list(SaeConfig(grid=Grid(sparsity=(8, 16), seed=(0, 1))).designs())
        ['topk-8-x8-s0', 'topk-8-x8-s1', 'topk-16-x8-s0', 'topk-16-x8-s1']
        """
        grid, base = self.grid, self.design
        found = {}
        for sparsity, expansion, rate, seed in product(
            grid.sparsity or (sparsity_of(base),), grid.expansion or (base.expansion,),
            grid.learning_rate or (base.adam.learning_rate,), grid.seed or (base.seed,),
        ):  # fmt: skip
            name = f"{base.activation.kind}-{sparsity:g}-x{expansion:g}-s{seed}"
            name += f"-lr{rate:g}" if len(grid.learning_rate) > 1 else ""
            # Validated, not copied: 8.0 becomes the integer that a k is, and 8.5 an error.
            values = base.model_dump()
            values["activation"][base.activation.sparsity] = sparsity
            values |= {"expansion": expansion, "seed": seed, "adam": {**values["adam"], "learning_rate": rate}}
            found[name] = SaeDesign.model_validate(values)
        return found


def sparsity_of(design: SaeDesign) -> float:
    """k, target_l0 or l1."""
    return getattr(design.activation, design.activation.sparsity)
