"""The latents of SAEs: a table of all of them, and a page each with examples, scores, words and neighbours.

Pages stand in blocks of `BLOCK` latents, a shard each. Of an SAE with more than `Limits.latents` latents only some have pages:
those that are explained first, then those that separate a value of the samples best; the table has all. Of the examples a
page has those at the top, and a few of each quantile.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from linrep.artefact import Artefact
from linrep.contents.stored import Contents
from linrep.explorer.site.histograms import BINS, Histograms, histograms
from linrep.explorer.site.pictures import Pictures, in_layouts
from linrep.explorer.site.results import Results
from linrep.explorer.site.shards import LONGEST, Site, numbers, shortened, words
from linrep.features.artefact import Features, StudiedSae

BLOCK = 8
"""Latents of a shard."""
SHOWN = {"image": (16, 3), "text": (10, 1)}
"""Examples on a page by modality: at the top, and of each quantile."""
WORDS = 5
"""Words of a latent in the table."""
PATCHES = 64
"""Patches of an example, the strongest."""
DIGITS = 4
NUMBERS = (
    "modality_score", "rate_image", "rate_text", "max_image", "max_text", "f1", "auroc", "entropy", "monosemanticity",
    "uniqueness", "region_iou", "region_iou_dealt",
)  # fmt: skip
"""Columns of the features that the table shows as numbers."""


@dataclass(frozen=True)
class StudiedOnSite:
    """An SAE on a site.

    Attributes:
        features: Where it was looked into.
        sae: It.
        key: The beginning of its shards' names.
        interpretations: Explanations of its latents, None where there are none.
    """

    features: Features
    sae: StudiedSae
    key: str
    interpretations: Artefact[Any] | None

    @property
    def row(self) -> dict[str, Any]:
        """What the site's own shard says of it."""
        return {
            "key": self.key,
            "features": self.features.name,
            "harvest": self.features.parents["harvest"],
            "layer": self.sae.layer,
            "sae": self.sae.name,
            "latents": self.sae.latents,
            "control": self.sae.name.endswith("/random"),
            "explained": self.interpretations is not None,
        }


def studied(results: Results) -> list[StudiedOnSite]:
    """All SAEs that were looked into, with their explanations."""
    found = []
    for features in results.features:
        explained = [one for one in results.artefacts["interpret"] if one.parents.get("features") == features.digest]
        for sae in features.saes:
            key = f"latents/{features.name}/{sae.folder}"
            own = next((one for one in explained if f"{sae.layer}/{sae.name}" in one.about.latents), None)
            found.append(StudiedOnSite(features, sae, key, own))
    return found


