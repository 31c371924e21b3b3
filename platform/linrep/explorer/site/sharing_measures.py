"""What each measure of sharing is, in a line: its name, what is counted, and whether sharing shows as a high or a low value."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from linrep.explorer.sharing_words import change_in_words

Way = Literal["high", "low", ""]


@dataclass(frozen=True)
class SharingMeasure:
    """A measure, or a family of them.

    Attributes:
        metric: Pattern of its names in the `SHARING` contract.
        label: What the pages call it; `{}` stands for what the pattern's group holds.
        meaning: What is counted.
        way: Whether sharing shows as a high or a low value; empty of levels, which say nothing by themselves.
    """

    metric: str
    label: str
    meaning: str
    way: Way = "high"


_MATCHED = "mean cosine of an image and its own caption, minus that of an image and another's caption"
_MEANS = ", with each modality's mean removed first"
MEASURES = (
    SharingMeasure("hub", "hub score", _MATCHED),
    SharingMeasure("hub_centred", "hub score, means removed", _MATCHED + _MEANS),
    SharingMeasure("hub_whitened", "hub score, whitened", _MATCHED + ", each modality's rows whitened first"),
    SharingMeasure(
        "gap_share",
        "gap between the modalities",
        "share of the variance of all rows that lies between the modalities' means",
        "low",
    ),
    SharingMeasure(
        "modality_directions",
        "directions until a probe is at chance",
        "directions taken out, one after the other, until no linear probe separates image from text",
        "low",
    ),
    SharingMeasure("cka_debiased", "CKA, debiased", "linear CKA of images and captions, with unbiased estimators"),
    SharingMeasure("cka", "CKA, plain", "linear CKA of images and captions; biased upwards where pairs are few"),
    SharingMeasure(
        "correlation", "correlation", "Pearson's correlation of images with their captions, over all dimensions at once"
    ),
    SharingMeasure("subspace_overlap", "subspace overlap", "mean squared cosine of the angles between leading subspaces"),
    SharingMeasure("subspace_cosine", "subspace cosine", "largest cosine of the angles between leading subspaces"),
    SharingMeasure(
        "neighbourhood_overlap",
        "common neighbours",
        "share of a pair's nearest neighbours among images that are its nearest among texts",
    ),
    SharingMeasure("pair_retrieval_image_to_text", "image finds its caption", "share of images whose nearest text is their own"),
    SharingMeasure("pair_retrieval_text_to_image", "caption finds its image", "share of texts whose nearest image is their own"),
    SharingMeasure(
        "modality_probe", "modality probe", "held-out accuracy of a linear probe that separates image from text", "low"
    ),
    SharingMeasure(
        "cluster_homogeneity", "cluster homogeneity", "whether clusters of all rows hold one modality each (1)", "low"
    ),
    SharingMeasure("cosine_matched", "cosine, matched", "mean cosine of an image and its caption", ""),
    SharingMeasure(
        "cosine_matched_centred", "cosine, matched, means removed", "mean cosine of an image and its caption" + _MEANS
    ),
    SharingMeasure("cosine_unmatched", "cosine, unmatched", "mean cosine of an image and another's caption", ""),
    SharingMeasure("cosine_(image|text)", "cosine of {}s", "mean cosine of two samples of this modality", ""),
    SharingMeasure("direction_cosine", "class directions", "cosine of a class's direction in images with its direction in texts"),
    SharingMeasure(
        "class_retrieval_image_to_text",
        "image class finds text class",
        "share of classes whose image direction is nearest to their own text direction",
    ),
    SharingMeasure(
        "class_retrieval_text_to_image",
        "text class finds image class",
        "share of classes whose text direction is nearest to their own image direction",
    ),
    SharingMeasure("transfer_image_to_text", "transfer, image to text", "accuracy on texts of a probe fitted on images"),
    SharingMeasure("transfer_text_to_image", "transfer, text to image", "accuracy on images of a probe fitted on texts"),
    SharingMeasure(
        "transfer_image_to_text_centred",
        "transfer, image to text, means aligned",
        "accuracy on texts of a probe fitted on images, once both means are aligned",
    ),
    SharingMeasure(
        "transfer_text_to_image_centred",
        "transfer, text to image, means aligned",
        "accuracy on images of a probe fitted on texts, once both means are aligned",
    ),
    SharingMeasure("probe_(image|text)", "probe at home, {}s", "accuracy of the probe where it was fitted, for comparison", ""),
    SharingMeasure(
        "turned_by_(text_.*)",
        "turned by {}",
        "share of the answers about images that a direction found in texts turns to its target",
    ),
    SharingMeasure(
        "turned_by_(.*)", "turned by {}", "the same with directions found in images: what those from texts are compared with", ""
    ),
    SharingMeasure("l0_(image|text)", "L0 of {} tokens", "latents that fire on a token of this modality", ""),
    SharingMeasure(
        r"overlap_([0-9.e-]+)",
        "fire on both, rate above {}",
        "of the latents that fire on more than this share of one modality's tokens, those that do on both",
    ),
    SharingMeasure(
        "bimodal_mass", "bimodal mass", "share of activation on latents whose modality score is away from both 0 and 1"
    ),
    SharingMeasure("bridge_cosine", "bridge cosine", "cosine of what latents write on an image and on its caption"),
    SharingMeasure(
        "bridge_diagonal_share", "bridge, same latent", "share of the bridge sum that goes from a latent to itself", ""
    ),
    SharingMeasure("cofire", "cofiring", "how often a latent that fires on one of a pair fires on both (Dice)"),
    SharingMeasure(
        "cross_modal_weight",
        "cross-modal weight",
        "mean cosine of a latent's strongest image tokens and its strongest text tokens",
    ),
    SharingMeasure(
        "cross_modal_weight_centred",
        "cross-modal weight, means removed",
        "mean cosine of a latent's strongest image tokens and its strongest text tokens" + _MEANS,
    ),
    SharingMeasure(
        "cross_modal_weight_rest",
        "cross-modal weight, own direction removed",
        "mean cosine of a latent's strongest image tokens and its strongest text tokens"
        + _MEANS
        + ", and the latent's own direction: by that alone they were chosen",
    ),
    SharingMeasure(
        "split_half_(.*)", "halves agree: {}", "correlation over latents of what both halves of the pairs say of it", ""
    ),
    SharingMeasure("reliability_(.*)", "reliability: {}", "the agreement of the halves, worked out for all pairs together", ""),
    SharingMeasure(
        r"modality_score_([0-9.]+_[0-9.]+)", "modality score {}", "share of the latents with a modality score in this range", ""
    ),
)
"""In the order in which the pages list them; the first that fits a name is meant."""


def measure_of(metric: str) -> tuple[SharingMeasure, str] | None:
    """The measure of a metric's name and its label; None for one that this program does not know."""
    for one in MEASURES:
        found = re.fullmatch(one.metric, metric)
        if found:
            return one, one.label.format(*(group.replace("_", " ") for group in found.groups()))
    return None


