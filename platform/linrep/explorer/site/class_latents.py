"""Which latents of every SAE separate a value of an attribute best, beside the SAE's control of random directions."""

from typing import Any

import polars as pl

from linrep.explorer.site.latents import StudiedOnSite, studied, told_of
from linrep.explorer.site.results import Results
from linrep.store.layout import MODALITIES

BEST = 8
"""Latents of an SAE for a value, on samples of each modality."""
RANDOM = "/random"
_NUMBERS = ("latent", "f1", "f1_chosen", "auroc", "n")


def latents_by_value(results: Results) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """By attribute and value: of each SAE the latents that separate it best, by modality.

    They are ranked by the half of the samples on which a latent's value and threshold are chosen, and reported from the other.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    saes = studied(results)
    tables = {one.features.name: one.features.frame("labels") for one in saes}
    by_name = {(one.features.name, one.sae.layer, one.sae.name): one for one in saes}
    for one in saes:
        if one.sae.name.endswith(RANDOM):
            continue
        control = by_name.get((one.features.name, one.sae.layer, one.sae.name + RANDOM))
        own, beside = (_best(tables[one.features.name], which) for which in (one, control))
        for value in dict.fromkeys((attribute, value) for attribute, value, _ in own):
            parts = []
            for modality in MODALITIES:
                best, n = own.get((*value, modality), ([], 0))
                null, n_null = beside.get((*value, modality), ([], 0))
                if best:
                    parts.append(
                        {"modality": modality, "best": best, "n": n, "random": null[0] if null else None, "n_random": n_null}
                    )
            said = {"sae": one.sae.name, "layer": one.sae.layer, "key": one.key, "features": one.features.name}
            found.setdefault(value, []).append(said | {"control": control.key if control else None, "parts": parts})
    return found


def _best(labels: pl.DataFrame, one: StudiedOnSite | None) -> dict[tuple[str, str, str], tuple[list[dict[str, Any]], int]]:
    """By attribute, value and modality: the best latents, and how many latents have no better value of this attribute."""
    if one is None:
        return {}
    own = labels.filter(pl.col("layer") == one.sae.layer, pl.col("sae") == one.sae.name)
    own = own.sort(["f1_chosen", "latent"], descending=[True, False], maintain_order=True)
    found, told = {}, told_of(one)
    for (attribute, value, modality), rows in own.group_by(["attribute", "value", "modality"], maintain_order=True):
        best = [
            row | {"explanation": told.get(row["latent"], {}).get("explanation")}
            for row in rows.head(BEST).select(_NUMBERS).to_dicts()
        ]
        found[str(attribute), str(value), str(modality)] = (best, len(rows))
    return found
