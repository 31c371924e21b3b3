"""A small workspace of steering and SAEs whose every number is known, and a browser that opens its pages."""

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from linrep import artefact
from linrep.explorer.site.build import build_site
from linrep.explorer.site.results import open_results
from linrep.places import place
from linrep.sae.artefact import EVALUATIONS, SAES, EvaluationAbout, SaeAbout
from linrep.steer.artefact import STEERING, VERDICTS_KIND, SteerAbout, VerdictAbout, units_by_table
from linrep.store.tables import table_of, write_table
from schemas.saes import FIRING, QUALITY, REBUILT, TRAINING, TRUTH
from schemas.steering import ANSWERS, CELLS, EFFECTS, LENS, MATCHED, VERDICTS
from tests.pages import browse

HARVEST = {"harvest": "feedbeef00"}
LAYERS, STRENGTHS, DIRECTIONS = (0, 1), (0.5, 1.0), ("class_mean", "random")
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">"
SAMPLES = ("a/boat one.png", "a/boat two.png")
PAIRS = [["boat", "car"], ["car", "boat"]]


def turned(layer: int, direction: str, strength: float) -> bool:
    """Which edits turn an answer: those along the class mean at the last layer and the largest strength."""
    return (layer, direction, strength) == (1, "class_mean", 1.0)


def write_steering(workspace: Path) -> None:
    """Complete edited runs of two pairs, two images each, with the verdicts of one judge and what they come to."""
    cells, answers, verdicts = [], [], []
    for source, target in PAIRS:
        for sample in SAMPLES:
            who = {"source": source, "target": target, "sample_id": sample}
            plain = f"a {source}"
            edits = [{"edit": "none"}]
            edits += [
                {"site": "image", "layer": layer, "edit": "add", "direction": direction, "strength": strength}
                for layer in LAYERS
                for direction in DIRECTIONS
                for strength in STRENGTHS
            ]
            edits.append({"site": "image", "layer": 1, "edit": "zero"})
            for edit in edits:
                won = edit["edit"] == "add" and turned(edit["layer"], edit["direction"], edit["strength"])  # type: ignore[arg-type]
                text = HOSTILE if edit["edit"] == "zero" else f"a {target}" if won else plain
                score = 1.0 if won else 0.0 if edit["edit"] == "zero" else -1.0
                cells.append(
                    {**who, **edit, "p_target": 0.75 if won else 0.25, "n_high_norm": 3 if edit["edit"] == "add" else None}
                )
                answers.append({**who, **edit, "question": 0, "about": "class", "text": text})
                verdicts.append(
                    {
                        **who,
                        **edit,
                        "question": 0,
                        "about": "class",
                        "text": text,
                        "plain": plain,
                        "score": score,
                        "coherence": 1.0,
                    }
                )
    lens = [
        {"sample_id": sample, "class_name": "boat", "layer": layer, "n_tokens": 4, "n_high_norm": 0, "n_classes": 2,
         "p_class": 0.25 * (layer + 1), "p_others": 0.125, "top_class": 0.5}
        for sample in SAMPLES for layer in LAYERS
    ]  # fmt: skip
    units = ["answers-000000", "lens-000001"]
    config = {
        "directions": list(DIRECTIONS),
        "dose": {"relative": False},
        "ask": {"questions": [{"prompt": "<image> what is it ?", "about": "class"}], "choice": "<image> which ?"},
    }
    about = SteerAbout({"path": "demo://model"}, list(LAYERS), PAIRS, len(cells), "none", {"n_done": len(cells)})
    runs = artefact.plan(
        STEERING, place(workspace), "demo", decisive=1, parents=HARVEST, config=config, units=units, about=about
    ).begun()
    runs.write(units[0], {"cells": table_of(cells, CELLS), "answers": table_of(answers, ANSWERS)}, 1.0, 1)
    runs.write(units[1], {"lens": table_of(lens, LENS)}, 1.0, 1)
    runs.finish(units_by_table(units))
    runs.closing().close()
    judged = artefact.plan(
        VERDICTS_KIND, runs.place, "exact", decisive=1, parents={**HARVEST, "steer": runs.digest}, config={"kind": "exact"},
        units=[], about=VerdictAbout(),
    ).begun()  # fmt: skip
    write_table(judged.place, "verdicts.parquet", table_of(verdicts, VERDICTS))
    write_table(judged.place, "effects.parquet", table_of(_effects(), EFFECTS))
    write_table(judged.place, "matched.parquet", MATCHED.empty_table())
    judged.closing(extra={}).close()


def _effects() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for layer in LAYERS:
        for direction in DIRECTIONS:
            for strength in STRENGTHS:
                value = 0.75 if turned(layer, direction, strength) else 0.0
                ends = {"low": value - 0.25, "high": value + 0.25, "half_one": value, "half_two": value}
                which = {"site": "image", "layer": layer, "edit": "add", "direction": direction, "strength": strength}
                counts = {"control": direction == "random", "n_pairs": 2, "n": 4}
                rows.append({**which, "measure": "turned", "value": value, **ends, **counts})
                rows.append({**which, "measure": "damage", "value": strength / 4, "low": None, "high": None, **counts})
    rows.append({"edit": "none", "measure": "turned", "value": 0.0, "control": False, "n_pairs": 2, "n": 4})
    return rows