def reading(
    own: pl.DataFrame,
    untrained: Mapping[str, Any] | None = None,
    random: Mapping[str, Any] | None = None,
    trend: Mapping[str, Any] | None = None,
) -> str:
    """What a curve shows in a line: its trend over the layers beside its null and its controls.

    Args:
        own: Rows of the `SHARING` contract of one curve, layer by layer.
        untrained: The untrained model's row at the last layer.
        random: The row of random directions at the last layer.
        trend: Its row of the `SHARING_TRENDS` contract.
    """
    rows = own.sort("layer").drop_nulls("value")
    if not len(rows):
        note = own["note"].drop_nulls()
        return f"No value: {note[0]}." if len(note) else "No value."
    last = rows.row(-1, named=True)
    beside = [] if last["null"] is None else [f"null {_two(last['null'])}"]
    for what, row in (("untrained model", untrained), ("random directions", random)):
        if row is not None and row["value"] is not None:
            beside.append(f"{what} {_two(row['value'])}")
    found = f" ({', '.join(beside)})" if beside else ""
    if trend is None:
        return f"{_two(last['value'])} at layer {last['layer']}, the only one{found}."
    said = change_in_words(dict(trend))
    return f"{said[0].upper()}{said[1:]}{found}."


def _two(value: float) -> str:
    """Two digits, and no minus before a zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def described(metrics: Sequence[str]) -> list[dict[str, str]]:
    """Name, label, meaning and way of some metrics, in the order in which the pages list them."""
    order = {one.metric: i for i, one in enumerate(MEASURES)}
    found = []
    for metric in metrics:
        known = measure_of(metric)
        label, meaning, way = (known[1], known[0].meaning, known[0].way) if known else (metric, "", "")
        rank = order[known[0].metric] if known else len(order)
        found.append((rank, metric, {"metric": metric, "label": label, "meaning": meaning, "way": way}))
    return [one for _, _, one in sorted(found, key=lambda item: item[:2])]
