"""The tables of the sharing stage: one row a number, and one row a latent."""

import pyarrow as pa

from schemas.columns import column, high_norm

VERSION = 7
"""Raised whenever a column changes its meaning, its type or its name."""

SHARING = pa.schema(
    [
        column("model", pa.string(), "trained, or untrained: the same architecture with random weights, a control"),
        column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
        column("level", pa.string(), "geometry, concept or latent"),
        column("sae", pa.string(), "Latent level: the SAE; its control ends in /random", nullable=True),
        column("metric", pa.string(), "What is measured, see the list in the documentation"),
        column("value", pa.float64(), "The estimate from all pairs, corrected where noise pulls it to one side", nullable=True),
        column("low", pa.float64(), "Lower end of its 95% interval, see the documentation", nullable=True),
        column("high", pa.float64(), "Upper end of it", nullable=True),
        column(
            "null",
            pa.float64(),
            "The value if pairs, classes or labels meant nothing, or of random subspaces or directions; null where there is none",
            nullable=True,
        ),
        column("null_low", pa.float64(), "Lower end of the null's 95% range, where it was drawn or measured", nullable=True),
        column("null_high", pa.float64(), "Upper end of it", nullable=True),
        column(
            "half_one",
            pa.float64(),
            "The same from one half of the pairs (of steering, of the source classes); null of reliabilities, which compare them",
            nullable=True,
        ),
        column("half_two", pa.float64(), "The same from the other half", nullable=True),
        column(
            "n",
            pa.int64(),
            "Pairs that the number rests on; of latents, those that count; of steering, images",
            "pairs or latents",
        ),
        *high_norm("Image tokens at this layer", "image"),
        *high_norm("Text tokens at this layer", "text"),
        column("note", pa.string(), "Why there is no value, or none that is corrected for noise", nullable=True),
        column("parents", pa.string(), "Digest of the harvest, then of the SAE or the steering results where there are any"),
    ],
    metadata={"schema_version": str(VERSION)},
)

SHARING_LATENTS = pa.schema(
    [
        column("model", pa.string(), "trained or untrained"),
        column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
        column("sae", pa.string(), "The SAE; its control ends in /random"),
        column("latent", pa.int32(), "Number of the latent"),
        column("rate_image", pa.float64(), "Share of the image tokens on which it fires", "share"),
        column("rate_text", pa.float64(), "Share of the text tokens on which it fires", "share"),
        column("mean_image", pa.float64(), "Mean activation over image tokens, silent ones included", "model's own scale"),
        column("mean_text", pa.float64(), "Mean activation over text tokens", "model's own scale"),
        column("modality_score", pa.float64(), "mean_image / (mean_image + mean_text): 1 image only, 0 text only", nullable=True),
        column("bridge", pa.float64(), "Mean over pairs of the product of its means, times its decoder row's squared norm"),
        column(
            "bridge_partner",
            pa.int32(),
            "The other latent with the largest bridge score, whichever of the two is on images, over one half of the pairs in "
            "the reservoir; null where no score is above 0",
            nullable=True,
        ),
        column("bridge_partner_score", pa.float64(), "The bridge score of the two over the other half", nullable=True),
        column("cofire", pa.float64(), "Share of the pairs where it fires on the image and on the caption", "share"),
        column("cofire_null", pa.float64(), "The same for images and captions of different pairs, exactly", "share"),
        column(
            "cross_modal_weight",
            pa.float64(),
            "Mean cosine of its 8 strongest image tokens and its 8 strongest text tokens; null of fewer than 2 of either",
            nullable=True,
        ),
        column("cross_modal_weight_centred", pa.float64(), "The same with each modality's mean token removed", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)
