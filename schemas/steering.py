"""Tables of steering: what each edited run gave, what judges say of the answers, and what it comes to."""

import pyarrow as pa

from schemas.columns import column

VERSION = 7
"""Raised whenever a column changes its meaning, its type or its name."""

_WHICH = [
    column("site", pa.string(), "Where the edit acts: image, patches, last or everywhere; null without an edit", nullable=True),
    column("layer", pa.int32(), "Layer k at which it acts; null without an edit", nullable=True),
    column("edit", pa.string(), "none (the unedited run), add, ablate, swap, clamp, zero, mean, interchange or erase"),
    column(
        "direction",
        pa.string(),
        "Of an addition how its direction was found, or which control it is; of an interchange whose stream it is; of an "
        "erasure the subspace; of other edits which control it is, null for the edit itself",
        nullable=True,
    ),
    column(
        "strength",
        pa.float32(),
        "Strength of an addition, in the unit that the recipe says; of an erasure its rank, null for as many as classes span; "
        "null for others",
        nullable=True,
    ),
]
_WHO = [
    column("source", pa.string(), "Class of the image; in damage, the class that the direction leads away from"),
    column("target", pa.string(), "Class that the direction leads to"),
    column("sample_id", pa.string(), "Name of the sample"),
]
_HIGH_NORM = column(
    "n_high_norm",
    pa.int32(),
    "Positions of the site that the edit leaves alone because their norm is above the harvest's limit (attention sinks); null "
    "where the cell was not run",
    "tokens",
    nullable=True,
)
_ERROR = column("error", pa.string(), "Why this cell has no result; null where it has one", nullable=True)

CELLS = pa.schema(
    [
        *_WHO,
        *_WHICH,
        column("p_target", pa.float32(), "Probability of the target's name against the source's, forced choice", nullable=True),
        column("logp_source", pa.float32(), "Mean log-probability of the source's name per token", "nats", nullable=True),
        column("logp_target", pa.float32(), "Mean log-probability of the target's name per token", "nats", nullable=True),
        _HIGH_NORM,
        _ERROR,
    ]
)

ANSWERS = pa.schema(
    [
        *_WHO,
        *_WHICH,
        column("question", pa.int32(), "Number of the question in the recipe"),
        column("about", pa.string(), "What the question asks for: class, or another attribute"),
        column("text", pa.string(), "The free answer, greedy", nullable=True),
        _ERROR,
    ]
)

DAMAGE = pa.schema(
    [
        *_WHO,
        *_WHICH,
        column(
            "nll", pa.float32(), "Negative log-likelihood of the text after the edited prompt, per token", "nats", nullable=True
        ),
        column("n_tokens", pa.int32(), "Tokens of the text", "tokens"),
        _HIGH_NORM,
        _ERROR,
    ]
)

LENS = pa.schema(
    [
        column("sample_id", pa.string(), "Name of the sample"),
        column("class_name", pa.string(), "Its class"),
        column("layer", pa.int32(), "Layer k whose stream is read as if it were the last"),
        column("n_tokens", pa.int32(), "Image tokens read", "tokens"),
        column("n_high_norm", pa.int32(), "Image tokens kept apart because their norm is above the harvest's limit", "tokens"),
        column("n_classes", pa.int32(), "Classes of the plan, whose names are compared"),
        column(
            "p_class",
            pa.float32(),
            "Mean probability of the first token of the class's name over the image tokens",
            nullable=True,
        ),
        column("p_others", pa.float32(), "The same, mean over the other classes in the plan: the control", nullable=True),
        column(
            "top_class",
            pa.float32(),
            "Share of the image tokens whose likeliest class of the plan is the right one",
            nullable=True,
        ),
        _ERROR,
    ]
)

VERDICTS = pa.schema(
    [
        *[field for field in ANSWERS if field.name != "error"],
        column("plain", pa.string(), "The answer to the same question without an edit", nullable=True),
        column("score", pa.float32(), "-1 the original class, 0 neither, .25 .5 .75 in between, 1 the target", nullable=True),
        column("coherence", pa.float32(), "0 not a sensible answer .. 1 a sensible one", nullable=True),
        column(
            "kept", pa.bool_(), "Whether another attribute is answered as without the edit; null for the class", nullable=True
        ),
        column("error", pa.string(), "Why there is no verdict; null where there is one", nullable=True),
    ]
)

EFFECTS = pa.schema(
    [
        *_WHICH,
        column("control", pa.bool_(), "Whether this is a control"),
        column("measure", pa.string(), "What is measured; the measures are explained in the documentation"),
        column("value", pa.float64(), "Mean over pairs and samples"),
        column(
            "low",
            pa.float64(),
            "Lower end of the 95% interval over source classes, target classes and samples; Wilson's of shares and "
            "probabilities, with a part for the classes",
            nullable=True,
        ),
        column("high", pa.float64(), "Upper end of the interval", nullable=True),
        column("half_one", pa.float64(), "The same from every second source class: what a best cell is chosen by", nullable=True),
        column("half_two", pa.float64(), "From the other source classes: what is reported of a chosen cell", nullable=True),
        column("half_two_low", pa.float64(), "Lower end of that one's interval", nullable=True),
        column("half_two_high", pa.float64(), "Upper end of it", nullable=True),
        column("n_pairs", pa.int32(), "Pairs of classes that count"),
        column("n", pa.int32(), "Samples (of a pair) that count"),
    ]
)

MATCHED = pa.schema(
    [
        column("site", pa.string(), "Where the edit acts"),
        column("layer", pa.int32(), "Layer k at which it acts"),
        column("direction", pa.string(), "How the direction was found, or which control it is"),
        column("control", pa.bool_(), "Whether the direction is a control"),
        column("damage", pa.float64(), "Damage at which efficacy is read off the dose-response", "nats"),
        column("reached", pa.bool_(), "Whether the strengths reach that damage; else the value is that of the largest strength"),
        column("strength", pa.float64(), "Strength at that damage, interpolated"),
        column("efficacy", pa.float64(), "Probability of the target in the forced choice at that damage, interpolated"),
        column(
            "low",
            pa.float64(),
            "Lower end of the 95% interval: jackknife over source classes, target classes, images and texts; null of one alone",
            nullable=True,
        ),
        column("high", pa.float64(), "Upper end of the interval", nullable=True),
        column("n_pairs", pa.int32(), "Pairs of classes"),
    ]
)
