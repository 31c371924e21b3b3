"""The recipe's section on searching for an SAE: the space, how it is gone through, and when a poor candidate is stopped."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from linrep.config import Section
from linrep.sae.config import SPARSITY, SaeDesign, WithK, WithL1
from linrep.sae.study import SaeConfig, sparsity_of


class Values(Section):
    """Values that are listed."""

    kind: Literal["values"] = Field(default="values", description="Listed values; the only kind that a grid takes.")
    values: tuple[float, ...] = Field(description="Each once.", min_length=1)

    @field_validator("values")
    @classmethod
    def _differ(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"names a value twice: {list(values)}")
        return values


class Range(Section):
    """Everything between two values."""

    kind: Literal["range"] = Field(default="range", description="All values between two; for random and optuna.")
    low: float = Field(description="The least.")
    high: float = Field(description="The largest.")
    log: bool = Field(default=True, description="Draw the logarithm evenly, and not the value.")

    @model_validator(mode="after")
    def _rises(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g}), and above 0 where log is true")
        return self


def _listed(value: Any) -> Any:
    """A plain list stands for its values, as does 4,8 on a command line."""
    value = value.split(",") if isinstance(value, str) else value
    return {"kind": "values", "values": value} if isinstance(value, list | tuple) else value


Dimension = Annotated[Values | Range, Field(discriminator="kind"), BeforeValidator(_listed)]


class Chosen(Section):
    """Those whose number of active latents is set."""

    kind: WithK = Field(description="The architecture.")
    k: Dimension = Field(description="Active latents; whole numbers, drawn values are rounded.")


class Thresholds(Section):
    """JumpReLU, which is trained towards a number of active latents."""

    kind: Literal["jumprelu"] = Field(default="jumprelu", description="The architecture.")
    target_l0: Dimension = Field(description="Active latents that training aims at.")


class Penalised(Section):
    """Those whose number of active latents follows from the weight of a penalty."""

    kind: WithL1 = Field(description="The architecture.")
    l1: Dimension = Field(description="Weight of the penalty.")


Architecture = Annotated[Chosen | Thresholds | Penalised, Field(discriminator="kind")]


class Space(Section):
    """What varies; everything else is as in the section `sae`."""

    layers: tuple[NonNegativeInt, ...] = Field(default=(), description="Layers of the harvest. Empty: its middle one.")
    architectures: tuple[Architecture, ...] = Field(
        default=(Chosen(kind="topk", k=Values(values=(16, 32, 64))),),
        min_length=1,
        description="Architectures, each with its own measure of sparsity.",
    )
    expansion: Dimension = Field(default=Values(values=(4, 8)), description="Latents per dimension of the residual stream.")
    learning_rate: Dimension = Field(default=Values(values=(5e-4, 2e-3)), description="Heights of the rate.")
    text_share: Dimension | None = Field(default=None, description="Share of text rows in training; null: as in sae.data.")


class Grid(Section):
    """All combinations."""

    kind: Literal["grid"] = Field(default="grid", description="All combinations of listed values.")


class Random(Section):
    """Draws that do not depend on what came before."""

    kind: Literal["random"] = Field(default="random", description="Independent draws.")
    trials: PositiveInt = Field(default=16, description="Candidates.")
    seed: NonNegativeInt = Field(default=0, description="Of the draws.")


class Optuna(Section):
    """Optuna's multi-objective sampler: FVU and L0 of each modality, all to be small."""

    kind: Literal["optuna"] = Field(
        default="optuna", description="Proposals that learn from the candidates before; needs optuna."
    )
    trials: PositiveInt = Field(default=16, description="Candidates.")
    per_round: PositiveInt = Field(default=4, description="Candidates proposed at once; the next ones know their results.")
    seed: NonNegativeInt = Field(default=0, description="Of the sampler.")


class Halving(Section):
    """Successive halving: at each rung only the best of a bracket go on."""

    kind: Literal["halving"] = Field(default="halving", description="Stop poor candidates early.")
    first: float = Field(default=1 / 8, gt=0, lt=1, description="Share of the rows at which candidates are compared first.")
    factor: float = Field(
        default=4.0, gt=1, description="One candidate in `factor` goes on; the next rung comes at `factor` times the rows."
    )
    within: Literal["sparsity", "sparsity_and_width"] = Field(
        default="sparsity",
        description="Compared are candidates of one layer and equal sparsity, or of equal width too; "
        "in a range those of an octave count as equal.",
    )


