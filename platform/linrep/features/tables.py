"""What was gathered of a run of latents, as rows of the contracts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from linrep.encoder import Latents
from linrep.features.config import FeaturesConfig
from linrep.features.gather import LatentSums, SampleFacts
from linrep.features.labels import LabelScores
from linrep.features.regions import ChosenRegions, Folds, RegionFacts
from linrep.features.words import lens, nearest
from linrep.stats.folded import folded
from linrep.stats.interval import NOTHING
from linrep.store.layout import MODALITIES, Modality
from linrep.store.tables import table_of
from linrep.vlm.unembed import Unembedding
from schemas.features import FEATURE_EXAMPLES, FEATURE_LABELS, FEATURE_OVERLAPS, FEATURES

REGION_COLUMNS = {
    "best_region": "category",
    "region_iou": "iou",
    "region_iou_low": "iou_low",
    "region_iou_high": "iou_high",
    "region_iou_dealt": "iou_dealt",
    "region_precision": "average_precision",
}
"""Columns of the features, and those of the overlaps that they are taken from."""
ScoresByModality = dict[Modality, list[LabelScores]]
"""How well the latents of a run separate each attribute, by modality."""


def label_scores(found: LatentSums, known: SampleFacts, config: FeaturesConfig) -> ScoresByModality:
    """Score the attributes: once for all tables, since it takes far longer than they do."""
    return {
        m: [found.labels[m].scores(i, config.min_samples, found.rates[m].present) for i in range(len(known.attributes[m]))]
        for m in MODALITIES
    }


def feature_table(
    found: LatentSums,
    labels: ScoresByModality,
    known: SampleFacts,
    latents: Latents,
    run: tuple[int, int],
    layer: int,
    config: FeaturesConfig,
    words: Unembedding | None,
) -> pa.Table:
    """One row a latent; what needs the whole SAE's examples (uniqueness) is left open."""
    n = run[1] - run[0]
    columns: dict[str, Any] = {"layer": [layer] * n, "sae": [latents.name] * n, "latent": range(*run)}
    for m in MODALITIES:
        rates = found.rates[m]
        columns |= {
            f"rate_{m}": rates.fired / max(rates.tokens, 1), f"mean_{m}": rates.mean, f"std_{m}": rates.std,
            f"max_{m}": rates.most.astype(np.float64), f"samples_{m}": rates.present,
        }  # fmt: skip
    image, text = (found.rates[m].mean for m in MODALITIES)
    both = image + text
    columns["modality_score"] = _nulls(np.divide(image, both, out=np.full(n, np.nan), where=both > 0))
    columns |= _best(labels["image"], known, n)
    columns |= _weights(latents, run, config, words)
    columns |= dict.fromkeys(REGION_COLUMNS, [None] * n)
    scores = np.full(n, np.nan) if found.alike is None else found.alike.scores(config.min_samples)
    columns |= {"monosemanticity": _nulls(scores), "uniqueness": [None] * n, "most_alike": [None] * n}
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in FEATURES], schema=FEATURES)


def overlap_table(chosen: ChosenRegions, folds: Folds, facts: RegionFacts, latents: Latents, first: int, layer: int) -> pa.Table:
    """One row a latent and category of regions, of those that it overlaps most."""
    rows = []
    patches = folds.patches[0].sum()
    for latent, k, category, inside, union, dealt in folds.rows():
        total, both = int(union.sum()), int(inside.sum())
        own = [g for g in range(len(union)) if union[g]]
        without = [(both - inside[g]) / (total - union[g]) if total > union[g] else np.nan for g in own]
        images = int(folds.images[0])
        found = folded(both / total, without, images, np.inf) if total else NOTHING
        n = int(folds.size[0, category].sum())
        rows.append(
            {
                "layer": layer, "sae": latents.name, "latent": latent + first, "rank": k,
                "category": facts.labels.categories[category], "threshold": float(chosen.threshold[latent, k]),
                "iou_chosen": float(chosen.iou_chosen[latent, k]), "iou": _null(found.value), "iou_low": _null(found.low),
                "iou_high": _null(found.high), "iou_dealt": _null(dealt),
                "average_precision": _null(float(chosen.precision[latent, k])), "n": n, "share": n / max(int(patches), 1),
            }
        )  # fmt: skip
    return table_of(rows, FEATURE_OVERLAPS)


