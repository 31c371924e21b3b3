"""Probes and features whose numbers are known, as complete artefacts that no stage has made, and what shards hold."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linrep import artefact
from linrep.artefact import Artefact
from linrep.explorer.site.results import Results
from linrep.features.artefact import FEATURES_KIND, FeaturesAbout, StudiedSae
from linrep.kind import Kind
from linrep.places import place
from linrep.probe.artefact import PROBES_KIND, ProbeAbout
from linrep.store.tables import table_of, write_table

HARVEST = "feedbeef00"
ARRAYS = {"f4": "<f4", "i4": "<i4", "u4": "<u4", "u2": "<u2", "u1": "u1", "i2": "<i2"}
KEEP = ("harvest", "regions", "probe", "steer", "sae", "evaluate", "tune", "sharing", "features", "interpret", "judge")


def written(
    kind: Kind[Any], workspace: Path, about: Any, tables: dict[str, list[dict]], parents: dict[str, str]
) -> Artefact[Any]:
    """A complete artefact of one unit with these tables."""
    here = artefact.plan(
        kind, place(workspace), "planted", decisive=0, parents=parents, config={}, units=["all"], about=about
    ).begun()
    own = {name: table_of(tables.get(name, []), schema) for name, schema in kind.tables.items()}
    here.write("all", own, 0.0, 1)
    here.finish()
    for name, schema in kind.whole.items():
        write_table(here.place, f"{name}.parquet", table_of(tables.get(name, []), schema))
    here.closing().close()
    found = artefact.find(kind, here.place)
    assert found is not None
    return found


def results(workspace: Path, **found: list[Artefact[Any]]) -> Results:
    """Results of a workspace with just these artefacts."""
    return Results(place(workspace), {}, {stage: found.get(stage, []) for stage in KEEP})


def shard(folder: Path, name: str) -> Any:
    """The value of a shard, as the page gets it."""
    text = (folder / "data" / f"{name}.js").read_text("ascii")
    start = f'LineOfSight.shard("{name}",'
    assert text.startswith(start)
    assert text.endswith(");\n")
    return json.loads(text[len(start) : -3])


def column(value: dict[str, Any]) -> list:
    """A column of numbers or texts; None for what is missing."""
    if "texts" in value:
        return [None if at < 0 else value["texts"][at] for at in column(value["rows"])]
    numbers = np.frombuffer(base64.b64decode(value["data"]), ARRAYS[value["kind"]]).tolist()
    return [None if v != v else v for v in numbers]


def same(found: list, expected: list) -> bool:
    """Whether two columns agree; numbers as closely as four bytes allow."""
    return len(found) == len(expected) and all(
        one == pytest.approx(other, rel=1e-6, abs=1e-9) if isinstance(other, float) and one is not None else one == other
        for one, other in zip(found, expected, strict=True)
    )


CLASSES = ["boat", "tree", "key"]


def probe_row(kind: str, layer: int, top1: float, **more: Any) -> dict:
    """A row of the probes table; numbers have an interval of a tenth either way."""
    row = {
        "attribute": "class", "view": "pooled", "layer": layer, "kind": kind, "tested_on": "image", "fitted_on": "image",
        "centred": False, "n_classes": 3, "n_train": 80, "n_test": 20, "n_test_samples": 20, "chance": 0.5,
        "validation": top1, "n_high_norm": 0, "high_norm_positions": [3, 5],
    }  # fmt: skip
    for name, value in {
        "top1": top1,
        "top5": 1.0,
        "balanced": top1 - 0.05,
        "auroc": 0.9,
        "shuffled": 0.3,
        "control_task": 0.4,
    }.items():
        row |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    row |= {"selectivity": top1 - 0.3, "selectivity_low": top1 - 0.4, "selectivity_high": top1 - 0.2}
    return {**row, **more}


def probe_tables() -> dict[str, list[dict]]:
    """Ridge reads images best at layer 2 on validation rows, though layer 0 is better on test rows; 20 test images."""
    probes = [
        probe_row("ridge", 0, 0.8, validation=0.6), probe_row("ridge", 2, 0.7, validation=0.9), probe_row("lda", 0, 0.4),
        probe_row("lda", 2, 0.4), probe_row("ridge", 0, 0.2, tested_on="text", centred=True),
        probe_row("ridge", 2, 0.3, k=None, n_per_class=5), probe_row("sparse", 2, 0.35, k=2),
        probe_row("ridge", 2, 0.9, attribute="<b>ground</b>", view="last", n_classes=2),
    ]  # fmt: skip
    which = {"attribute": "class", "view": "pooled", "kind": "ridge", "tested_on": "image"}
    counts = {
        0: [("boat", "boat", 8), ("tree", "tree", 8), ("key", "key", 4)],
        2: [
            ("boat", "boat", 6),
            ("boat", "key", 2),
            ("tree", "tree", 5),
            ("tree", "key", 1),
            ("tree", "boat", 2),
            ("key", "key", 4),
        ],
    }
    confusions = [
        {**which, "layer": layer, "class_name": a, "predicted": b, "n": n} for layer, own in counts.items() for a, b, n in own
    ]
    accuracies = {0: (1.0, 1.0, 1.0), 2: (0.75, 0.625, 1.0)}
    classes = [
        {**which, "layer": layer, "class_name": name, "n_test": n, "accuracy": value, "accuracy_low": value - 0.2,
         "accuracy_high": 1.0, "auroc": 0.9}
        for layer, values in accuracies.items() for name, n, value in zip(CLASSES, (8, 8, 4), values, strict=True)
    ]  # fmt: skip
    labels = [
        {"sample_id": f"images/{name}-{i:02d}", "modality": "image", "split": "test", "attribute": "class", "class_name": name,
         "shuffled": "key"}
        for name in CLASSES for i in range(20)
    ]  # fmt: skip
    return {"probes": probes, "classes": classes, "confusions": confusions, "labels": labels}


def planted_probes(workspace: Path) -> Artefact[Any]:
    """Probes of a workspace."""
    tasks = [
        {"attribute": "class", "source": "image", "names": CLASSES, "n_per_class": None},
        {"attribute": "<b>ground</b>", "source": "image", "names": ["sand", "snow"], "n_per_class": None},
    ]
    about = ProbeAbout("harvests/x", tasks, {"place of image": ["top left"]}, {"image": {"train": 80, "test": 20}})
    return written(PROBES_KIND, workspace, about, probe_tables(), {"harvest": HARVEST})


def label(latent: int, value: str, chosen: float, other: float, sae: str = "sae", modality: str = "image") -> dict:
    """A row of the labels of latents: F1 on the half that it is chosen on, and on the other."""
    return {
        "layer": 4, "sae": sae, "latent": latent, "modality": modality, "attribute": "class", "value": value, "threshold": 0.1,
        "f1_chosen": chosen, "f1": other, "auroc": 0.9, "auroc_error": 0.0, "entropy": 0.5, "n": 10,
    }  # fmt: skip


def planted_features(workspace: Path, labels: list[dict] | None = None) -> Artefact[Any]:
    """Features of an SAE and its control, whose latents separate boats."""
    labels = [label(1, "boat", 0.8, 0.7), label(5, "boat", 0.5, 0.3, "sae/random")] if labels is None else labels
    saes = [StudiedSae(4, "sae", "sae-00", 16), StudiedSae(4, "sae/random", "sae-00-random", 16)]
    about = FeaturesAbout("harvests/x", "model", saes, {}, {}, {}, None, {})
    return written(FEATURES_KIND, workspace, about, {"labels": labels}, {"harvest": HARVEST})
