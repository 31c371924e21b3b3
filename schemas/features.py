"""The tables of the features' stage: one row a latent, one a latent and attribute, one an example."""

import pyarrow as pa

from schemas.columns import column

VERSION = 6
"""Raised whenever a column changes its meaning, its type or its name."""

_WHICH = [
    column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
    column("sae", pa.string(), "The SAE; its control ends in /random"),
    column("latent", pa.int32(), "Number of the latent"),
]
_SCALE = "model's own scale"


def _of(modality: str) -> list[pa.Field]:
    """What is known of a latent on the tokens and the samples of one modality."""
    return [
        column(f"rate_{modality}", pa.float64(), f"Share of the {modality} tokens on which it fires", "share"),
        column(f"mean_{modality}", pa.float64(), f"Mean activation over {modality} tokens, silent ones included", _SCALE),
        column(f"std_{modality}", pa.float64(), "Standard deviation of the same", _SCALE),
        column(f"max_{modality}", pa.float64(), f"Largest activation on a {modality} token, 0 where it never fires", _SCALE),
        column(f"samples_{modality}", pa.int64(), f"{modality.capitalize()} samples on which it fires", "samples"),
    ]


FEATURES = pa.schema(
    [
        *_WHICH,
        *_of("image"),
        *_of("text"),
        column("modality_score", pa.float64(), "mean_image / (mean_image + mean_text): 1 image only, 0 text only", nullable=True),
        column("best_attribute", pa.string(), "class, or the attribute that it separates best, of image samples", nullable=True),
        column("best_value", pa.string(), "The value of that attribute which it separates best", nullable=True),
        column(
            "f1",
            pa.float64(),
            "F1 of saying so at a threshold; chosen on one half of the samples, this is the other",
            "share",
            True,
        ),
        column("auroc", pa.float64(), "Area under the ROC curve for that value, on the other half", "share", True),
        column("entropy", pa.float64(), "Entropy over the classes of image samples, see `labels`", "share of log n", True),
        column("best_region", pa.string(), "Category of regions that it overlaps most, see `overlaps`", nullable=True),
        column(
            "region_iou",
            pa.float64(),
            "Its patches and that category's: intersection over union, on the other half",
            "share",
            True,
        ),
        column("region_iou_low", pa.float64(), "Lower end of the 95% interval of region_iou, over images", "share", True),
        column("region_iou_high", pa.float64(), "Upper end of the 95% interval of region_iou, over images", "share", True),
        column("region_iou_dealt", pa.float64(), "The same with regions dealt from other images, at their places", "share", True),
        column(
            "region_precision", pa.float64(), "Average precision for that category's patches, on the other half", "share", True
        ),
        column("words_up", pa.list_(pa.string()), "Tokens that its decoder row raises most in the logit lens, highest first"),
        column("logits_up", pa.list_(pa.float32()), "By how much, above the mean over the vocabulary", "per unit of stream"),
        column("words_down", pa.list_(pa.string()), "Tokens that it lowers most, lowest first"),
        column("logits_down", pa.list_(pa.float32()), "By how much", "per unit of stream"),
        column("neighbours", pa.list_(pa.int32()), "Latents of the SAE with the nearest decoder rows, nearest first"),
        column("cosines", pa.list_(pa.float32()), "Cosine of its decoder row with theirs"),
        column(
            "monosemanticity",
            pa.float64(),
            "Mean cosine, in an independent encoder, of pairs of images weighted by the product of their activations",
            nullable=True,
        ),
        column("uniqueness", pa.float64(), "1 - largest Jaccard index of its top samples with another latent's", "share", True),
        column("most_alike", pa.int32(), "The latent with that index", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)

FEATURE_LABELS = pa.schema(
    [
        *_WHICH,
        column("modality", pa.string(), "Samples: image or text"),
        column("attribute", pa.string(), "class, or an attribute of the samples"),
        column("value", pa.string(), "The value with the best F1 on the half that it is chosen on"),
        column("threshold", pa.float64(), "It says so at and above this activation, the largest over a sample's tokens", _SCALE),
        column("f1_chosen", pa.float64(), "F1 on the half that value and threshold are chosen on", "share"),
        column("f1", pa.float64(), "F1 on the other half", "share"),
        column(
            "auroc", pa.float64(), "Area under the ROC curve for that value on the other half, ties counting half", "share", True
        ),
        column("auroc_error", pa.float64(), "Largest error of it: activations of one bin count as tied", "share", True),
        column(
            "entropy",
            pa.float64(),
            "Entropy over the values of its mean activation on samples of each: 0 one value, 1 all alike",
            "share of log n",
            True,
        ),
        column("n", pa.int64(), "Samples of the value in the half that it is scored on", "samples"),
    ],
    metadata={"schema_version": str(VERSION)},
)

FEATURE_OVERLAPS = pa.schema(
    [
        *_WHICH,
        column("rank", pa.int32(), "From 0 within the latent, by iou_chosen; 5 categories at most"),
        column("category", pa.string(), "The category of regions"),
        column("threshold", pa.float64(), "It fires at and above this activation; 0 wherever it fires at all", _SCALE),
        column("iou_chosen", pa.float64(), "iou on the half of the images that category and threshold are chosen on", "share"),
        column(
            "iou",
            pa.float64(),
            "Patches where it fires and that the category covers, over those of which either is true, on the other half",
            "share",
            True,
        ),
        column("iou_low", pa.float64(), "Lower end of the 95% interval of iou, over images", "share", True),
        column("iou_high", pa.float64(), "Upper end of the 95% interval of iou, over images", "share", True),
        column(
            "iou_dealt",
            pa.float64(),
            "The same with regions dealt from other images, at their places: the control",
            "share",
            True,
        ),
        column(
            "average_precision",
            pa.float64(),
            "Mean over the category's patches of the precision at their activation, on the other half; by chance it is share",
            "share",
            True,
        ),
        column("n", pa.int64(), "Patches of the category in the half that it is scored on, of those held", "patches"),
        column("share", pa.float64(), "Share of the annotated patches there that these are", "share"),
    ],
    metadata={"schema_version": str(VERSION)},
)

FEATURE_EXAMPLES = pa.schema(
    [
        *_WHICH,
        column("modality", pa.string(), "image or text"),
        column("kind", pa.string(), "top: the samples of the largest activations; quantile: a fair draw of those where it fires"),
        column("quantile", pa.int32(), "Of kind quantile: from 0, the weakest of the drawn samples", nullable=True),
        column("rank", pa.int32(), "From 0 within latent, modality, kind and quantile; top: by activation, quantile: by hash"),
        column("sample_id", pa.string(), "Name of the sample; it comes once at most within latent, modality and kind"),
        column("activation", pa.float32(), "The largest over the sample's tokens that the store holds", _SCALE),
        column("position", pa.int32(), "Where in the sequence that is"),
        column("n_active", pa.int32(), "Tokens of the sample on which the latent fires, of those held", "tokens"),
        column("n_held", pa.int32(), "Tokens of the sample that the store holds in this modality", "tokens"),
        column("n_tokens", pa.int32(), "Tokens that the sample has in this modality, newlines included", "tokens"),
        column(
            "positions",
            pa.list_(pa.int32()),
            "Image: where it fires, the strongest if they are many; text: the held tokens around the largest activation",
        ),
        column("activations", pa.list_(pa.float32()), "Its activation at each of `positions`", _SCALE),
        column("token_ids", pa.list_(pa.int32()), "Token at each of `positions`; of images the placeholder's"),
        column("tiles", pa.list_(pa.int16()), "Image: 0 the base view, 1.. the crops; empty for text"),
        column("rows", pa.list_(pa.int16()), "Image: row of the patch, in the base view's or the image's grid; empty for text"),
        column("cols", pa.list_(pa.int16()), "Image: column likewise; empty for text"),
    ],
    metadata={"schema_version": str(VERSION)},
)

FEATURE_CODES = pa.schema(
    [
        column("sample", pa.int64(), "Number of the sample in the harvest's samples table"),
        column("position", pa.int32(), "Place in the sequence"),
        column("token_id", pa.int32(), "Token at this position; the image placeholder's for patches"),
        column("tile", pa.int16(), "0 the base view, 1.. the crops in reading order; -1 for text"),
        column("row", pa.int16(), "Row of the patch; -1 for text"),
        column("col", pa.int16(), "Column of the patch; -1 for text"),
        column("latents", pa.large_binary(), "Latents that fire: int32, little-endian, in rising order"),
        column("values", pa.large_binary(), "Their activations: float32, little-endian", _SCALE),
    ],
    metadata={"schema_version": str(VERSION)},
)
