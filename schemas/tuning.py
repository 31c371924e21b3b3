"""Tables of the search for SAEs: every candidate, and the fronts."""

import pyarrow as pa

from schemas.columns import column

VERSION = 3
"""Raised whenever a column changes its meaning, its type or its name."""

_CANDIDATE = [
    column("candidate", pa.string(), "Name of the candidate"),
    column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
    column("architecture", pa.string(), "Kind of the activation, as a recipe names it: topk, jumprelu, ..."),
    column("sparsity", pa.float64(), "Its k, target_l0 or l1"),
    column("width", pa.int64(), "Latents", "latents"),
    column("learning_rate", pa.float64(), "At its height"),
    column("text_share", pa.float64(), "Share of text rows in training; null: as the store has them", "share", nullable=True),
]

TRIALS = pa.schema(
    [
        *_CANDIDATE,
        column("status", pa.string(), "finished: trained to its end; stopped: at a rung; failed"),
        column("reason", pa.string(), "Why it was stopped, or failed"),
        column("bracket", pa.string(), "What it was compared in"),
        column("rows", pa.int64(), "Rows that it was trained on", "rows"),
        column("fvu", pa.float64(), "Last held-out FVU, mean over the modalities", nullable=True),
        column("l0", pa.float64(), "Last held-out L0, mean over the modalities", "latents", nullable=True),
        column("seconds", pa.float64(), "From the first step of its pack", "s"),
    ],
    metadata={"schema_version": str(VERSION)},
)

FRONT = pa.schema(
    [
        *_CANDIDATE,
        column("modality", pa.string(), "Held-out rows: image, text, or mean: the mean of the two measures"),
        column("l0", pa.float64(), "Mean number of active latents", "latents"),
        column("fvu", pa.float64(), "Unexplained share of the variance about the rows' own mean"),
        column("fvu_choice", pa.float64(), "FVU on the half of the held-out rows that fronts are made of; the others report"),
        column("fvu_low", pa.float64(), "Lower end of its 95% interval over parts of the rows", nullable=True),
        column("fvu_high", pa.float64(), "Upper end", nullable=True),
        column("control", pa.float64(), "FVU of random directions, as many and as sparse", nullable=True),
        column(
            "on_front", pa.bool_(), "No finished candidate of the layer is better in one of L0 and FVU and no worse in the other"
        ),
        column("recommended", pa.bool_(), "The candidate to take at this layer"),
    ],
    metadata={"schema_version": str(VERSION)},
)
