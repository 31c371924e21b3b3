"""The tables of the interpretations: one row a latent, one a score, one an answer."""

import pyarrow as pa

from schemas.columns import column

VERSION = 3
"""Raised whenever a column changes its meaning, its type or its name."""

_WHICH = [
    column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
    column("sae", pa.string(), "The SAE; its control ends in /random"),
    column("latent", pa.int32(), "Number of the latent"),
]

EXPLANATIONS = pa.schema(
    [
        *_WHICH,
        column("explanation", pa.string(), "When the latent fires, in words; null where the backend gave none", nullable=True),
        column("source", pa.string(), "human: edited by a person; else the backend: truth, local:PATH or chat:MODEL"),
        column("before", pa.string(), "What the backend had said, where a person edited it", nullable=True),
        column("error", pa.string(), "Why there is no explanation", nullable=True),
        column("n_shown_image", pa.int32(), "Image samples shown to the explainer, silent ones included", "samples"),
        column("n_shown_text", pa.int32(), "Text samples shown", "samples"),
        column("rate_image", pa.float64(), "Share of the image tokens on which it fires", "share"),
        column("rate_text", pa.float64(), "Share of the text tokens on which it fires", "share"),
        column("parents", pa.string(), "Digest of the features that it was made from"),
    ],
    metadata={"schema_version": str(VERSION)},
)

SCORES = pa.schema(
    [
        *_WHICH,
        column("modality", pa.string(), "Samples: image or text"),
        column("task", pa.string(), "detection (which samples), fuzzing (where in them) or overlap (patches with the object)"),
        column(
            "control",
            pa.string(),
            "own: its explanation; shuffled: that of `partner`. Overlap: own, or random: as many patches drawn anew",
        ),
        column("partner", pa.int32(), "The latent whose explanation was used instead", nullable=True),
        column("source", pa.string(), "Who made the explanation, as in explanations"),
        column(
            "value",
            pa.float64(),
            "Balanced accuracy; of overlap the mean intersection over union of firing patches and the object's; null where fewer "
            "than 4 answers of either kind",
            "share",
            True,
        ),
        column("low", pa.float64(), "Lower end of its 95% interval, from Wilson's of both shares", "share", True),
        column("high", pa.float64(), "Upper end of it", "share", True),
        column("sensitivity", pa.float64(), "Share of the positives that were found", "share", True),
        column("specificity", pa.float64(), "Share of the negatives that were refused", "share", True),
        column("specificity_hard", pa.float64(), "The same of the hard negatives alone", "share", True),
        column("n_positive", pa.int32(), "Answered positives", "samples"),
        column("n_negative", pa.int32(), "Answered negatives", "samples"),
        column("n_hard", pa.int32(), "Of these, hard: one of the nearest latents fires on them", "samples"),
        column("n_unanswered", pa.int32(), "Questions without a usable answer; they count nowhere else", "samples"),
    ],
    metadata={"schema_version": str(VERSION)},
)

ANSWERS = pa.schema(
    [
        *_WHICH,
        column("modality", pa.string(), "image or text"),
        column("task", pa.string(), "detection or fuzzing"),
        column("control", pa.string(), "own or shuffled"),
        column("sample_id", pa.string(), "Name of the sample"),
        column("truth", pa.bool_(), "Detection: whether the latent fires; fuzzing: whether the marks are where it fires"),
        column("hard", pa.bool_(), "A negative on which one of the nearest latents fires"),
        column("quantile", pa.int32(), "Of positives and of fuzzing: quantile of the activation, 0 the weakest", nullable=True),
        column("said", pa.bool_(), "The scorer's answer; null for none", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)
