"""What the comparing page reads: recipes with their results by stage, and SAEs with the distributions of their latents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from linrep.explorer.features import RANDOM
from linrep.explorer.site.columns import columns
from linrep.explorer.site.latents import StudiedOnSite, score_of, studied, told_of
from linrep.explorer.site.measured import of_features, of_quality, of_scores, rows_of, together
from linrep.explorer.site.results import Results, headline
from linrep.explorer.site.saes import NamedOnSite, named_saes
from linrep.explorer.site.shards import Site
from linrep.sae.artefact import SAES

BINS = 20
STAGES = ("probe", "steer", "sae", "tune", "sharing", "features", "interpret")


def write_compare(site: Site, results: Results) -> None:
    """Write the numbers that can be laid side by side.

    Args:
        site: The site.
        results: The workspace's results.
    """
    saes = named_saes(results)
    looked = {one.key: one for one in studied(results)}
    for number, one in enumerate(saes):
        site.shard(f"compare/sae-{number}", _sae(one, looked.get(one.latents or "")))
    site.shard(
        "compare", {"recipes": [_recipe(site, results, *own) for own in _recipes(results)], "saes": [_row(one) for one in saes]}
    )


def _recipes(results: Results) -> list[tuple[str, str]]:
    """Names of recipes with the digests of their harvests, in the order in which harvests were finished."""
    harvests = sorted(results.harvests.values(), key=lambda store: store.manifest.finished)
    found = [(store.manifest.name, store.manifest.digest) for store in harvests]
    for stage in STAGES:
        found += [(one.manifest.name, one.parents["harvest"]) for one in results.artefacts[stage] if "harvest" in one.parents]
    return list(dict.fromkeys(found))


def _recipe(site: Site, results: Results, name: str, harvest: str) -> dict[str, Any]:
    """A recipe's newest result of each stage, whose numbers are written."""
    stages = []
    for stage in STAGES:
        own = [o for o in results.artefacts[stage] if o.manifest.name == name and o.parents.get("harvest") == harvest]
        if own:
            newest = max(own, key=lambda one: one.manifest.finished)
            found, measured = results.numbers(stage, newest)
            shard = f"compare/{stage}-{newest.name}"
            site.shard(shard, columns(rows_of(found, measured)))
            stages.append({"stage": stage, "key": results.key(newest), "shard": shard, "headline": headline(measured.place)})
    store = results.harvests.get(harvest)
    head = None if store is None else store.manifest
    return {
        "key": f"{name}-{harvest}",
        "name": name,
        "harvest": None if store is None else results.key(store),
        "model": None if head is None else head.model.get("path"),
        "layers": [] if head is None else list(head.layers),
        "counts": None if head is None else head.counts,
        "stages": stages,
    }


def _row(one: NamedOnSite) -> dict[str, Any]:
    return {
        "key": one.key,
        "name": one.name,
        "layer": one.layer,
        "saes": one.saes,
        "latents": one.latents,
        "training": f"{one.saes}/training-{one.layer}" if one.saes and one.saes.startswith(f"{SAES.folder}/") else None,
    }


def _sae(one: NamedOnSite, looked: StudiedOnSite | None) -> dict[str, Any]:
    """An SAE's numbers, and what is known of its latents."""
    tables, firing = [], []
    if one.evaluation is not None:
        here = (pl.col("layer") == one.layer) & (pl.col("sae") == one.name)
        tables.append(of_quality(one.evaluation.frame("quality").filter(here), named=False))
        firing = one.evaluation.frame("firing").filter(here).drop("layer", "sae").to_dicts()
    if looked is None:
        return {"numbers": columns(together(tables)), "firing": firing, "latents": None}
    mine = (pl.col("layer") == one.layer) & (pl.col("sae") == one.name)
    table = looked.features.frame().filter(pl.col("layer") == one.layer)
    tables.append(of_features(_beside_control(table, one.name), named=False))
    if looked.interpretations is not None:
        scores = looked.interpretations.frame("scores").filter(pl.col("layer") == one.layer)
        tables.append(of_scores(_beside_control(scores, one.name), named=False))
    told = told_of(looked)
    own = table.filter(mine)
    return {
        "numbers": columns(together(tables)),
        "firing": firing,
        "latents": {
            "n": len(own),
            "distributions": distributions(own, told),
            "labels": best_latents(looked.features.frame("labels").filter(mine), told),
        },
    }


def _beside_control(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Rows of an SAE and of its random directions; of random directions those alone, for they have no control."""
    if name.endswith(RANDOM):
        return table.filter(pl.col("sae") == name).with_columns(pl.col("sae").str.strip_suffix(RANDOM))
    return table.filter(pl.col("sae").is_in([name, f"{name}{RANDOM}"]))


def distributions(table: pl.DataFrame, told: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How the latents that fire are spread over scores between 0 and 1, as shares in `BINS` bins.

    Args:
        table: Rows of the `FEATURES` contract, of one SAE.
        told: Explanations and scores by latent.
    """
    fires = table.filter((pl.col("samples_image") > 0) | (pl.col("samples_text") > 0))
    values = {name: fires[name].drop_nulls().to_list() for name in ("modality_score", "f1", "monosemanticity", "uniqueness")}
    scores = [score_of(told.get(latent), "own") for latent in fires["latent"]]
    values["explanation score"] = [score for score in scores if score is not None]
    found = []
    for name, own in values.items():
        if own:
            counts = np.histogram(np.clip(own, 0.0, 1.0), BINS, (0.0, 1.0))[0]
            found.append(
                {"name": name.replace("_", " "), "n": len(own), "shares": [round(float(c) / len(own), 5) for c in counts]}
            )
    return found


def best_latents(labels: pl.DataFrame, told: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each label the latent that separates it best, chosen on one half of the samples; its F1 is from the other.

    Args:
        labels: Rows of the `FEATURE_LABELS` contract, of one SAE.
        told: Explanations by latent.
    """
    keys = ["modality", "attribute", "value"]
    best = (
        labels.sort(["f1_chosen", "latent"], descending=[True, False]).unique(keys, keep="first", maintain_order=True).sort(keys)
    )
    return [
        {**row, "explanation": told.get(row["latent"], {}).get("explanation")}
        for row in best.select(*keys, "latent", "f1", "auroc").iter_rows(named=True)
    ]
