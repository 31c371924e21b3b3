"""SAEs on the site: fronts, quality over layers, firing, training, and how known attributes and directions are found in them.

What was trained, its evaluations and the searches of the same harvest stand beside each other. Shards are by layer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from linrep.artefact import Artefact
from linrep.explorer.site.columns import columns
from linrep.explorer.site.results import Results, headline
from linrep.explorer.site.shards import Site
from linrep.sae.artefact import EvaluationAbout
from linrep.sae.layer import HISTORY, layer_name
from linrep.store.layout import MODALITIES

REPORTS = 120
"""Reports of a training that are drawn of each measure, evenly spread, the last one among them."""
OVER_LAYERS = ("fvu", "kl_spliced", "alive", "moved", "latents_of_energy_0.9")
"""Measures that are drawn over layers."""


@dataclass(frozen=True)
class NamedOnSite:
    """An SAE of a workspace.

    Attributes:
        key: What addresses call it: the folder it lies in, in the workspace.
        layer: Its layer.
        name: Its name.
        harvest: Digest of the harvest that it is of.
        saes: The artefact that has it: trained here, or evaluated from elsewhere; None of one that was only looked into.
        evaluation: Its newest evaluation; None where there is none.
        latents: The beginning of the shards of its latents; None where nobody looked into them.
    """

    key: str
    layer: int
    name: str
    harvest: str
    saes: str | None
    evaluation: Artefact[EvaluationAbout] | None
    latents: str | None


def named_saes(results: Results) -> list[NamedOnSite]:
    """All SAEs of a workspace: trained, evaluated or looked into."""
    found: dict[str, NamedOnSite] = {}
    for saes in results.artefacts["sae"]:
        newest = next(iter(results.inner(saes, "evaluate")), None)
        for layer in saes.about.layers:
            for name in saes.about.names:
                key = f"{results.key(saes)}/{layer_name(layer)}/{name}"
                found[key] = NamedOnSite(key, layer, name, saes.parents["harvest"], results.key(saes), newest, None)
    for one in elsewhere(results):
        for layer in one.about.layers:
            for name in one.about.names:
                key = f"{results.key(one)}/{layer_name(layer)}/{name}"
                found[key] = NamedOnSite(key, layer, name, one.parents["harvest"], results.key(one), one, None)
    for features in results.features:
        given = {(sae["layer"], sae["path"].rstrip("/").rsplit("/", 1)[-1]): sae["path"] for sae in features.manifest.saes}
        for sae in features.saes:
            path = given.get((sae.layer, sae.name), "").rstrip("/")
            harvest = features.parents["harvest"]
            # A workspace may have been moved since: what counts is the end of the path.
            key = next((key for key, own in found.items() if path.endswith("/" + key) and own.harvest == harvest), None)
            own = None if key is None else found[key]
            key = key or f"{results.key(features)}/{layer_name(sae.layer)}/{sae.name}"
            latents = f"latents/{features.name}/{sae.folder}"
            found[key] = NamedOnSite(
                key, sae.layer, sae.name, harvest, own and own.saes, own and own.evaluation, latents
            )  # fmt: skip
    return list(found.values())


def elsewhere(results: Results) -> list[Artefact[EvaluationAbout]]:
    """Evaluations of SAEs that were not trained here."""
    keys = [results.key(saes) + "/" for saes in results.artefacts["sae"]]
    return [one for one in results.artefacts["evaluate"] if not any(results.key(one).startswith(key) for key in keys)]


def write_saes(site: Site, results: Results) -> None:
    """Write the shards of all SAEs that were trained or evaluated, and of all searches.

    Args:
        site: The site.
        results: The workspace's results.
    """
    known = named_saes(results)
    for saes in results.artefacts["sae"]:
        for layer in saes.about.layers:
            history = pl.DataFrame(pl.from_arrow(saes.part(layer_name(layer), HISTORY)))
            site.shard(f"{results.key(saes)}/training-{layer}", training(history))
        rows = [_write_evaluation(site, results.key(one), one) for one in results.inner(saes, "evaluate")]
        about = {"layers": saes.about.layers, "names": saes.about.names, "steps": saes.about.steps, "reads": saes.about.reads}
        site.shard(
            results.key(saes), {**about, "trained": True, "evaluations": rows, "latents": _latents(known, results.key(saes))}
        )
    for one in elsewhere(results):
        row = _write_evaluation(site, results.key(one), one)
        about = {"layers": one.about.layers, "names": one.about.names, "steps": None, "reads": {}}
        site.shard(
            results.key(one), {**about, "trained": False, "evaluations": [row], "latents": _latents(known, results.key(one))}
        )
    for tune in results.artefacts["tune"]:
        front, trials = tune.frame("front"), tune.frame("trials")
        for layer in tune.about.layers:
            own = trials.filter(pl.col("layer") == layer)
            counts = dict(own.group_by("status", maintain_order=True).len().iter_rows())
            rows = _rounded(front.filter(pl.col("layer") == layer).drop("layer", "learning_rate", "text_share")).to_dicts()
            site.shard(f"{results.key(tune)}/layer-{layer}", {"front": rows, "counts": counts})
        site.shard(results.key(tune), {"layers": tune.about.layers})


def _latents(known: list[NamedOnSite], saes: str) -> dict[str, str]:
    """Where the latents of some SAEs are shown, by layer and name."""
    return {f"{one.layer}/{one.name}": one.latents for one in known if one.saes == saes and one.latents is not None}


def _write_evaluation(site: Site, key: str, one: Artefact[EvaluationAbout]) -> dict[str, Any]:
    """Write an evaluation's layers, and give what the page says of it."""
    quality, firing, truth, rebuilt = (one.frame(name) for name in ("quality", "firing", "truth", "rebuilt"))
    for layer in one.about.layers:
        here = pl.col("layer") == layer
        own = truth.filter(here)
        for n, name in enumerate(one.about.names):
            site.shard(f"{key}/layer-{layer}-truth-{n}", columns(own.filter(pl.col("sae") == name).drop("layer", "sae")))
        shown = {"quality": columns(quality.filter(here)), "firing": firing.filter(here).drop("layer").to_dicts()}
        site.shard(f"{key}/layer-{layer}", {**shown, "rebuilt": _rounded(rebuilt.filter(here).drop("layer")).to_dicts()})
    return {
        "key": key,
        "name": one.name,
        "headline": headline(one.place),
        "layers": one.about.layers,
        "names": one.about.names,
        "truth": len(truth) > 0,
        "curves": list(curves(quality)),
    }