def write_saes(workspace: Path, evaluated: bool = True) -> None:
    """Two SAEs of two layers, trained, and evaluated if so."""
    names = ["topk-8", "topk-16"]
    units = [f"layer-{layer:03d}" for layer in LAYERS]
    saes = artefact.plan(
        SAES, place(workspace), "demo", decisive=1, parents=HARVEST, config={}, units=units,
        about=SaeAbout("harvests/demo", list(LAYERS), names, 300, {}),
    ).begun()  # fmt: skip
    for layer, unit in zip(LAYERS, units, strict=True):
        history = [
            {"layer": layer, "sae": name, "step": step, "measure": "fvu/image", "value": 1.0 / step}
            for name in names
            for step in range(1, 301)
        ]
        saes.write(unit, {"training": table_of(history, TRAINING)}, 1.0, 1)
    saes.closing().close()
    if not evaluated:
        return
    about = EvaluationAbout(saes.place.within(place(workspace)), list(LAYERS), names)
    one = artefact.plan(
        EVALUATIONS, saes.place, "demo", decisive=1, parents={**HARVEST, "sae": saes.digest}, config={}, units=units, about=about
    ).begun()
    for layer, unit in zip(LAYERS, units, strict=True):
        tables = {
            "quality": table_of([row for name in names for row in _quality(layer, name)], QUALITY),
            "firing": table_of([row for name in names for row in _firing(layer, name)], FIRING),
            "truth": table_of([_truth(layer, name, value) for name in names for value in ("boat", HOSTILE)], TRUTH),
            "rebuilt": REBUILT.empty_table(),
        }  # fmt: skip
        one.write(unit, tables, 1.0, 1)
    one.finish()
    one.closing().close()


def _quality(layer: int, name: str) -> list[dict[str, Any]]:
    sparse = name == "topk-8"
    of = {"layer": layer, "sae": name}
    rows = [
        {"measure": "fvu", "modality": "image", "value": 0.5 if sparse else 0.25, "control": 0.75},
        {"measure": "l0", "modality": "image", "value": 8.0 if sparse else 16.0, "control": 8.0},
        # 0.5 [0.4, 0.55] and 0.9 [0.8, 0.95]: the difference is 0.4, and its ends are sqrt(0.0125) away.
        {"measure": "ce_recovered", "modality": "both", "value": 0.5 if sparse else 0.9,
         "low": 0.4 if sparse else 0.8, "high": 0.55 if sparse else 0.95},
        {"measure": "kl_spliced", "modality": "both", "value": 0.5, "low": 0.4, "high": 0.6, "control": 2.0},
        {"measure": "latents_needed_0.8/class", "modality": "image", "value": 3.0, "low": 2.0, "high": 4.0},
        {"measure": "n_rows", "modality": "image", "value": 64.0},
    ]  # fmt: skip
    return [{**of, **row} for row in rows]


def _firing(layer: int, name: str) -> list[dict[str, Any]]:
    of = {"layer": layer, "sae": name, "modality": "image", "latents": 2, "control": 3}
    return [{**of, "low": low} for low in (None, -1.0)]


def _truth(layer: int, name: str, value: str) -> dict[str, Any]:
    shares = dict.fromkeys(("f1", "control", "auroc", "auroc_control"), 0.5)
    return {
        "layer": layer,
        "sae": name,
        "attribute": "class",
        "class_name": value,
        "latent": 7,
        "threshold": 1.0,
        "n_test": 9,
    } | shares


def make_site(workspace: Path) -> Path:
    """The site of a workspace, without images and texts."""
    results = open_results(place(workspace))
    assert results.damaged == []
    build_site(results, dict, lambda job: f"python jobs/{job}.py", "demo")
    return workspace / "explorer"


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> Any:
    """Rows as a frame of polars."""
    import polars as pl

    return pl.DataFrame(pl.from_arrow(table_of(rows, schema)))


def drive(site: Path, folder: Path, address: str, script: str) -> dict[str, Any]:
    """What a script finds on a page, in a browser that opens it from disk.

    Args:
        site: The site; it gets one more script and one more page.
        folder: Where the browser may keep its files.
        address: Of the page, from `#` on.
        script: Body of a JavaScript function of `page` (the element of the page) and `wait` (a promise of some milliseconds),
            which gives plain values.
    """
    driver = Path(__file__).with_name("drive.js").read_text()
    (site / "assets" / "drive.js").write_text(driver.rpartition("BODY")[0] + script + driver.rpartition("BODY")[2])
    page = (site / "index.html").read_text()
    (site / "driven.html").write_text(page.replace("</body>", '<script src="assets/drive.js"></script></body>'))
    seen = browse(f"file://{site}/driven.html{address}", folder, "--dump-dom")
    found = seen.partition("FOUND")[2].partition("END")[0]
    assert found, seen[-2000:]
    return json.loads(base64.b64decode(found))
