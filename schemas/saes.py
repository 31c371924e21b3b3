"""Tables of the SAEs' stage: training, quality, known attributes, directions rebuilt."""

import pyarrow as pa

from schemas.columns import column

VERSION = 3
"""Raised whenever a column changes its meaning, its type or its name."""
EVALUATION = 5
"""Raised whenever SAEs are evaluated otherwise: finished ones are then evaluated anew, and not trained again."""

_WHICH = [
    column("layer", pa.int32(), "Layer k: the residual stream entering block k"),
    column("sae", pa.string(), "Name of the SAE"),
]

TRAINING = pa.schema(
    [
        *_WHICH,
        column("step", pa.int64(), "Steps taken", "steps"),
        column(
            "measure",
            pa.string(),
            "loss, error, penalty, auxiliary, dead, learning_rate; fvu, l0 and rows by modality: fvu/image",
        ),
        column("value", pa.float64(), "Over the steps since the last report and over all workers; of scaled rows"),
    ],
    metadata={"schema_version": str(VERSION)},
)

QUALITY = pa.schema(
    [
        *_WHICH,
        column("modality", pa.string(), "Rows, or edited positions: image, text or both"),
        column(
            "measure",
            pa.string(),
            "fvu, explained_variance, cosine, l0, alive, dense, shrinkage, n_rows; latents_of_energy_0.5, _0.9, _0.99: latents "
            "that write this share of the energy of reconstructions, those of most energy first; moved: mean cosine of living "
            "latents' decoder rows with their first directions, 1: nothing moved; on held-out captions, in nats a token: "
            "kl_spliced, ce_spliced with reconstructions at the positions, _resample with another sample's tokens, _mean with "
            "the mean token, _zero with zeros, ce untouched; kl_recovered, ce_recovered: share of what resampling costs; "
            "n_texts, n_tokens, n_replaced; latents_needed_0.8/class, /random, and of 0.9: median of the vectors, one more than "
            "were tried where the cosine is not reached; stability/NAME: mean cosine with another seed's living latents, matched",
        ),
        column(
            "value",
            pa.float64(),
            "On held-out rows, in the model's own scale; null where a denominator is too small",
            nullable=True,
        ),
        column(
            "low",
            pa.float64(),
            "Of losses and shares recovered: 95% interval over captions; of latents needed and moved: quartile",
            nullable=True,
        ),
        column("high", pa.float64(), "Its upper end; null for other measures, and where captions are too few", nullable=True),
        column(
            "control",
            pa.float64(),
            "The same of random directions about each modality's mean, with as many latents; of moved: cosine with another "
            "seed's first directions",
            nullable=True,
        ),
        column("note", pa.string(), "Why a loss or a share has no value, or no interval", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)

FIRING = pa.schema(
    [
        *_WHICH,
        column("modality", pa.string(), "Rows: image, text or both"),
        column("low", pa.float64(), "Lower end of the bin of log10 firing rates; null: latents that never fire", nullable=True),
        column("latents", pa.int64(), "Latents in the bin, a quarter of a decade wide", "latents"),
        column("control", pa.int64(), "Those of the random SAE", "latents", nullable=True),
    ],
    metadata={"schema_version": str(VERSION)},
)

TRUTH = pa.schema(
    [
        *_WHICH,
        column("attribute", pa.string(), "class, or an attribute of the samples"),
        column("class_name", pa.string(), "Its value in words"),
        column("latent", pa.int64(), "The latent that separates it best, chosen on one half of the samples"),
        column("threshold", pa.float64(), "It says yes at and above this activation, the largest over a sample's image tokens"),
        column("f1", pa.float64(), "F1 on the other half", "share"),
        column("control", pa.float64(), "F1 of the random SAE's best latent, chosen and scored alike", "share"),
        column("auroc", pa.float64(), "AUROC of the latent of the best AUROC, chosen and scored alike: no threshold", "share"),
        column("auroc_control", pa.float64(), "That of the random SAE", "share"),
        column("probe_1", pa.float64(), "Balanced accuracy of a logistic regression on one latent", "share", nullable=True),
        column("probe_1_control", pa.float64(), "That of the random SAE", "share", nullable=True),
        column("probe_2", pa.float64(), "Likewise on two latents", "share", nullable=True),
        column("probe_2_control", pa.float64(), "That of the random SAE", "share", nullable=True),
        column("probe_5", pa.float64(), "Likewise on five latents", "share", nullable=True),
        column("probe_5_control", pa.float64(), "That of the random SAE", "share", nullable=True),
        column("n_test", pa.int64(), "Samples of the value that it is scored on", "samples"),
    ],
    metadata={"schema_version": str(VERSION)},
)

REBUILT = pa.schema(
    [
        *_WHICH,
        column("vectors", pa.string(), "class: differences of class means; random: random vectors of the same norms"),
        column("n_latents", pa.int32(), "Latents used", "latents"),
        column("cosine", pa.float64(), "Mean cosine of the vectors with what these latents rebuild"),
        column("low", pa.float64(), "Lower quartile over the vectors"),
        column("high", pa.float64(), "Upper quartile over the vectors"),
        column("control", pa.float64(), "Mean cosine with the random SAE"),
    ],
    metadata={"schema_version": str(VERSION)},
)