def curves(quality: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Measures over layers with intervals and controls, a record for each SAE, modality and measure.

    Args:
        quality: Rows of the `QUALITY` contract.
    """
    wanted = pl.col("measure").is_in(OVER_LAYERS) & pl.col("modality").is_in([*MODALITIES, "both"])
    rows = _rounded(quality.filter(wanted).sort("layer", maintain_order=True))
    for (measure, modality, sae), own in rows.group_by(["measure", "modality", "sae"], maintain_order=True):
        yield {
            "measure": measure, "modality": modality, "sae": sae, "x": own["layer"].to_list(), "y": own["value"].to_list(),
            "low": own["low"].to_list(), "high": own["high"].to_list(), "control": own["control"].to_list(),
        }  # fmt: skip


def training(history: pl.DataFrame) -> list[dict[str, Any]]:
    """Curves over steps, a record for each SAE and measure, of at most `REPORTS` points.

    Args:
        history: Rows of the `TRAINING` contract, of one layer.
    """
    found = []
    for (sae, measure), own in history.sort("step").group_by(["sae", "measure"], maintain_order=True):
        n = len(own)
        kept = own if n <= REPORTS else own[sorted({round(i * (n - 1) / (REPORTS - 1)) for i in range(REPORTS)})]
        kept = _rounded(kept)
        found.append({"sae": sae, "measure": measure, "x": kept["step"].to_list(), "y": kept["value"].to_list()})
    return found


def _rounded(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col(pl.Float64).round_sig_figs(6))
