"""The tables of the sharing stage: one row a number, and one row a latent."""

import pyarrow as pa

from schemas.columns import column, high_norm

VERSION = 11
"""Raised whenever a column changes its meaning, its type or its name."""

_WHICH = (
    column(
        "pooling",
        pa.string(),
        "Which tokens a pair's two rows are made of: mean (all of the image, all of the caption), object (patches of the object, "
        "its word) or last (the last token under one question); null where no pair has a row",
        nullable=True,
    ),
    column("attribute", pa.string(), "Whose values the number is about: class, or an attribute; null where none", nullable=True),
)

SHARING = pa.schema(
    [
        column("model", pa.string(), "trained, or untrained: the same architecture with random weights, a control"),
        column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
        column("level", pa.string(), "geometry, concept or latent"),
        column("sae", pa.string(), "Latent level: the SAE; its control ends in /random", nullable=True),
        column("metric", pa.string(), "What is measured, see the list in the documentation"),
        *_WHICH,
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

SHARING_ACROSS = pa.schema(
    [
        column("model", pa.string(), "trained or untrained"),
        column("metric", pa.string(), "What is measured, as in the table of layers"),
        *_WHICH,
        column("image_layer", pa.int32(), "Layer of the images"),
        column("text_layer", pa.int32(), "Layer of the texts"),
        column("value", pa.float64(), "The estimate from the pairs of the reservoir", nullable=True),
        column("low", pa.float64(), "Lower end of its 95% interval", nullable=True),
        column("high", pa.float64(), "Upper end of it", nullable=True),
        column("null", pa.float64(), "The value if classes, labels or pairs meant nothing", nullable=True),
        column("null_low", pa.float64(), "Lower end of the null's 95% range, where it was drawn", nullable=True),
        column("null_high", pa.float64(), "Upper end of it", nullable=True),
        column(
            "best",
            pa.bool_(),
            "Whether this text layer cannot be separated from the one with the largest value for its image layer: the "
            "difference, with the same left out at both, has an interval that holds 0; null where there is no value",
            nullable=True,
        ),
        column("n", pa.int64(), "Pairs that the number rests on", "pairs"),
        column("note", pa.string(), "Why there is no value", nullable=True),
        column("parents", pa.string(), "Digest of the harvest"),
    ],
    metadata={"schema_version": str(VERSION)},
)

SHARING_LENS = pa.schema(
    [
        column("model", pa.string(), "trained or untrained"),
        column("image_layer", pa.int32(), "Layer of the image tokens"),
        column(
            "contexts",
            pa.string(),
            "Text layers of the contexts: all, own (the same layer) or first (word embeddings); logit: words of the logit lens",
        ),
        column("attribute", pa.string(), "Whose values are looked for: class, or an attribute"),
        column(
            "value",
            pa.float64(),
            "Share of image tokens of whose nearest contexts, or likeliest words, one names the value of their image; mean over "
            "images",
            "share",
        ),
        column("low", pa.float64(), "Lower end of its 95% interval, over images", nullable=True),
        column("high", pa.float64(), "Upper end of it", nullable=True),
        column("permuted", pa.float64(), "The same with the values of the other images, exactly", "share"),
        column("over", pa.float64(), "value - permuted"),
        column(
            "over_low",
            pa.float64(),
            "Lower end of its 95% interval, over images or over values, whichever is wider",
            nullable=True,
        ),
        column("over_high", pa.float64(), "Upper end of it", nullable=True),
        column("random", pa.float64(), "The same with contexts, or words of the vocabulary, drawn at random", "share"),
        column("text_layer", pa.float64(), "Mean layer of the nearest contexts, mean over images; null of words", nullable=True),
        column("text_layer_low", pa.float64(), "Lower end of its 95% interval, over images", nullable=True),
        column("text_layer_high", pa.float64(), "Upper end of it", nullable=True),
        column("tokens", pa.int64(), "Image tokens", "tokens"),
        column("images", pa.int64(), "Images that they are of", "images"),
        column("parents", pa.string(), "Digest of the harvest"),
    ],
    metadata={"schema_version": str(VERSION)},
)

SHARING_LEFT_OUT = pa.schema(
    [
        column("model", pa.string(), "trained or untrained"),
        column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
        column("level", pa.string(), "geometry, concept or latent"),
        column("sae", pa.string(), "Latent level: the SAE", nullable=True),
        column("metric", pa.string(), "What is measured"),
        *_WHICH,
        column("part", pa.string(), "What is left out: pairs 3 is a group of pairs, class boat a class"),
        column("value", pa.float64(), "The value from all the others; null where there is none", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)

SHARING_TRENDS = pa.schema(
    [
        column("model", pa.string(), "trained or untrained"),
        column("level", pa.string(), "geometry, concept or latent"),
        column("sae", pa.string(), "Latent level: the SAE; its control ends in /random", nullable=True),
        column("metric", pa.string(), "What is measured"),
        *_WHICH,
        column("main", pa.bool_(), "Whether words and figures are about this one: it counts from the first layer above 0"),
        column("base", pa.int32(), "Layer that the trend counts from: the first at which there is a value, above 0 or at all"),
        column("last", pa.int32(), "The last layer at which there is one"),
        column("layers", pa.int32(), "Layers from base to last that have a value", "layers"),
        column("base_value", pa.float64(), "The value at the base"),
        column("last_value", pa.float64(), "The value at the last layer"),
        column("change", pa.float64(), "Last minus base"),
        column("low", pa.float64(), "Lower end of its 95% interval", nullable=True),
        column("high", pa.float64(), "Upper end of it", nullable=True),
        column("slope", pa.float64(), "Least-squares slope over these layers", "a layer"),
        column("slope_low", pa.float64(), "Lower end of its 95% interval", "a layer", nullable=True),
        column("slope_high", pa.float64(), "Upper end of it", "a layer", nullable=True),
        column(
            "verdict",
            pa.string(),
            "flat: the interval of the change holds less than a tenth of the distance from the null (or .01) either way; else "
            "rises or falls: it does not hold 0; else undecided",
        ),
        column(
            "over",
            pa.string(),
            "What is left out at all layers at once: groups of pairs, else classes; layers: nothing, they count as independent",
        ),
        column("n", pa.int64(), "Pairs or classes", "pairs or classes"),
        column("classes_low", pa.float64(), "Lower end of the interval over classes: of others of their kind", nullable=True),
        column("classes_high", pa.float64(), "Upper end of it", nullable=True),
        column("classes_verdict", pa.string(), "The verdict on it; null where no class is left out", nullable=True),
        column("untrained_change", pa.float64(), "Last minus base in the untrained model", nullable=True),
        column("over_untrained", pa.float64(), "The change minus that one", nullable=True),
        column(
            "over_untrained_low", pa.float64(), "Lower end of its 95% interval, with the same left out in both", nullable=True
        ),
        column("over_untrained_high", pa.float64(), "Upper end of it", nullable=True),
        column("over_untrained_verdict", pa.string(), "The verdict on it", nullable=True),
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
        column(
            "modality_score",
            pa.float64(),
            "image / (image + text) of mean_image and mean_text, each over its modality's mean norm: 1 image only, 0 text only",
            nullable=True,
        ),
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
        column("cross_modal_weight_rest", pa.float64(), "The same without the latent's own direction too", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)
