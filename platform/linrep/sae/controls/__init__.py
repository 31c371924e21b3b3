"""Controls of an SAE, each an SAE itself, whose numbers stand beside those of the trained one.

`isotropic`, `covariance`, `exemplars` and `principal` take directions from nowhere, from the data's second moments, from single
rows or from principal components. `frozen_decoder` and `gaussian_twin` are trained, the first on a decoder that stays random, the
second on data without structure beyond mean and covariance. All take activations by modality, and give an SAE for each modality:
the same latents about that modality's own mean, in its own scale. All are functions of their arguments and the seed alone.
"""

from linrep.sae.controls.directions import (
    Activations,
    Active,
    Control,
    Saes,
    covariance,
    exemplars,
    isotropic,
    principal,
    random_sae,
)
from linrep.sae.controls.trained import Training, frozen_decoder, gaussian_twin

__all__ = [
    "Activations",
    "Active",
    "Control",
    "Saes",
    "Training",
    "covariance",
    "exemplars",
    "frozen_decoder",
    "gaussian_twin",
    "isotropic",
    "principal",
    "random_sae",
]
