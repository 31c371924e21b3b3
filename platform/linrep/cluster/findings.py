"""What each stage's outcome says in the report: the headline, the one figure, and lines that show it."""

from collections.abc import Sequence

import polars as pl

from linrep.cluster.run_control import ControlOutcome
from linrep.cluster.stage import Outcome
from linrep.explorer.claims import Finding
from linrep.explorer.site.build import Built
from linrep.explorer.steering import best_cell, steer_examples
from linrep.places import Place
from linrep.stats.interval import in_brackets

StageOutcome = Outcome | ControlOutcome | Built
MAIN_FIGURES = {
    "probe": ("layers_class", "layers_"),
    "steer": ("layers_turned", "layers_p_target", "dose_"),
    "sae": ("front", "layers_fvu"),
    "features": ("",),
    "interpret": ("",),
    "tune": ("",),
    "sharing": ("sharing_geometry", "sharing_"),
}
"""Beginnings of the names of a stage's figures, the best for the report first."""


def finding(stage: str, outcome: StageOutcome, workspace: Place) -> Finding:
    """What a stage's outcome says in the report.

    Args:
        stage: Its name.
        outcome: What its job did.
        workspace: Where everything lies.
    """
    match outcome:
        case Outcome():
            here, name = outcome.artefact.place, outcome.artefact.name
            return Finding(
                stage,
                here.within(workspace),
                name,
                outcome.shown.headline,
                _figure(stage, here, workspace),
                _examples(stage, outcome),
            )
        case ControlOutcome():
            return Finding(stage, outcome.place.within(workspace), outcome.place.name, [])
        case Built():
            return Finding(stage, outcome.index.within(workspace), outcome.index.name, [])


def _figure(stage: str, here: Place, workspace: Place) -> str | None:
    names = [name for name in (here / "figures").names() if name.endswith(".png")]
    for beginning in MAIN_FIGURES.get(stage, ()):
        for name in names:
            if name.startswith(beginning):
                return (here / "figures" / name).within(workspace)
    return None


def _examples(stage: str, outcome: Outcome) -> Sequence[str]:
    match stage:
        case "probe":
            return _classes(outcome)
        case "steer":
            best = best_cell(outcome.artefact.table("effects"))
            return [] if best is None else steer_examples(outcome.artefact.table("verdicts"), best)
        case "features":
            return _latents(outcome)
        case "interpret":
            return _explained(outcome)
        case "sharing":
            return _measures(outcome)
        case _:
            return ()


def _classes(outcome: Outcome) -> list[str]:
    """The classes that are read worst, by the probe that is best on validation samples."""
    probes, classes = (pl.DataFrame(pl.from_arrow(outcome.artefact.table(name))) for name in ("probes", "classes"))
    best = probes.filter(pl.col("attribute") == "class", pl.col("tested_on") == "image", pl.col("k").is_null())
    best = best.filter(pl.col("fitted_on") == "image", pl.col("n_per_class").is_null()).sort(
        "validation", descending=True, nulls_last=True
    )
    if not len(best):
        return []
    row = best.row(0, named=True)
    which = [pl.col(name) == row[name] for name in ("attribute", "view", "layer", "kind", "tested_on")]
    own = classes.filter(*which).drop_nulls("accuracy").unique("class_name", keep="first", maintain_order=True)
    worst, how = own.sort("accuracy", maintain_order=True).head(5), f"{row['view']} rows, {row['kind']}, layer {row['layer']}"
    return [
        f"among the five classes that are read worst, chosen and reported on the same rows: {r['class_name']}, "
        f"{r['accuracy']:.2f}{in_brackets(r['accuracy_low'], r['accuracy_high'], '{:.2f}'.format)} of {r['n_test']} test rows "
        f"({how})"
        for r in worst.iter_rows(named=True)
    ]


def _latents(outcome: Outcome) -> list[str]:
    """Latents that separate a value best: chosen by F1 on one half of the samples, with the F1 on the other half."""
    labels = pl.DataFrame(pl.from_arrow(outcome.artefact.table("labels"))).filter(~pl.col("sae").str.ends_with("/random"))
    best = labels.sort("f1_chosen", descending=True).unique(["attribute", "value"], keep="first", maintain_order=True).head(5)
    return [
        f"latent {r['latent']} of {r['sae']}, layer {r['layer']}: {r['attribute']} {r['value']} in {r['modality']}s, "
        f"F1 {r['f1']:.2f} on the half of the samples that it was not chosen on"
        for r in best.iter_rows(named=True)
    ]


def _explained(outcome: Outcome) -> list[str]:
    """The first explanations, as they come."""
    table = pl.DataFrame(pl.from_arrow(outcome.artefact.table("explanations"))).drop_nulls("explanation")
    return [f"latent {r['latent']}, layer {r['layer']}: {r['explanation']}" for r in table.head(5).iter_rows(named=True)]


def _measures(outcome: Outcome) -> list[str]:
    """Measures of the trained model at the first and the last layer."""
    frame = pl.DataFrame(pl.from_arrow(outcome.artefact.table())).sort("layer")
    own = frame.filter(pl.col("model") == "trained", pl.col("sae").is_null()).drop_nulls("value")
    lines = []
    for metric in ("hub", "cka_debiased", "neighbourhood_overlap", "direction_cosine", "transfer_text_to_image_centred"):
        rows = own.filter(pl.col("metric") == metric)
        if len(rows):
            ends = [rows.row(i, named=True) for i in (0, -1)]
            lines.append(f"{metric}: " + ", ".join(_of_layer(row) for row in ends))
    return lines


def _of_layer(row: dict) -> str:
    interval = in_brackets(row["low"], row["high"], "{:.2f}".format, otherwise="")
    null = "" if row["null"] is None else f" (null {row['null']:.2f})"
    return f"layer {row['layer']} {row['value']:.2f}{interval}{null}"