class Whole(Section):
    """Every candidate is trained to its end."""

    kind: Literal["none"] = Field(default="none", description="Stop no candidate.")


class TuneConfig(Section):
    """A search for width and sparsity."""

    space: Space = Field(default=Space(), description="What varies.")
    search: Annotated[Grid | Random | Optuna, Field(discriminator="kind")] = Field(
        default=Grid(), description="How the space is gone through."
    )
    stop: Annotated[Halving | Whole, Field(discriminator="kind")] = Field(
        default=Halving(), description="When a candidate stops."
    )
    rows: PositiveInt = Field(default=500_000, description="Rows (tokens) that a candidate is trained on, at most.")
    budget: PositiveInt | None = Field(
        default=None,
        description="Rows over all candidates, at most: a round takes as many, in the order they are proposed, as could all be "
        "trained to their end with what the rounds before it left; one that is cut is the last. Null: no limit.",
    )
    held_out: PositiveInt = Field(default=4096, description="Held-out rows of each modality that candidates are compared on.")
    pack: PositiveInt = Field(default=4, description="Candidates that are trained on one reading of the rows, at most.")


@dataclass(frozen=True)
class Candidate:
    """An SAE that may be trained.

    Attributes:
        name: Names it among the candidates of a search.
        layer: Layer k.
        design: The SAE.
        text_share: Share of text rows; None as the store has them.
        in_octaves: Which of `sparsity` and `width` were drawn from a range, where hardly two candidates are equal: they count
            as equal within an octave.
    """

    name: str
    layer: int
    design: SaeDesign
    text_share: float | None
    in_octaves: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float:
        """k, target_l0 or l1."""
        return sparsity_of(self.design)

    def bracket(self, within: str) -> str:
        """Candidates of one bracket are compared on FVU alone: they share the layer, and how sparse they are."""
        activation = self.design.activation
        level = octave(self.sparsity) if "sparsity" in self.in_octaves else f"{self.sparsity:g}"
        # A penalty's weight says nothing of L0 to another architecture.
        sparse = f"l0={level}" if activation.counts else f"{activation.kind}:l1={level}"
        wide = octave(self.design.expansion) if "width" in self.in_octaves else f"{self.design.expansion:g}"
        return f"layer={self.layer}/{sparse}" + (f"/x{wide}" if within == "sparsity_and_width" else "")

    def values(self) -> dict[str, Any]:
        """What separates it from others, plain."""
        return {
            "layer": self.layer,
            "architecture": self.design.activation.kind,
            "sparsity": self.sparsity,
            "expansion": self.design.expansion,
            "learning_rate": self.design.adam.learning_rate,
            "text_share": self.text_share,
        }

    def config(self, sae: SaeConfig, rows: int) -> SaeConfig:
        """The section `sae` that trains this SAE alone, on a number of rows."""
        values = sae.model_dump()
        values |= {"layers": (self.layer,), "design": self.design.model_dump(), "grid": {}, "rows": rows}
        values["data"] = {**values["data"], "text_share": self.text_share}
        return SaeConfig.model_validate(values)


def octave(value: float) -> str:
    """The powers of two that a positive value lies between, the lower one included.

    >>> octave(8), octave(15.9), octave(0.3)
    ('8..16', '8..16', '0.25..0.5')
    """
    low = math.frexp(value)[1] - 1  # exact, which the logarithm is not
    return f"{2.0**low:g}..{2.0 ** (low + 1):g}"


def candidate(sae: SaeConfig, layer: int, architecture: str, sparsity: float, **rest: float | None) -> Candidate:
    """The candidate of some values.

    Args:
        sae: Everything that does not vary.
        layer: Layer k.
        architecture: Kind of the activation; where the section has the same kind, its other fields stay.
        sparsity: k, target_l0 or l1.
        rest: `expansion`, `learning_rate`, `text_share`.
    """
    values = sae.design.model_dump()
    own = values["activation"] if values["activation"]["kind"] == architecture else {"kind": architecture}
    values["activation"] = {**own, SPARSITY[architecture]: sparsity}
    values |= {"expansion": rest["expansion"], "adam": {**values["adam"], "learning_rate": rest["learning_rate"]}}
    share = rest["text_share"]
    name = f"layer{layer:02d}-{architecture}-{sparsity:g}-x{rest['expansion']:g}-lr{rest['learning_rate']:g}"
    if share != sae.data.text_share:
        name += "-tstore" if share is None else f"-t{share:g}"
    return Candidate(name, layer, SaeDesign.model_validate(values), share)
