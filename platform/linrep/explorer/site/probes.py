"""The probes' page: every probe of an attribute and view in one shard, and what each confuses with what in others.

probes/<name>                               what can be chosen, and what is shown first
probes/<name>/<attribute>-<view>            the rows of the probes table
probes/<name>/<attribute>-<view>-<layer>    the confusions of the probes of a layer
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from linrep.artefact import Artefact
from linrep.explorer.probes import chosen_curve, main_probes
from linrep.explorer.site.columns import columns
from linrep.explorer.site.results import Results
from linrep.explorer.site.shards import Site, file_name

MATRIX = 40
"""Classes up to which confusions are shown as a matrix; of more, the most frequent confusions are listed."""
PAIRS = 200
"""Confusions listed of a probe with more classes than that."""


def write_probes(site: Site, results: Results) -> None:
    """Write the shards of all probes in a workspace."""
    for one in results.artefacts["probe"]:
        rows = one.frame("probes")
        confused = _confusions(site, one)
        parts = [
            _part(site, one, str(attribute), str(view), own) | {"confused": confused.get((attribute, view), [])}
            for (attribute, view), own in _by(rows, "attribute", "view")
        ]
        head = {"parts": parts, "first": first_choice(rows), "left_out": one.about.left_out, "splits": one.about.splits}
        site.shard(f"probes/{one.name}", head)


def first_choice(rows: pl.DataFrame) -> dict[str, Any]:
    """What is shown before anything is chosen: the curve that the headline speaks of, of images where there are some.

    Args:
        rows: Rows of the `PROBES` contract.
    """
    main = main_probes(rows)
    for wanted in (pl.col("tested_on") == "image", pl.col("tested_on") != "both", pl.lit(True)):
        own = main.filter(wanted)
        if len(own):
            attributes = own["attribute"].unique(maintain_order=True).to_list()
            own = own.filter(pl.col("attribute") == ("class" if "class" in attributes else attributes[0]))
            own = own.filter(pl.col("tested_on") == own["tested_on"][0])
            return {name: chosen_curve(own)[name][0] for name in ("attribute", "view", "tested_on", "kind")}
    return {}


def _part(site: Site, one: Artefact[Any], attribute: str, view: str, rows: pl.DataFrame) -> dict[str, Any]:
    shard = shard_of(one, attribute, view)
    site.shard(shard, columns(rows.drop("attribute", "view").sort("layer", maintain_order=True)))
    return {"attribute": attribute, "view": view, "shard": shard, "n": len(rows)}


def shard_of(one: Artefact[Any], attribute: str, view: str) -> str:
    """The shard of the probes of an attribute and view."""
    return f"probes/{one.name}/{file_name(attribute)}-{view}"


def _confusions(site: Site, one: Artefact[Any]) -> dict[tuple[object, object], list[object]]:
    """Write all confusions; gives the layers that have some, by attribute and view."""
    layers: dict[tuple[object, object], list[object]] = {}
    order = {(task["attribute"], task["source"]): task["names"] for task in one.about.tasks}
    for (attribute, view, layer), rows in _by(one.frame("confusions"), "attribute", "view", "layer"):
        probes = []
        for (kind, tested_on), own in _by(rows, "kind", "tested_on"):
            names = order.get((attribute, tested_on)) or sorted({*own["class_name"], *own["predicted"]})
            probes.append({"kind": kind, "tested_on": tested_on, **confusions(own, names)})
        site.shard(f"{shard_of(one, str(attribute), str(view))}-{layer}", probes)
        layers.setdefault((attribute, view), []).append(layer)
    return layers


def confusions(rows: pl.DataFrame, names: list[str]) -> dict[str, Any]:
    """What a probe confuses.

    Args:
        rows: Of the `PROBE_CONFUSIONS` contract, of one probe.
        names: Its classes in their order.

    Returns:
        `classes`, the test `rows` of each, and `cells` of [class, class of the best score, rows] by number in `classes`. Of more
        than `MATRIX` classes (`n_classes`) only the most frequent confusions are there, see `PAIRS`, and the classes in them.
    """
    total = dict(rows.group_by("class_name").agg(pl.col("n").sum()).iter_rows())
    whole = len(names) <= MATRIX
    shown = rows if whole else rows.filter(pl.col("class_name") != pl.col("predicted")).sort("n", descending=True).head(PAIRS)
    named = names if whole else list(dict.fromkeys([*shown["class_name"], *shown["predicted"]]))
    at = {name: i for i, name in enumerate(named)}
    cells = [[at[a], at[b], n] for a, b, n in shown.select("class_name", "predicted", "n").iter_rows()]
    own = [total.get(name, 0) for name in named]
    return {"classes": named, "n_classes": len(names), "rows": own, "cells": cells, "whole": whole}


def _by(rows: pl.DataFrame, *names: str) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
    yield from rows.group_by(names, maintain_order=True)