def with_regions(table: pa.Table, overlaps: pa.Table) -> pa.Table:
    """Features with the region that each latent overlaps most, where it was chosen."""
    best = {row["latent"]: row for row in overlaps.to_pylist() if row["rank"] == 0}
    for name, of in REGION_COLUMNS.items():
        values = [best[latent][of] if latent in best else None for latent in table["latent"].to_pylist()]
        field = FEATURES.field(name)
        table = table.set_column(FEATURES.get_field_index(name), field, pa.array(values, field.type))
    return table


def _best(labels: Sequence[LabelScores], known: SampleFacts, n: int) -> dict[str, Any]:
    """The attribute and value of image samples that each latent separates best, by F1 where it was chosen."""
    columns: dict[str, list[Any]] = {name: [None] * n for name in ("best_attribute", "best_value", "f1", "auroc", "entropy")}
    most = np.full(n, -1.0)
    for attribute, scores in zip(known.attributes["image"], labels, strict=True):
        for j in np.flatnonzero((scores.value >= 0) & (np.nan_to_num(scores.f1_chosen, nan=-1) > most)):
            columns["best_attribute"][j], columns["best_value"][j] = attribute.name, attribute.values[scores.value[j]]
            columns["f1"][j], columns["auroc"][j] = float(scores.f1[j]), _nulls(scores.auroc[j : j + 1])[0]
        most = np.fmax(most, scores.f1_chosen)
        if attribute.name == "class":
            columns["entropy"] = _nulls(scores.entropy)
    return columns


def _weights(latents: Latents, run: tuple[int, int], config: FeaturesConfig, words: Unembedding | None) -> dict[str, Any]:
    n = run[1] - run[0]
    nothing: list[list[Any]] = [[] for _ in range(n)]
    columns: dict[str, Any] = dict.fromkeys(
        ("words_up", "logits_up", "words_down", "logits_down", "neighbours", "cosines"), nothing
    )
    if words is not None and config.words:
        ends = lens(latents.decoder[run[0] : run[1]], words, config.words)
        for way, at, logits in (("up", ends.high_at, ends.high), ("down", ends.low_at, ends.low)):
            columns[f"words_{way}"] = [[words.words[i] for i in row] for row in at.tolist()]
            columns[f"logits_{way}"] = logits.tolist()
    if config.neighbours and len(latents.decoder) > 1:
        cosines, who = nearest(latents.decoder, *run, config.neighbours)
        columns |= {"neighbours": who.tolist(), "cosines": cosines.tolist()}
    return columns


def label_table(labels: ScoresByModality, known: SampleFacts, latents: Latents, first: int, layer: int) -> pa.Table:
    """One row a latent, modality and attribute, of those with enough samples."""
    tables = []
    for m in MODALITIES:
        for attribute, scores in zip(known.attributes[m], labels[m], strict=True):
            at = np.flatnonzero(scores.value >= 0)
            own = LabelScores(*(getattr(scores, name)[at] for name in scores.__dataclass_fields__))
            columns: dict[str, Any] = {name: _nulls(values) for name, values in vars(own).items()}
            columns |= {"layer": [layer] * len(at), "sae": [latents.name] * len(at), "latent": at + first}
            columns |= {"modality": [m] * len(at), "attribute": [attribute.name] * len(at)}
            columns["value"] = [attribute.values[v] for v in own.value]
            arrays = [pa.array(columns[field.name], field.type) for field in FEATURE_LABELS]
            tables.append(pa.Table.from_arrays(arrays, schema=FEATURE_LABELS))
    return pa.concat_tables(tables) if tables else FEATURE_LABELS.empty_table()


def example_table(parts: Sequence[pa.Table], latents: Latents, layer: int) -> pa.Table:
    """The examples of all parts, by latent, modality, kind (the top first), quantile and rank."""
    table = pa.concat_tables(parts)
    n = len(table)
    table = table.add_column(0, FEATURE_EXAMPLES.field("layer"), pa.array([layer] * n, pa.int32()))
    table = table.add_column(1, FEATURE_EXAMPLES.field("sae"), pa.array([latents.name] * n, pa.string()))
    ways = [
        (name, "descending" if name == "kind" else "ascending") for name in ("latent", "modality", "kind", "quantile", "rank")
    ]
    return table.sort_by(ways).select(FEATURE_EXAMPLES.names).cast(FEATURE_EXAMPLES)


def _null(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _nulls(values: np.ndarray) -> list[Any]:
    return [None if v != v else v for v in values.tolist()]
