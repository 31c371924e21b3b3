"""What to probe, and with what: everything here decides numbers and enters the digest."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_serializer, model_validator

from linrep.config import Section
from linrep.named_sae import NamedSae
from linrep.store.layout import TOWER, StoredSite, View


class Attributes(Section):
    """A table that says more about samples than their class: in the embedded world colour, ground and place."""

    path: str = Field(description="A .jsonl or .parquet file: a local path, a URI, or demo://scenes.jsonl.")
    key: str = Field(
        default="id",
        description="Column that names the sample: its id, with or without the corpus, its pair's id, or its image's file "
        "name, with or without the ending.",
    )
    columns: tuple[str, ...] = Field(description="Columns to probe; each value is a class.")
    types: tuple[str, ...] | None = Field(
        default=None,
        examples=[("colour",)],
        description="Which of these columns make up, with the class, a sample's type in the control task; null: all. Types "
        "should recur.",
    )

    @field_validator("columns")
    @classmethod
    def _free_names(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in columns if name in ("class", "modality", "region") or "/" in name]
        if wrong or not columns or len(set(columns)) < len(columns):
            raise ValueError(
                f"must name columns, each once, none of them class, modality, region or with a slash, got {list(columns)}"
            )
        return columns

    @model_validator(mode="after")
    def _types_are_columns(self) -> "Attributes":
        wrong = [name for name in self.types or () if name not in self.columns]
        if wrong or self.types == ():
            raise ValueError(f"types: must be some of the columns {list(self.columns)}, got {list(self.types or ())}")
        return self


class Softmax(Section):
    """Softmax regression, trained to convergence at each penalty of a falling path."""

    penalties: tuple[PositiveFloat, ...] = Field(
        default=(10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4),
        description="Penalties on the squared weights, in mean variances of a dimension.",
    )
    tolerance: PositiveFloat = Field(
        default=1e-3, description="Converged when the preconditioned gradient's norm falls to this share of the first one."
    )
    max_iterations: PositiveInt = Field(default=300, description="Iterations at one penalty, at most.")
    views: tuple[View, ...] = Field(default=("pooled", "last"), description="Views it is fitted on; the closed forms take all.")
    memory_gb: PositiveFloat = Field(
        default=8.0, description="Training rows of one layer are kept in memory up to this, else read anew in each iteration"
    )

    @field_validator("penalties")
    @classmethod
    def _falling(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        if not penalties or list(penalties) != sorted(set(penalties), reverse=True):
            raise ValueError(f"must fall from large to small without repeats, got {list(penalties)}")
        return penalties


class Latents(NamedSae):
    """An SAE whose latents are probed as the stream is; `sparse` says how many latents of each class few are."""

    most: PositiveInt = Field(
        default=1024,
        description="Latents that ridge, LDA, class means and softmax regression see: those that fire on most training rows.",
    )


class Erasure(Section):
    """Classes erased by LEACE, INLP and class means: what refitted ridge probes read then, and what steering erases with."""

    ranks: tuple[PositiveInt, ...] | None = Field(
        default=None,
        description="Numbers of dimensions to erase; null: doubling up to the classes less one, then twice and four times that.",
    )
    draws: PositiveInt = Field(default=3, description="Random subspaces of each kind, whose accuracies are averaged.")
    alphas: tuple[PositiveFloat, ...] = Field(
        default=(1e-4, 1e-2, 1.0, 100.0), description="Ridge penalties of the refitted probes, as probe.alphas; chosen likewise."
    )

    @field_validator("ranks", "alphas")
    @classmethod
    def _rising(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if values is not None and (not values or list(values) != sorted(set(values))):
            raise ValueError(f"must rise without repeats, got {list(values)}")
        return values


class ProbeConfig(Section):
    """Which probes to fit, on which rows of the store."""

    site: StoredSite = Field(
        default="residual",
        description="What is probed: the residual stream, or another site that the harvest keeps: attention, mlp, tower.",
    )
    layers: tuple[int, ...] | Literal["all"] = Field(default="all", description="Layers of the store to probe, or all.")
    views: tuple[View, ...] | Literal["all"] = Field(default="all", description="Views of the store to probe, or all.")
    attributes: Attributes | None = Field(default=None, description="Further labels of the samples; null: the class alone.")
    min_per_class: PositiveInt = Field(default=5, description="Training samples that every class must have.")
    alphas: tuple[PositiveFloat, ...] = Field(
        default=(1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3),
        description="Ridge penalties, in mean variances of a dimension summed over the rows; chosen on the validation split.",
    )
    shrinkages: tuple[float, ...] = Field(
        default=(1e-4, 1e-3, 1e-2, 1e-1, 0.5, 1.0),
        description="Shares of the identity in LDA's covariance; chosen on the validation split.",
    )
    softmax: Softmax | None = Field(default=Softmax(), description="Softmax regression; null leaves it out.")
    sparse: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 5, 20, 100), description="Numbers of coordinates that sparse probes see of each class."
    )
    sae: Latents | None = Field(default=None, description="A sparse autoencoder whose latents are probed, too; null: none.")
    erasure: Erasure | None = Field(default=None, description="Erase the classes and see what is still read; null leaves it out.")
    curve: tuple[PositiveInt, ...] = Field(
        default=(5, 20, 80), description="Training samples per class at which the sample-efficiency curve is measured."
    )
    resamples: PositiveInt = Field(default=1000, description="Bootstrap resamples of the test samples.")
    seed: int = Field(default=0, description="Seed of shuffled labels, of subsets and of the bootstrap.")

    @model_serializer(mode="wrap")
    def _without_the_stream(self, plain: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Where the residual stream is probed nothing is said of it, so that digests are what they were."""
        return {name: value for name, value in plain(self).items() if (name, value) != ("site", "residual")}

    @model_validator(mode="after")
    def _fits_the_site(self) -> "ProbeConfig":
        if self.site == TOWER and self.layers != "all":
            raise ValueError(f"layers: the tower has none, got {list(self.layers)}: leave the field out")
        if self.site != "residual" and self.sae is not None:
            raise ValueError(f"sae: SAEs are of the residual stream, not of {self.site}: leave out sae or site")
        return self

    @field_validator("shrinkages")
    @classmethod
    def _shares(cls, shrinkages: tuple[float, ...]) -> tuple[float, ...]:
        if not shrinkages or min(shrinkages) < 0 or max(shrinkages) > 1:
            raise ValueError(f"must lie between 0 and 1, got {list(shrinkages)}")
        return shrinkages

    @field_validator("alphas")
    @classmethod
    def _some(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not alphas:
            raise ValueError("is empty: name at least one penalty")
        return alphas
