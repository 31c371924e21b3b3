"""What to find out about the latents of SAEs: all but `memory_gb` decides numbers and enters the digest."""

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from linrep.config import Section
from linrep.named_sae import NamedSae


class FeaturesConfig(Section):
    """Which SAEs to look into, and how much to keep of each latent."""

    saes: tuple[NamedSae, ...] = Field(
        default=(),
        description="SAEs; random directions stand beside each.",
        examples=[({"layer": 4, "sae": "topk-16-x8"},)],
    )
    top: PositiveInt = Field(default=16, description="Samples of the largest activations, by latent and modality.")
    quantiles: PositiveInt = Field(default=5, description="Equal parts, by activation, of the samples where a latent fires.")
    per_quantile: PositiveInt = Field(default=4, description="Samples of each of these parts.")
    around: NonNegativeInt = Field(default=12, description="Text tokens shown before and after the largest activation.")
    patches: PositiveInt = Field(default=256, description="Patches shown of an image, at most: those where it fires most.")
    words: NonNegativeInt = Field(default=10, description="Words of the logit lens at either end; 0 leaves them out.")
    neighbours: NonNegativeInt = Field(default=8, description="Nearest latents by the decoder's cosine.")
    min_samples: PositiveInt = Field(
        default=10, description="Samples that a value must have, and on which a latent must fire, to be scored by it."
    )
    embeddings: str | None = Field(
        default=None,
        description="Vectors of images by an independent encoder, for the monosemanticity score: a .parquet with columns "
        "sample_id and vector, or a .safetensors with vectors and, in its metadata, sample_ids as JSON.",
    )
    memory_gb: PositiveFloat = Field(
        default=0.25,
        description="Of what each worker keeps while it reads; latents that do not fit come in further passes over the codes. "
        "It changes no number, and no digest.",
    )
    seed: int = Field(default=0, description="Seed of ties, of draws, of the halves, and of the random directions.")
