"""Class pages: how well each value of each attribute is read, what it is confused with, which latents separate it, what steering
does from it and to it, and what it looks like.

classes             all values of all attributes
classes/<row>       the page of one, by its row in that list
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

import numpy as np
import polars as pl

from linrep.explorer.probes import REGION, chosen_curve, main_probes
from linrep.explorer.site.class_latents import latents_by_value
from linrep.explorer.site.class_steering import steering_by_class
from linrep.explorer.site.pictures import Pictures
from linrep.explorer.site.results import Results
from linrep.explorer.site.shards import Site, numbers, words
from linrep.sample import unit_hash
from linrep.store.layout import MODALITIES
from linrep.store.samples import CLASS, class_values, read_samples

SHOWN = 12
"""Images and texts of a value."""
CONFUSED = 10
"""Other values that one is confused with, either way."""
DIGITS = 4
MODALITY = "modality"
Value = tuple[str, str]
"""An attribute and one of its values."""


@dataclass
class Members:
    """Samples of a value.

    Attributes:
        n: How many, by modality.
        drawn: A fair draw of them, by modality.
        harvest: Digest of the harvest that has them.
    """

    n: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, list[str]] = field(default_factory=dict)
    harvest: str = ""


def write_classes(
    site: Site, results: Results, pictures: Mapping[str, Pictures], paged: Mapping[str, Collection[str]] | None = None
) -> None:
    """Write the list of all values, and the page of each.

    Args:
        site: The site.
        results: The workspace's results.
        pictures: By digest of the harvest.
        paged: Images that have a page of their own, likewise.
    """
    members = members_by_value(results, pictures)
    reads = [(one, reads_by_value(one.frame("probes"), one.frame("classes"), one.frame("confusions")))
             for one in results.artefacts["probe"]]  # fmt: skip
    latents, steering = latents_by_value(results), steering_by_class(results)
    values = dict.fromkeys([*members, *(value for _, own in reads for value in own), *latents])
    values |= dict.fromkeys((CLASS, name) for name in steering)
    rows = []
    for value in values:
        own = members.get(value, Members())
        page = {
            "attribute": value[0],
            "value": value[1],
            "n": own.n,
            "probes": [{"name": one.name, "key": results.key(one), **found[value]} for one, found in reads if value in found],
            "latents": latents.get(value, []),
            "steering": steering.get(value[1], []) if value[0] == CLASS else [],
            **_shown(own, pictures, (paged or {}).get(own.harvest, ())),
        }
        site.shard(f"classes/{len(rows)}", page)
        rows.append(_row(page))
    site.shard("classes", _list(rows))


def members_by_value(results: Results, pictures: Mapping[str, Pictures]) -> dict[Value, Members]:
    """The samples of each value: as the probes' labels say where there are any, else the classes of the harvest.

    Args:
        results: The workspace's results.
        pictures: By digest of the harvest; of others no samples are shown.
    """
    found: dict[Value, Members] = {}
    for one in results.artefacts["probe"]:
        if one.parents["harvest"] in pictures:
            labels = one.frame("labels").filter(pl.col("attribute") != MODALITY)
            for (attribute, value, modality), rows in labels.group_by(
                ["attribute", "class_name", "modality"], maintain_order=True
            ):
                _add(found, (str(attribute), str(value)), str(modality), rows["sample_id"].to_list(), one.parents["harvest"])
    for one in results.artefacts["regions"]:
        if one.parents["harvest"] in pictures:
            shown = one.frame("regions").drop_nulls("category").unique(["category", "sample_id"], maintain_order=True)
            for (category,), rows in shown.group_by(["category"], maintain_order=True):
                _add(found, (REGION, str(category)), "image", rows["sample_id"].to_list(), one.parents["harvest"])
    for key, own in pictures.items():
        samples = read_samples(own.samples)
        groups: dict[tuple[str, str], list[str]] = {}
        for name, role, value in zip(samples.ids, samples.role, class_values(own.samples, samples), strict=True):
            if role and value is not None:
                groups.setdefault((value, role), []).append(name)
        for (value, modality), names in groups.items():
            _add(found, (CLASS, value), modality, names, key)
    return found


def _add(found: dict[Value, Members], value: Value, modality: str, names: list[str], harvest: str) -> None:
    """The first result that has samples of a value says which they are."""
    own = found.setdefault(value, Members(harvest=harvest))
    if own.harvest == harvest and modality not in own.n:
        own.n[modality] = len(names)
        own.drawn[modality] = nsmallest(SHOWN, names, key=unit_hash)


def _shown(own: Members, pictures: Mapping[str, Pictures], paged: Collection[str]) -> dict[str, Any]:
    here = pictures.get(own.harvest)
    if here is None:
        return {"images": [], "texts": []}
    texts = [here.facts(name) for name in own.drawn.get("text", ())]
    drawn = here.draw(own.drawn.get("image", ()))
    shown = ("name", "label", "file", "width", "height")
    images = [{key: one[key] for key in shown} | {"page": name in paged} for name, one in drawn.items()]
    return {"images": images, "texts": [{"sample": one["sample_id"], "text": (one["text"] or "")[:1000]} for one in texts]}


def reads_by_value(probes: pl.DataFrame, classes: pl.DataFrame, confusions: pl.DataFrame) -> dict[Value, dict[str, Any]]:
    """How well each value is read: a curve over layers for each view, modality and kind of probe.

    Beside the accuracy stands how often the probe says the value, of all test rows: the mean accuracy if what it says had nothing
    to do with the rows.

    Args:
        probes: Rows of the `PROBES` contract.
        classes: Of `PROBE_CLASSES`.
        confusions: Of `PROBE_CONFUSIONS`.

    Returns:
        By value: `curves` with lists by layer, each with the `layer` that is chosen on validation rows and what the value is
        confused with there, and the curve that is shown `first`, by modality.
    """
    which = ["attribute", "view", "kind", "tested_on"]
    main = main_probes(probes).filter(pl.col("attribute") != MODALITY)
    best = {
        key: own.sort("validation", "layer", descending=True, nulls_last=True)["layer"][0] for key, own in main.group_by(which)
    }
    first = {
        (str(attribute), str(modality)): {name: chosen_curve(own)[name][0] for name in ("view", "kind")}
        for (attribute, modality), own in main.group_by(["attribute", "tested_on"], maintain_order=True)
    }
    said = _said(confusions)
    rows = classes.filter(pl.col("attribute") != MODALITY).sort("layer", maintain_order=True)
    rows = rows.join(said, on=[*which, "layer", "class_name"], how="left", maintain_order="left")
    rows = rows.with_columns(
        pl.when(pl.col("all").is_not_null()).then(pl.col("said").fill_null(0) / pl.col("all")).alias("chance")
    )
    chosen = pl.DataFrame(
        [(*key, layer) for key, layer in best.items()],
        schema={**dict.fromkeys(which, pl.String), "layer": pl.Int32},
        orient="row",
    )
    confused = _confused(confusions.join(chosen, on=[*which, "layer"], how="semi", maintain_order="left"))
    found: dict[Value, dict[str, Any]] = {}
    for (*key, value), own in rows.group_by([*which, "class_name"], maintain_order=True):
        attribute, view, kind, modality = map(str, key)
        page = found.setdefault((attribute, str(value)), {"curves": [], "first": {}})
        page["first"].setdefault(modality, first.get((attribute, modality)))
        numbers = ("accuracy", "accuracy_low", "accuracy_high", "auroc", "chance")
        page["curves"].append(
            {"view": view, "kind": kind, "modality": modality, "layers": own["layer"].to_list(), "n": own["n_test"].to_list()}
            | {name: [None if v is None else round(v, DIGITS) for v in own[name]] for name in numbers}
            | {"layer": best.get(tuple(key)), **confused.get((*key, value), {"as": [], "of": []})}
        )
    return found


def _said(confusions: pl.DataFrame) -> pl.DataFrame:
    """How often each probe says each class, `said`, and its test rows, `all`."""
    which = ["attribute", "view", "kind", "tested_on", "layer"]
    every = confusions.group_by(which).agg(pl.col("n").sum().alias("all"))
    said = confusions.group_by([*which, pl.col("predicted").alias("class_name")]).agg(pl.col("n").sum().alias("said"))
    names = confusions.select(*which, pl.col("class_name")).unique()
    return names.join(said, on=[*which, "class_name"], how="full", coalesce=True).join(every, on=which)


def _confused(confusions: pl.DataFrame) -> dict[tuple[object, ...], dict[str, Any]]:
    """What each class is taken for, and what is taken for it: [value, test rows, share of the true class's rows]."""
    which = ["attribute", "view", "kind", "tested_on"]
    shares = confusions.with_columns(share=pl.col("n") / pl.col("n").sum().over([*which, "class_name"]))
    wrong = shares.filter(pl.col("class_name") != pl.col("predicted")).sort("n", descending=True, maintain_order=True)
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for name, own, other in (("as", "class_name", "predicted"), ("of", "predicted", "class_name")):
        for key, rows in wrong.group_by([*which, own], maintain_order=True):
            cells = [
                [value, n, round(share, DIGITS)]
                for value, n, share in rows.head(CONFUSED).select(other, "n", "share").iter_rows()
            ]
            found.setdefault(key, {"as": [], "of": []})[name] = cells
    return found


def _row(page: Mapping[str, Any]) -> dict[str, Any]:
    """What the list says of a value: how well it is read where validation chose, and its best latent that is no control."""
    row = {"attribute": page["attribute"], "value": page["value"]}
    for modality in MODALITIES:
        row[f"n_{modality}"] = page["n"].get(modality)
        row |= {f"accuracy_{modality}": None, f"chance_{modality}": None}
        for one in page["probes"]:
            first = one["first"].get(modality)
            for curve in one["curves"]:
                if first and curve["modality"] == modality and {key: curve[key] for key in first} == first:
                    at = curve["layers"].index(curve["layer"])
                    row |= {f"accuracy_{modality}": curve["accuracy"][at], f"chance_{modality}": curve["chance"][at]}
    # Chosen by the half of the samples that labels are chosen on, shown from the other.
    best = [part["best"][0] for one in page["latents"] for part in one["parts"] if part["best"]]
    row["f1"] = max(best, key=lambda latent: latent["f1_chosen"])["f1"] if best else None
    return row


def _list(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ["n_image", "n_text", "accuracy_image", "chance_image", "accuracy_text", "chance_text", "f1"]
    columns = {
        name: numbers(np.array([np.nan if row[name] is None else row[name] for row in rows], np.float32)) for name in names
    }
    columns |= {name: words([row[name] for row in rows]) for name in ("attribute", "value")}
    return {"n": len(rows), "columns": columns}
