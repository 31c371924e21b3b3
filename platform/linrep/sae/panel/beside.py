"""The six controls of an SAE as it takes image rows, each from several seeds."""

from collections.abc import Sequence
from functools import partial

from linrep.sae.controls import (
    Activations,
    Active,
    Control,
    Training,
    covariance,
    exemplars,
    frozen_decoder,
    gaussian_twin,
    isotropic,
    principal,
)
from linrep.sae.sae import Sae

CONTROLS = ("isotropic", "covariance", "frozen decoder", "Gaussian twin", "exemplars", "principal")
"""In the order of tables."""


def controls(
    rows: Activations, n_latents: int, active: Active, seeds: Sequence[int], training: Training
) -> dict[str, tuple[Sae, ...]]:
    """Each control by name, as it takes image rows; principal components have no seed.

    Args:
        rows: Training rows by modality, images among them.
        n_latents: As many as the SAE has.
        active: Active latents of a row, as many as it has.
        seeds: Of the controls.
        training: How long those that are trained are: as long as the SAE was.
    """
    frozen, twin = (partial(make, training=training) for make in (frozen_decoder, gaussian_twin))
    makers: tuple[Control, ...] = (isotropic, covariance, frozen, twin, exemplars, principal)
    return {
        name: tuple(make(rows, n_latents, active, seed)["image"] for seed in (seeds if make is not principal else seeds[:1]))
        for name, make in zip(CONTROLS, makers, strict=True)
    }