def write_latents(site: Site, one: StudiedOnSite, pictures: Pictures, contents: Contents | None, most: int) -> int:
    """Write the table and the pages of an SAE; gives how many latents have a page.

    Args:
        site: The site.
        one: The SAE.
        pictures: Of its harvest.
        contents: Texts of its harvest; None where the corpus is gone.
        most: Latents that get a page, at most.
    """
    table = one.features.frame().filter(pl.col("layer") == one.sae.layer, pl.col("sae") == one.sae.name).sort("latent")
    told = told_of(one)
    paged = _paged(table, told, most)
    site.shard(f"{one.key}/table", _table(table, told, paged))
    labels, overlaps = (
        shortened(one.features.frame(name).filter(pl.col("layer") == one.sae.layer, pl.col("sae") == one.sae.name))
        for name in ("labels", "overlaps")
    )
    by_latent = {key[0]: rows for key, rows in labels.group_by("latent")}
    regions = {key[0]: rows.sort("rank") for key, rows in overlaps.group_by("latent")}
    largest = table.select(pl.max_horizontal("max_image", "max_text")).to_series().to_numpy().astype(np.float32)
    counted = histograms(one.features, one.sae, largest)
    rows = {key[0]: rows for key, rows in table.with_columns(block=pl.col("latent") // BLOCK).group_by("block")}
    for latents, examples in _in_blocks(one, paged):
        number = latents[0] // BLOCK
        block = _block(rows[number].drop("block"), told, latents, examples, by_latent, regions, counted, pictures, contents)
        site.shard(f"{one.key}/{number}", block)
    return len(paged)


def _in_blocks(one: StudiedOnSite, paged: Sequence[int]) -> Iterator[tuple[list[int], pl.DataFrame]]:
    """Latents with pages block by block, with the examples that their pages show; each table of examples is read once."""
    most = pl.lit(0)
    for modality, (top, drawn) in SHOWN.items():
        own = pl.when(pl.col("kind") == "top").then(top).otherwise(drawn)
        most = pl.when(pl.col("modality") == modality).then(own).otherwise(most)
    blocks: dict[int, list[int]] = {}
    for latent in paged:
        blocks.setdefault(latent // BLOCK, []).append(latent)
    waiting: list[pl.DataFrame] = []
    runs = sorted((run.first, run.last) for run in one.features.about.runs.values() if run.folder == one.sae.folder)
    for first, last in runs:
        table = pl.from_arrow(one.features.examples(one.sae.name, first, last, one.sae.layer))
        assert isinstance(table, pl.DataFrame)
        waiting.append(table.filter(pl.col("latent").is_in(paged) & (pl.col("rank") < most)))
        whole = [number for number in blocks if (number + 1) * BLOCK <= last or last == runs[-1][1]]
        if whole:
            known = pl.concat(waiting).with_columns(block=pl.col("latent") // BLOCK)
            parts = {key[0]: rows for key, rows in known.group_by("block", maintain_order=True)}
            waiting = [known.filter(~pl.col("block").is_in(whole)).drop("block")]
            for number in whole:
                yield blocks.pop(number), parts.get(number, known.clear()).drop("block")


def told_of(one: StudiedOnSite) -> dict[int, dict[str, Any]]:
    """Explanation and scores of the latents that have them."""
    if one.interpretations is None:
        return {}
    mine = (pl.col("layer") == one.sae.layer) & (pl.col("sae") == one.sae.name)
    found: dict[int, dict[str, Any]] = {}
    for row in one.interpretations.frame("explanations").filter(mine).iter_rows(named=True):
        texts = {key: None if row[key] is None else row[key][:LONGEST] for key in ("explanation", "source", "before", "error")}
        found[row["latent"]] = {**texts, "scores": []}
    kept = ("modality", "task", "control", "partner", "value", "low", "high", "n_positive", "n_negative")
    for row in one.interpretations.frame("scores").filter(mine).iter_rows(named=True):
        if row["latent"] in found:
            found[row["latent"]]["scores"].append({key: row[key] for key in kept})
    return found


def score_of(told: Mapping[str, Any] | None, control: str) -> float | None:
    """The mean of the detection scores of a latent's explanation over modalities, or of a control's."""
    scores = [s["value"] for s in (told or {}).get("scores", ()) if s["task"] == "detection" and s["control"] == control]
    known = [value for value in scores if value is not None]
    return sum(known) / len(known) if known else None


def _paged(table: pl.DataFrame, told: Mapping[int, Any], most: int) -> list[int]:
    if len(table) <= most:
        return table["latent"].to_list()
    ranked = (
        table.select("latent", pl.col("f1").fill_null(-1.0)).sort("f1", descending=True, maintain_order=True)["latent"].to_list()
    )
    return sorted(list(dict.fromkeys([*sorted(told), *ranked]))[:most])


def _table(table: pl.DataFrame, told: Mapping[int, Mapping[str, Any]], paged: Sequence[int]) -> dict[str, Any]:
    latents = table["latent"].to_list()
    columns = {name: numbers(table[name].cast(pl.Float32).fill_null(float("nan")).to_numpy()) for name in NUMBERS}
    for name, control in (("score", "own"), ("score_shuffled", "shuffled")):
        values = [score_of(told.get(latent), control) for latent in latents]
        columns[name] = numbers(np.array([np.nan if v is None else v for v in values], np.float32))
    alive = (table["samples_image"] + table["samples_text"] > 0).cast(pl.UInt8).to_numpy()
    best = table.select(pl.concat_str("best_attribute", pl.lit(" "), "best_value")).to_series().to_list()
    own = set(paged)
    return {
        "n": len(latents),
        "latent": numbers(np.array(latents, np.int32)),
        "alive": numbers(np.ascontiguousarray(alive)),
        "paged": numbers(np.array([latent in own for latent in latents], np.uint8)),
        "numbers": columns,
        "texts": {
            "explanation": words([told.get(latent, {}).get("explanation") for latent in latents]),
            "best": words(best),
            "region": words(table["best_region"].to_list()),
            "words": words([" ".join(some[:WORDS]) if some else None for some in table["words_up"].to_list()]),
        },
    }


def _block(
    table: pl.DataFrame,
    told: Mapping[int, Mapping[str, Any]],
    latents: Sequence[int],
    examples: pl.DataFrame,
    labels: Mapping[Any, pl.DataFrame],
    regions: Mapping[Any, pl.DataFrame],
    counted: Histograms,
    pictures: Pictures,
    contents: Contents | None,
) -> dict[str, Any]:
    shown = pictures.draw(examples.filter(pl.col("modality") == "image")["sample_id"].to_list())
    number = {name: i for i, name in enumerate(shown)}
    by_latent = {key[0]: rows for key, rows in examples.group_by("latent", maintain_order=True)}
    pages = {}
    for row in table.filter(pl.col("latent").is_in(latents)).iter_rows(named=True):
        latent = row["latent"]
        own = by_latent.get(latent, examples.clear())
        known = labels.get(latent)
        pages[latent] = {
            "facts": {key: value for key, value in row.items() if not isinstance(value, list)},
            "words": _pairs(row, "words_up", "logits_up"),
            "words_down": _pairs(row, "words_down", "logits_down"),
            "neighbours": _pairs(row, "neighbours", "cosines"),
            "labels": [] if known is None else known.drop("layer", "sae", "latent").to_dicts(),
            "regions": regions[latent].drop("layer", "sae", "latent").to_dicts() if latent in regions else [],
            "told": told.get(latent),
            "histogram": _histogram(counted, latent, max(row["max_image"], row["max_text"])),
            "images": [image_example(e, number) for e in own.filter(pl.col("modality") == "image").iter_rows(named=True)],
            "texts": [_text(e, contents) for e in own.filter(pl.col("modality") == "text").iter_rows(named=True)],
        }
    return {**in_layouts(list(shown.values())), "latents": pages}


def _histogram(counted: Histograms, latent: int, largest: float) -> dict[str, Any] | None:
    """Shares of the tokens on which the latent fires, by modality and step of its activation; None where it never fires."""
    own = {modality: counts[latent] for modality, counts in counted.counts.items()}
    if not any(counts.any() for counts in own.values()):
        return None
    shares = {modality: (counts / max(1, counts.sum())).round(DIGITS).tolist() for modality, counts in own.items()}
    return {"edges": [round(largest * step / BINS, DIGITS) for step in range(BINS + 1)], "whole": counted.whole, **shares}


def _pairs(row: Mapping[str, Any], names: str, values: str) -> list[list[Any]]:
    return [[name, round(value, DIGITS)] for name, value in zip(row[names] or (), row[values] or (), strict=True)]


def _which(example: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": example["kind"],
        "quantile": example["quantile"],
        "activation": round(example["activation"], DIGITS),
        "held": example["n_held"],
        "tokens": example["n_tokens"],
        "active": example["n_active"],
    }


def image_example(example: Mapping[str, Any], number: Mapping[str, int]) -> dict[str, Any]:
    """An image example: its picture's number, and [is a crop, row, column, activation] of each patch that fires."""
    places = zip(example["tiles"], example["rows"], example["cols"], example["activations"], strict=True)
    patches = [[int(tile > 0), row, col, round(value, DIGITS)] for tile, row, col, value in places if tile >= 0 and col >= 0]
    strongest = sorted(patches, key=lambda patch: -patch[3])[:PATCHES]
    return _which(example) | {"picture": number[example["sample_id"]], "patches": strongest}


def _text(example: Mapping[str, Any], contents: Contents | None) -> dict[str, Any]:
    """A text example: pieces of the text around the largest activation, and the activation at each, 0 where it is silent."""
    told = _which(example) | {"sample": example["sample_id"]}
    if contents is None:
        return told | {"pieces": [], "values": []}
    window = contents.window(example["sample_id"], example["position"])
    at = dict(zip(example["positions"], example["activations"], strict=True))
    return told | {"pieces": list(window.pieces), "values": [round(at.get(p, 0.0), DIGITS) for p in window.positions]}
