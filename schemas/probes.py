"""Tables of the probe stage: scores, scores by class, confusions, accuracies after erasures, and who was labelled what."""

import pyarrow as pa

from schemas.columns import column, high_norm

VERSION = 6
"""Raised whenever a column changes its meaning, its type or its name."""


def _interval(name: str, meaning: str, nullable: bool = False) -> list[pa.Field]:
    return [
        column(name, pa.float64(), meaning, "share", nullable),
        column(f"{name}_low", pa.float64(), f"Lower end of the 95% interval of {name}", "share", nullable),
        column(f"{name}_high", pa.float64(), f"Upper end of the 95% interval of {name}", "share", nullable),
    ]


_WHERE = [
    column("attribute", pa.string(), "What is read: class, modality, an attribute of the samples, or the region of a patch"),
    column("view", pa.string(), "pooled, tokens or last: which rows"),
    column(
        "layer", pa.int32(), "Layer k: the residual stream entering block k, or what block k adds to it; -1 for the vision tower"
    ),
    column(
        "kind",
        pa.string(),
        "class_mean, ridge, lda, softmax, sparse (k coordinates a class), latents (k of an autoencoder), latents_ridge ..., "
        "position (of regions: what the places of patches alone say)",
    ),
    column("tested_on", pa.string(), "Modality of the test rows: image, text or both"),
]

PROBES = pa.schema(
    [
        *_WHERE,
        column("fitted_on", pa.string(), "Modality of the training rows; another one than tested_on is a transfer"),
        column("centred", pa.bool_(), "Transfer in which the rows were centred at their own modality's mean"),
        column("n_per_class", pa.int32(), "Training samples per class, on the sample-efficiency curve", "samples", nullable=True),
        column("k", pa.int32(), "Coordinates, or latents, that are chosen for each class", nullable=True),
        column(
            "n_coordinates",
            pa.int32(),
            "Coordinates of all classes together, which each class is scored from; null where it is scored from its own alone",
            nullable=True,
        ),
        column("setting", pa.float64(), "Chosen on validation: penalty (of mean variances) or shrinkage", nullable=True),
        column(
            "setting_edge",
            pa.string(),
            "highest or lowest: the setting is the end of those that were tried, so that others may do better; null inside",
            nullable=True,
        ),
        column("validation", pa.float64(), "Top-1 on validation rows, by which kinds and layers are chosen among", nullable=True),
        column("n_classes", pa.int32(), "Classes that it separates"),
        column("n_train", pa.int64(), "Training rows; of modality twice those of the smaller one", "rows"),
        column("n_test", pa.int64(), "Test rows", "rows"),
        column("n_test_samples", pa.int64(), "Samples that the test rows come from: what intervals are over", "samples"),
        *high_norm("Tokens of the modality tested on at this layer, last positions alone where these are the rows,"),
        column(
            "chance",
            pa.float64(),
            "Share of the most frequent class among the test rows; a half where image and text weigh the same",
            "share",
        ),
        *_interval("top1", "Share of the test rows whose best score is their class; of modality, image and text weigh the same"),
        *_interval("top5", "Share of the test rows whose class is among the five best"),
        *_interval("balanced", "Mean over classes of the share of their rows that are right", nullable=True),
        *_interval("auroc", "Mean over classes of the area under the curve, class against rest", nullable=True),
        *_interval(
            "shuffled",
            "top1 of the same probe fitted on and scored against shuffled labels, of regions those of other images; null for "
            "transfers",
            nullable=True,
        ),
        *_interval(
            "control_task",
            "top1 of the same probe fitted on and scored against a fixed random function of the type (Hewitt & Liang, 2019)",
            nullable=True,
        ),
        column(
            "control_type",
            pa.string(),
            "The type: word, position (of the patch), attributes (with the class), or classes, which fall into two halves",
            nullable=True,
        ),
        *_interval("selectivity", "top1 minus control_task, on the same rows; null where the type is the class", nullable=True),
        column("gradient", pa.float64(), "Softmax: norm of the gradient at the end over that at zero weights", nullable=True),
        column("evaluations", pa.int32(), "Softmax: passes over the training rows at the chosen penalty", nullable=True),
        column("converged", pa.bool_(), "Softmax: whether the gradient came below the tolerance", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)

PROBE_CLASSES = pa.schema(
    [
        *_WHERE,
        column("class_name", pa.string(), "The class in words"),
        column("n_test", pa.int64(), "Test rows of the class", "rows"),
        *_interval("accuracy", "Share of them whose best score is the class", nullable=True),
        column("auroc", pa.float64(), "Area under the curve, this class against the rest", "share", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)

PROBE_CONFUSIONS = pa.schema(
    [
        *_WHERE,
        column("class_name", pa.string(), "The class of the rows"),
        column("predicted", pa.string(), "The class of the best score"),
        column("n", pa.int64(), "Test rows; cells without any are left out", "rows"),
    ],
    metadata={"schema_version": str(VERSION)},
)

PROBE_ERASURE = pa.schema(
    [
        column(
            "attribute", pa.string(), "What is read after the classes were erased: class, or another attribute of the samples"
        ),
        column("view", pa.string(), "pooled, tokens or last: which rows"),
        column(
            "layer",
            pa.int32(),
            "Layer k: the residual stream entering block k, or what block k adds to it; -1 for the vision tower",
        ),
        column("modality", pa.string(), "Modality of the rows: image or text"),
        column("method", pa.string(), "none, class_mean, leace, inlp; random or covariance (random with that of the rows)"),
        column(
            "fitted_on",
            pa.string(),
            "Modality of the training rows that say what is erased; another one than modality is cross-modal; null where none do",
            nullable=True,
        ),
        column("control", pa.bool_(), "Whether the subspace is a random one"),
        column("rank", pa.int32(), "Dimensions that are erased", "dimensions"),
        column("draws", pa.int32(), "Random subspaces that the row is the mean of; 1 of others"),
        column("setting", pa.float64(), "Penalty of the refitted probe, chosen on validation rows", nullable=True),
        column("removed", pa.float64(), "Mean squared distance that erasing moves training rows, over their variance", "share"),
        column("n_classes", pa.int32(), "Values of the attribute"),
        column("n_train", pa.int64(), "Training rows", "rows"),
        column("n_test", pa.int64(), "Test rows", "rows"),
        column("n_test_samples", pa.int64(), "Samples that the test rows come from: what intervals are over", "samples"),
        column("chance", pa.float64(), "Share of the most frequent value among the test rows", "share"),
        *_interval("top1", "Share of the test rows that a ridge probe reads rightly, refitted after the erasure"),
        *_interval(
            "over_covariance",
            "top1 minus that of `covariance` at the same rank, on the same rows: below 0 where more is erased than at random",
            nullable=True,
        ),
    ],
    metadata={"schema_version": str(VERSION)},
)

PROBE_LABELS = pa.schema(
    [
        column("sample_id", pa.string(), "Name of the sample"),
        column("modality", pa.string(), "Which of its rows take part: image or text"),
        column("split", pa.string(), "train, val or test"),
        column("attribute", pa.string(), "class, modality, or an attribute of the samples"),
        column("class_name", pa.string(), "Its class in words"),
        column("shuffled", pa.string(), "The class that shuffling dealt to it"),
        column(
            "control_task",
            pa.string(),
            "The class that the control task gives its type; single tokens may have others; null for modality",
            nullable=True,
        ),
    ],
    metadata={"schema_version": str(VERSION)},
)
