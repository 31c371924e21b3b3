"""The page of sharing: every measure by layer beside its null and its controls, and what single latents share.

sharing/<name>                      what was compared, and the measures of each level
sharing/<name>/geometry             the rows of a level, and a line on each of its curves; concept likewise
sharing/<name>/latent-<sae>         the same of an SAE and of its control of random directions
sharing/<name>/scores-<sae>         how modality scores and bridge scores are spread at each layer, and the strongest bridges
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from linrep.artefact import Artefact
from linrep.explorer.sharing_words import main_trends
from linrep.explorer.site.columns import columns
from linrep.explorer.site.results import Results
from linrep.explorer.site.shards import Site, file_name
from linrep.explorer.site.sharing_measures import described, reading
from linrep.sharing.artefact import TRENDS
from linrep.sharing.study import TRAINED, UNTRAINED

RANDOM = "/random"
WHICH = ("pooling", "attribute")
"""Beside its metric, what a curve is of."""
BINS = 20
STRONGEST = 30
"""Latents listed of an SAE at a layer, by their bridge score."""
KEPT = (
    "latent", "modality_score", "bridge", "bridge_partner", "bridge_partner_score", "cofire", "cofire_null",
    "cross_modal_weight_centred",
)  # fmt: skip
"""Columns that are shown of these."""


def write_sharing(site: Site, results: Results) -> None:
    """Write the shards of all sharing results in a workspace."""
    for one in results.artefacts["sharing"]:
        rows, latents = one.frame("sharing").sort("layer", maintain_order=True), one.frame("latents")
        trends = main_trends(one.table(TRENDS))
        levels = []
        for (level,), own in rows.group_by(["level"], maintain_order=True):
            if level != "latent":
                levels.append(_level(site, f"sharing/{one.name}/{level}", own, trends) | {"level": level, "sae": None})
        for name in _saes(rows):
            own = rows.filter((pl.col("level") == "latent") & (pl.col("sae").str.strip_suffix(RANDOM) == name))
            told = _level(site, f"sharing/{one.name}/latent-{file_name(name)}", own, trends)
            levels.append(told | {"level": "latent", "sae": name, "scores": _scores(site, one, name, latents)})
        head = {
            "pairs": one.about.pairs,
            "classes": one.about.classes,
            "harvests": {TRAINED: one.parents.get("harvest"), UNTRAINED: one.parents.get(UNTRAINED)},
            "levels": levels,
            "measures": described(sorted(set(rows["metric"]))),
        }
        site.shard(f"sharing/{one.name}", head)


def _saes(rows: pl.DataFrame) -> list[str]:
    return rows["sae"].drop_nulls().str.strip_suffix(RANDOM).unique(maintain_order=True).to_list()


def _level(site: Site, shard: str, rows: pl.DataFrame, trends: pl.DataFrame) -> dict[str, Any]:
    site.shard(shard, {"rows": columns(rows.drop("level")), "readings": readings(rows, trends)})
    curves = rows.select("metric", *WHICH).unique(maintain_order=True)
    return {
        "shard": shard,
        "curves": curves.to_dicts(),
        "metrics": curves["metric"].unique(maintain_order=True).to_list(),
        "n": len(rows),
    }


def readings(rows: pl.DataFrame, trends: pl.DataFrame) -> dict[str, str]:
    """A line on each curve, of the trained model where it has one, by metric, tokens and attribute with bars between them.

    Args:
        rows: Rows of the `SHARING` contract of one level, and of one SAE with its control.
        trends: Rows of the `SHARING_TRENDS` contract.
    """
    found = {}
    control = pl.col("sae").fill_null("").str.ends_with(RANDOM)
    for key, own in rows.group_by(["metric", *WHICH], maintain_order=True):
        plain = own.filter(~control)
        models = plain["model"].unique().to_list()
        model = TRAINED if TRAINED in models or not models else str(models[0])
        untrained = _last(plain.filter(pl.col("model") == UNTRAINED)) if model == TRAINED else None
        random = _last(own.filter(control & (pl.col("model") == model)))
        named = dict(zip(("metric", *WHICH), key, strict=True)) | {"model": model}
        named |= {"sae": plain["sae"][0] if len(plain) else own["sae"][0]}
        trend = _last(trends.filter(pl.all_horizontal(pl.col(n).eq_missing(pl.lit(v)) for n, v in named.items())), "base")
        said = reading(plain.filter(pl.col("model") == model), untrained, random, trend)
        found["|".join(str(part or "") for part in key)] = said
    return found


def _last(rows: pl.DataFrame, by: str = "layer") -> dict[str, Any] | None:
    return rows.sort(by).row(-1, named=True) if len(rows) else None


def _scores(site: Site, one: Artefact[Any], name: str, latents: pl.DataFrame) -> str | None:
    """The shard of how the scores of an SAE's latents are spread; None where the latents have no rows."""
    own = latents.filter(pl.col("sae").str.strip_suffix(RANDOM) == name)
    if not len(own):
        return None
    positive = own.filter(pl.col("bridge") > 0)["bridge"].log10().to_numpy()
    edges = np.linspace(positive.min(), positive.max(), BINS + 1) if len(positive) else np.linspace(0.0, 1.0, BINS + 1)
    bimodal = one.manifest.config.get("bimodal", 0.2)
    spread = []
    for (model, layer), rows in own.sort("model", "layer", maintain_order=True).group_by(["model", "layer"], maintain_order=True):
        control = pl.col("sae").str.ends_with(RANDOM)
        both = {"sae": rows.filter(~control), "random": rows.filter(control)}
        told = {which: spread_of(part, edges, bimodal) for which, part in both.items() if len(part)}
        strongest = both["sae"].sort("bridge", descending=True, nulls_last=True).head(STRONGEST)
        strongest = strongest.filter(pl.col("bridge") > 0).select(KEPT)
        spread.append({"model": model, "layer": layer, **told, "strongest": strongest.to_dicts()})
    shard = f"sharing/{one.name}/scores-{file_name(name)}"
    site.shard(shard, {"edges": edges.tolist(), "bimodal": bimodal, "spread": spread})
    return shard


def spread_of(latents: pl.DataFrame, edges: Sequence[float] | np.ndarray, bimodal: float) -> dict[str, Any]:
    """How the scores of some latents are spread, as shares of those that fire.

    Args:
        latents: Rows of the `SHARING_LATENTS` contract.
        edges: Steps of the logarithm of bridge scores, base ten.
        bimodal: A modality score between this and one minus this is of both modalities.

    Returns:
        `n` and `alive` latents, `modality` and `bridge` by step (of modality scores of equal width from 0 to 1), and the shares
        `image`, `both` and `text`, which add up to one where any latent fires.
    """
    score = latents["modality_score"].drop_nulls().to_numpy()
    bridge = latents.filter(pl.col("bridge") > 0)["bridge"].log10().to_numpy()
    alive = max(1, len(score))
    text, image = int((score <= bimodal).sum()), int((score >= 1 - bimodal).sum())
    return {
        "n": len(latents),
        "alive": len(score),
        "modality": (np.histogram(score, BINS, (0.0, 1.0))[0] / alive).tolist(),
        "bridge": (np.histogram(bridge, np.asarray(edges))[0] / alive).tolist(),
        "image": image / alive,
        "both": (len(score) - text - image) / alive,
        "text": text / alive,
    }
