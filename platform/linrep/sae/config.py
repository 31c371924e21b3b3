"""What an SAE is and how it is trained: one record, whose `activation` is a union of architectures.

An architecture here is its numbers and what a recipe has to know of it; how it is trained and saved stands in its file in
`linrep.sae.architectures`. Each section says four things of itself:

- `sparsity`: the field that says how sparse it is, which grids and searches vary;
- `counts`: whether that field is a number of active latents, comparable between architectures; a penalty's weight is not;
- `decoders`: what `SaeDesign.decoder` may be;
- `splits`: whether its latents can lie on several workers.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from linrep.config import Section

Product = Literal["float32", "bfloat16"]
"""Number format of a step's dense products. It changes weights, so the recipe alone decides it: no device and no clock."""
Decoder = Literal["unit", "weighted"]
"""Whether decoder rows stay at norm 1, or may grow while activations are weighed by them."""


class ReLU(Section):
    """f = ReLU(E x + b), with the paper's penalty l1 * sum_i f_i |D_i|, which no rescaling of the decoder can evade."""

    sparsity: ClassVar[str] = "l1"
    counts: ClassVar[bool] = False
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit", "weighted")
    splits: ClassVar[bool] = True

    kind: Literal["relu"] = Field(default="relu", description="ReLU with an L1 penalty weighted by the decoder's norms.")
    l1: NonNegativeFloat = Field(default=5.0, description="Weight of the penalty, for inputs of mean norm sqrt(d).")


class TopK(Section):
    """The k largest pre-activations of each row, where they are positive."""

    sparsity: ClassVar[str] = "k"
    counts: ClassVar[bool] = True
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit", "weighted")
    splits: ClassVar[bool] = True

    kind: Literal["topk"] = Field(default="topk", description="The k largest of each row.")
    k: PositiveInt = Field(default=32, description="Active latents of each row, at most.")


class BatchTopK(Section):
    """The n k largest pre-activations of a batch of n rows; a threshold takes their place outside training."""

    sparsity: ClassVar[str] = "k"
    counts: ClassVar[bool] = True
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit", "weighted")
    splits: ClassVar[bool] = True

    kind: Literal["batch_topk"] = Field(default="batch_topk", description="The k largest per row, on average over a batch.")
    k: PositiveInt = Field(default=32, description="Active latents of a row, on average.")


class Matryoshka(Section):
    """BatchTopK whose first latents must also reconstruct alone: one loss for each prefix, averaged."""

    sparsity: ClassVar[str] = "k"
    counts: ClassVar[bool] = True
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit", "weighted")
    splits: ClassVar[bool] = True

    kind: Literal["matryoshka"] = Field(default="matryoshka", description="BatchTopK with nested prefixes of latents.")
    k: PositiveInt = Field(default=32, description="Active latents of a row, on average.")
    prefixes: tuple[float, ...] = Field(
        default=(0.0625, 0.1875, 0.4375, 1.0), description="Shares of the latents that reconstruct alone, rising to 1."
    )

    @field_validator("prefixes")
    @classmethod
    def _rise_to_one(cls, prefixes: tuple[float, ...]) -> tuple[float, ...]:
        if not prefixes or list(prefixes) != sorted(set(prefixes)) or prefixes[0] <= 0 or prefixes[-1] != 1.0:
            raise ValueError(f"must rise from above 0 to 1, got {list(prefixes)}")
        return prefixes


class JumpReLU(Section):
    """f = (E x + b) where it is above a learned threshold; the penalty is weight * (L0 / target_l0 - 1)^2."""

    sparsity: ClassVar[str] = "target_l0"
    counts: ClassVar[bool] = True
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit", "weighted")
    splits: ClassVar[bool] = True

    kind: Literal["jumprelu"] = Field(default="jumprelu", description="A learned threshold for each latent.")
    target_l0: PositiveFloat = Field(default=32.0, description="Active latents of a row that training aims at.")
    weight: NonNegativeFloat = Field(
        default=1.0, description="Weight of the penalty, as a share of the variance of the inputs (d after scaling)."
    )
    bandwidth: PositiveFloat = Field(
        default=0.1, description="Width of the window around a threshold in which it has a gradient, for inputs of norm sqrt(d)."
    )
    threshold: PositiveFloat = Field(default=0.1, description="All thresholds at the start.")


