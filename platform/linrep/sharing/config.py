"""What to compare between the modalities: everything here decides numbers and enters the digest."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from linrep.config import Section
from linrep.named_sae import NamedSae

Model = Literal["trained", "untrained"]
Pooling = Literal["mean", "object", "last"]
"""Which tokens a pair's two rows are made of."""
POOLINGS: tuple[Pooling, ...] = ("mean", "object", "last")


class ModelSae(NamedSae):
    """An SAE of either model."""

    model: Model = Field(default="trained", description="Whose activations it is of.")


class AcrossConfig(Section):
    """Which layers are compared with each other: images at one with texts at another, over the pairs of the reservoir."""

    layers: tuple[NonNegativeInt, ...] | Literal["all"] = Field(
        default="all", description="Layers, two or more; all: those that are compared, but no more than `most`."
    )
    most: int = Field(default=12, ge=2, description="Of all layers as many, evenly spaced, the first and the last among them.")

    @field_validator("layers")
    @classmethod
    def _several(cls, layers: tuple[int, ...] | Literal["all"]) -> tuple[int, ...] | Literal["all"]:
        if layers != "all" and (len(layers) < 2 or len(set(layers)) < len(layers)):
            raise ValueError(f"must name two layers or more, each once, got {list(layers)}")
        return layers

    def chosen(self, layers: Sequence[int]) -> tuple[int, ...]:
        """The layers, rising.

        Args:
            layers: Those that are compared one by one.

        >>> AcrossConfig(most=3).chosen(range(9))
        (0, 4, 8)
        """
        if self.layers != "all":
            return tuple(sorted(self.layers))
        steps = min(self.most, len(layers)) - 1
        return (
            tuple(sorted(layers)[round(i * (len(layers) - 1) / steps)] for i in range(steps + 1)) if steps > 0 else tuple(layers)
        )


class LensConfig(Section):
    """LatentLens: the contextual text tokens that image tokens are nearest to, and whether they name what the image shows."""

    images: PositiveInt = Field(default=64, description="Images whose tokens are read, one fifth of the pairs at most.")
    texts: PositiveInt = Field(default=256, description="Captions of other images whose tokens are the contexts, at every layer.")
    nearest: PositiveInt = Field(default=5, description="Nearest contexts of an image token that count.")


class SharingConfig(Section):
    """Which layers to compare, and with what; the pairs of the store are the samples, so contents are matched."""

    layers: tuple[int, ...] | Literal["all"] = Field(default="all", description="Layers of the store, or all.")
    poolings: tuple[Pooling, ...] | None = Field(
        default=None,
        description="Which tokens of an image and of its caption are compared: mean (all), object (patches of the object, and "
        "its word: needs the section regions), last (the last token: needs the view last, images harvested alone too, and "
        "one prompt for images and texts). null: those of them that the harvest allows.",
    )
    base: NonNegativeInt | None = Field(
        default=None,
        description="Layer that trends count from; null: the first above 0; layer 0 holds the embeddings, before any block.",
    )
    across: AcrossConfig | None = Field(
        default=AcrossConfig(), description="Images at one layer beside texts at every other; null leaves it out."
    )
    lens: LensConfig | None = Field(
        default=LensConfig(),
        description="LatentLens, at the layers of `across`: needs the view tokens and words for classes or attributes in "
        "captions; null leaves it out.",
    )
    untrained: str | None = Field(
        default=None,
        description="control: the recipe's own control, an untrained model of the same shape, which jobs/control.py makes and "
        "harvests. Or the path of another harvest of the same corpora. null leaves the control out.",
    )
    saes: tuple[ModelSae, ...] = Field(
        default=(),
        description="SAEs for the latent level; none leaves it out.",
        examples=[({"layer": 4, "sae": "topk-16-x8"},)],
    )
    own: str | None = Field(
        default=None,
        description="Name of an SAE (topk-32-x8-s0) that jobs/train_sae.py made of each model's harvest: it is compared at "
        "every layer where there is one, beside those of `saes`.",
    )
    steering: str | None = Field(
        default=None,
        description="Steering results of the same harvest: latest, or a folder in the workspace's steering (FOLDER/JUDGE where "
        "several judges read the answers): do directions found in texts steer what is said of images?",
    )
    thresholds: tuple[float, ...] = Field(
        default=(0.001, 0.01, 0.1), description="Firing rates above which a latent counts as one of a modality."
    )
    bimodal: float = Field(default=0.2, gt=0, lt=0.5, description="Bimodal: a modality score between this and one minus this.")
    min_firings: PositiveInt = Field(
        default=100,
        description="Tokens on which a latent must fire to count in shares of latents: fewer give no score.",
    )
    groups: int = Field(default=20, ge=4, description="Groups of pairs for jackknife intervals; each costs 3 d^2 numbers.")
    reservoir: int = Field(default=2048, ge=32, description="Pairs drawn for what compares rows with each other.")
    subspace: PositiveInt = Field(default=8, description="Dimensions of the leading subspaces that are compared.")
    neighbours: PositiveInt = Field(default=10, description="Neighbours of a row that are compared.")
    clusters: int = Field(default=20, ge=2, description="Clusters of the rows of both modalities, for their homogeneity.")
    ridge: PositiveFloat = Field(default=1e-2, description="Penalty of the closed-form probes, in mean variances of a dimension.")
    min_per_class: PositiveInt = Field(default=5, description="Pairs that a class must have to take part in the concept level.")
    resamples: int = Field(default=500, ge=50, description="Bootstrap resamples, and permutations of the pairs.")
    seed: int = Field(default=0, description="Seed of groups, draws, permutations and the bootstrap.")

    @field_validator("poolings")
    @classmethod
    def _with_means(cls, poolings: tuple[Pooling, ...] | None) -> tuple[Pooling, ...] | None:
        if poolings is not None and ("mean" not in poolings or len(set(poolings)) < len(poolings)):
            raise ValueError(f"must name mean, and object or last beside it, each once at most, got {list(poolings)}")
        return poolings

    @field_validator("thresholds")
    @classmethod
    def _rates(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        if not thresholds or min(thresholds) <= 0 or max(thresholds) >= 1:
            raise ValueError(f"must be rates between 0 and 1, got {list(thresholds)}")
        return thresholds