class Gated(Section):
    """One path decides which latents are active, another how much; an auxiliary loss teaches the first."""

    sparsity: ClassVar[str] = "l1"
    counts: ClassVar[bool] = False
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit", "weighted")
    splits: ClassVar[bool] = True

    kind: Literal["gated"] = Field(default="gated", description="Separate paths for which latents and how much.")
    l1: NonNegativeFloat = Field(default=5.0, description="Weight of the penalty on the gates, for inputs of mean norm sqrt(d).")


class MatchingPursuit(Section):
    """Latents chosen one after the other, each from what those before it have left over; the encoder is the decoder."""

    sparsity: ClassVar[str] = "k"
    counts: ClassVar[bool] = True
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit",)
    splits: ClassVar[bool] = False

    kind: Literal["matching_pursuit"] = Field(default="matching_pursuit", description="One latent after the other, k times.")
    k: PositiveInt = Field(default=32, description="Steps, each of which costs a product of the encoder's size.")


class Archetypal(Section):
    """TopK whose decoder rows point along convex combinations of data, give or take a little."""

    sparsity: ClassVar[str] = "k"
    counts: ClassVar[bool] = True
    decoders: ClassVar[tuple[Decoder, ...]] = ("unit",)
    splits: ClassVar[bool] = True

    kind: Literal["archetypal"] = Field(default="archetypal", description="TopK with decoder rows that are mixtures of data.")
    k: PositiveInt = Field(default=32, description="Active latents of each row, at most.")
    points: PositiveInt = Field(default=1024, description="Rows of data that are mixed.")
    relaxation: NonNegativeFloat = Field(
        default=0.1, description="Largest departure of a decoder row from its mixture, as a share of the points' mean norm."
    )


Activation = Annotated[
    ReLU | TopK | BatchTopK | Matryoshka | JumpReLU | Gated | MatchingPursuit | Archetypal, Field(discriminator="kind")
]
WithK = Literal["topk", "batch_topk", "matryoshka", "matching_pursuit", "archetypal"]
"""Architectures whose sparsity is `k`, as a search varies it."""
WithL1 = Literal["relu", "gated"]
"""Architectures whose sparsity is `l1`."""
SPARSITY: dict[str, str] = {
    section.model_fields["kind"].default: section.sparsity for section in get_args(get_args(Activation)[0])
}
"""The field of each architecture's sparsity, by the architecture's name."""


class AuxK(Section):
    """Dead latents learn to explain what the living ones leave over."""

    k: PositiveInt | None = Field(default=None, description="Dead latents that take part in each row; null: half the width d.")
    weight: NonNegativeFloat = Field(default=1 / 32, description="Weight of the auxiliary loss.")
    dead_after: PositiveInt = Field(default=200_000, description="Rows without firing after which a latent counts as dead.")


class Adam(Section):
    """The optimiser and its schedule, both over the whole run."""

    learning_rate: PositiveFloat = Field(default=1e-3, description="At its height.")
    warmup: float = Field(default=0.02, ge=0, lt=1, description="Share of the steps in which the rate rises from 0.")
    decay: float = Field(default=0.2, ge=0, le=1, description="Share of the steps, at the end, in which it falls to 0.")
    clip: PositiveFloat | None = Field(default=None, description="Largest norm of the gradient; null leaves it.")


class SaeDesign(Section):
    """One SAE: everything here changes its weights."""

    activation: Activation = Field(default=TopK(), description="The architecture: what makes latents sparse.")
    expansion: PositiveFloat = Field(default=8.0, description="Latents per dimension of the residual stream.")
    decoder: Decoder = Field(
        default="unit", description="Keep decoder rows at norm 1, or let them grow and weigh activations by them."
    )
    aux: AuxK | None = Field(default=AuxK(), description="How dead latents are revived; null leaves them.")
    center: Literal["geometric_median", "mean", "zero"] = Field(default="mean", description="Where the decoder's bias begins.")
    adam: Adam = Field(default=Adam(), description="The optimiser.")
    sparsity_warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which a penalty rises from 0.")
    seed: int = Field(default=0, ge=0, description="Seed of the first weights.")

    @model_validator(mode="after")
    def _fits(self) -> "SaeDesign":
        if self.decoder not in self.activation.decoders:
            can = " or ".join(self.activation.decoders)
            raise ValueError(f"decoder of {self.activation.kind} must be {can}, got {self.decoder}")
        return self

    def n_latents(self, width: int) -> int:
        """Latents over a residual stream of some width."""
        return max(1, round(self.expansion * width))
