"""Figures and lines of the probes' results: curves over layers beside their controls and chance."""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.stats.interval import in_brackets
from linrep.store.layout import NO_LAYER

ROWS = {
    "pooled image": "mean over an image's tokens",
    "pooled text": "mean over a text's tokens",
    "pooled both": "mean over a sample's tokens",
    "tokens image": "single image tokens",
    "tokens text": "single text tokens",
    "tokens both": "single tokens of both",
    "last image": "last token, after an image",
    "last text": "last token of a text",
    "last both": "last token of both",
}
"""View and modality in words."""
NAMES = {"lda": "LDA", "class_mean": "class means, not whitened", "latents_lda": "latents LDA"}
"""Kinds of probes in words, where their names are none."""
REGION, POSITION = "region", "position"
"""The attribute of single patches, and the kind of probe that sees nothing but where they lie."""
KINDS = ("ridge", "lda", "softmax", "class_mean", "latents_ridge", "latents_lda", "latents_softmax", "latents_class_mean")


def layer_figures(table: pa.Table) -> dict[str, Figure]:
    """All figures of a probes table by name.

    Args:
        table: Rows of the `PROBES` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(table))
    figures = {}
    for attribute, own in _by(frame, "attribute"):
        what = (
            "share of test rows that are right" if attribute != REGION else "how well each is told from the rest, in test patches"
        )
        title = f"{attribute}, read by linear probes: {what}, 95% intervals"
        figures[f"layers_{attribute}"] = panels(title, _layer_panels(own), n_columns=3)
    for kind, what in (("sparse", "coordinates"), ("latents", "latents")):
        few = frame.filter(pl.col("k").is_not_null() & (pl.col("attribute") == "class") & (pl.col("kind") == kind))
        if len(few):
            figures[f"{kind}_class"] = panels(f"class, read by probes that see only k {what}", _sparse_panels(few))
    curve = frame.filter((pl.col("attribute") == "class") & (pl.col("kind") == "ridge") & _own())
    if curve["n_per_class"].is_not_null().any():
        figures["samples_class"] = panels(
            "class, read by ridge probes, by how many samples they are fitted on", _sample_panels(curve)
        )
    moved = frame.filter((pl.col("fitted_on") != pl.col("tested_on")) & (pl.col("attribute") == "class"))
    if len(moved):
        figures["transfer_class"] = panels(
            "class, read by probes that were fitted on the other modality", _transfer_panels(frame)
        )
    return figures


def _own() -> pl.Expr:
    return (pl.col("fitted_on") == pl.col("tested_on")) & ~pl.col("centred")


def _by(frame: pl.DataFrame, *names: str) -> list[tuple[str, pl.DataFrame]]:
    return [(" ".join(map(str, key)), own) for key, own in frame.group_by(names, maintain_order=True)]


def main_probes(frame: pl.DataFrame) -> pl.DataFrame:
    """The probes of a modality's own rows that see all dimensions and all samples, layer by layer.

    Args:
        frame: Rows of the `PROBES` contract.
    """
    return frame.filter(_own() & pl.col("k").is_null() & pl.col("n_per_class").is_null()).sort("layer")


def _layer_panels(frame: pl.DataFrame) -> list[Panel]:
    parts = []
    for where, own in _by(main_probes(frame), "view", "tested_on"):
        if own["attribute"][0] == REGION:
            parts.append(_region_panel(where, own))
            continue
        found = [(i, kind, own.filter(pl.col("kind") == kind)) for i, kind in enumerate(KINDS)]
        curves = [replace(_curve(_named(kind), rows), colour=i) for i, kind, rows in found if len(rows)]
        best = own.filter(pl.col("kind") == "ridge")
        curves.append(_curve("ridge, shuffled labels", best, "shuffled", control=True))
        if best["control_type"].is_not_null().any():
            curves.append(
                _curve(f"ridge, control task by {best['control_type'].drop_nulls()[0]}", best, "control_task", control=True)
            )
        chance = own["chance"].mean()
        parts.append(_panel(where, curves, (float(chance), "most frequent class")))  # pyright: ignore[reportArgumentType]
    return parts


def _region_panel(where: str, own: pl.DataFrame) -> Panel:
    """Of patches most are background, which top-1 is full of: what is drawn is how well categories are told from the rest."""
    found = [(i, kind, own.filter(pl.col("kind") == kind)) for i, kind in enumerate(KINDS)]
    curves = [replace(_curve(_named(kind), rows, "auroc"), colour=i) for i, kind, rows in found if len(rows)]
    place = own.filter(pl.col("kind") == POSITION)
    curves += [_curve("places alone", place, "auroc", control=True)] if len(place) else []
    return replace(_panel(where, curves, (0.5, "chance")), y_label="mean AUROC")


def _sparse_panels(frame: pl.DataFrame) -> list[Panel]:
    parts = []
    for where, own in _by(frame.sort("layer"), "view", "tested_on"):
        by_k = _by(own.sort("k", "layer"), "k")
        curves = [_curve(f"k = {k}", rows) for k, rows in by_k]
        k, rows = by_k[-1]
        curves.append(_curve(f"k = {k}, shuffled labels", rows, "shuffled", control=True))
        chance = own["chance"].mean()
        parts.append(_panel(where, curves, (float(chance), "most frequent class")))  # pyright: ignore[reportArgumentType]
    return parts


def _sample_panels(frame: pl.DataFrame) -> list[Panel]:
    parts = []
    for where, own in _by(frame.sort("layer"), "view", "tested_on"):
        curves = []
        for n, rows in _by(own.filter(pl.col("n_per_class").is_not_null()).sort("n_per_class", "layer"), "n_per_class"):
            curves.append(_curve(f"{n} a class", rows))
        whole = own.filter(pl.col("n_per_class").is_null())
        curves += [_curve("all", whole), _curve("all, shuffled labels", whole, "shuffled", control=True)]
        chance = own["chance"].mean()
        parts.append(_panel(where, curves, (float(chance), "most frequent class")))  # pyright: ignore[reportArgumentType]
    return parts


def _transfer_panels(frame: pl.DataFrame) -> list[Panel]:
    parts = []
    rows = frame.filter((pl.col("attribute") == "class") & pl.col("n_per_class").is_null() & (pl.col("kind") == "ridge"))
    for where, own in _by(rows.sort("layer"), "view", "tested_on"):
        (at_home, away) = own.filter(_own()), own.filter(pl.col("fitted_on") != pl.col("tested_on"))
        if not len(away):
            continue
        curves = [_curve("fitted there", at_home)]
        curves.append(_curve("from the other modality", away.filter(~pl.col("centred"))))
        curves.append(_curve("the same, means aligned", away.filter(pl.col("centred"))))
        curves.append(_curve("shuffled labels", at_home, "shuffled", control=True))
        chance = own["chance"].mean()
        parts.append(_panel(f"{where}, ridge", curves, (float(chance), "most frequent class")))  # pyright: ignore[reportArgumentType]
    return parts


def _panel(where: str, curves: list[Curve], reference: tuple[float, str]) -> Panel:
    title, _, more = where.partition(", ")
    title = ROWS.get(title, title) + (f", {more}" if more else "")
    return Panel(title, "layer", "share right", tuple(curves), reference, (0.0, 1.03), x_whole=True)


def _named(kind: str) -> str:
    return NAMES.get(kind, kind.replace("_", " "))


def _curve(label: str, rows: pl.DataFrame, measure: str = "top1", control: bool = False) -> Curve:
    values = {
        end: tuple(float(v) if v is not None else float("nan") for v in rows[f"{measure}{end}"]) for end in ("", "_low", "_high")
    }
    return Curve(label, tuple(map(float, rows["layer"])), values[""], values["_low"], values["_high"], control)


def summary_lines(table: pa.Table, left_out: Mapping[str, list[str]]) -> list[str]:
    """The main numbers in aligned lines: for each attribute, view and modality the probe that is best on validation rows.

    What is shown of it, and of its control, is from test rows: the highest of many test scores would be too high.

    Args:
        table: Rows of the `PROBES` contract.
        left_out: Classes that had too few samples.
    """
    frame = main_probes(pl.DataFrame(pl.from_arrow(table)))
    lines = [
        "  kind and layer are chosen on validation samples, the numbers are from test samples",
        f"  {'attribute':10} {'rows':14} {'best on validation':22} {'top-1 [95%]':>22} {'control task [95%]':>22} {'by':>10} "
        f"{'shuffled [95%]':>22} {'chance':>7}",
    ]
    for _, own in _by(frame.filter(pl.col("kind") != POSITION), "attribute", "view", "tested_on"):
        # Without validation rows nothing is chosen: the first kind at the last layer.
        ranked = own.sort("validation", "layer", descending=True, nulls_last=True, maintain_order=True)
        row = ranked.row(0, named=True)
        best = f"{row['kind']}, {_at(row['layer'])}"
        lines.append(
            f"  {row['attribute']:10} {row['view'] + ' ' + row['tested_on']:14} {best:22} {_shown(row, 'top1'):>22} "
            f"{_shown(row, 'control_task'):>22} {row['control_type'] or '':>10} {_shown(row, 'shuffled'):>22} "
            f"{row['chance']:>7.3f}"
        )
    lines += [f"  {region_sentence(own)}" for _, own in _by(frame.filter(pl.col("attribute") == REGION), "view")]
    lines += [f"  left out, too few samples: {what}: {', '.join(names)}" for what, names in left_out.items()]
    lines += _edges(frame)
    stuck = frame.filter(pl.col("converged").eq(False))
    if len(stuck):
        lines.append(
            f"  {len(stuck)} softmax regressions ended before their gradient was small: raise probe.softmax.max_iterations"
        )
    return lines


def _edges(frame: pl.DataFrame) -> list[str]:
    """A line for each kind whose settings were chosen at the end of what was tried: their weights are directions, too."""
    lines, names = [], {"ridge": "probe.alphas", "lda": "probe.shrinkages", "softmax": "probe.softmax.penalties"}
    for (kind, edge), own in frame.drop_nulls("setting_edge").group_by(["kind", "setting_edge"], maintain_order=True):
        n, settings = len(frame.filter(pl.col("kind") == kind)), sorted(set(own["setting"]))
        name = names.get(str(kind).removeprefix("latents_"), "the grid")
        lines.append(
            f"  warning: {len(own)} of {n} {kind} probes chose the {edge} setting tried "
            f"({', '.join(f'{s:g}' for s in settings)}): extend {name}, or their weights say more of the grid than of the data"
        )
    return lines


def _shown(row: dict, measure: str) -> str:
    ends = in_brackets(row[f"{measure}_low"], row[f"{measure}_high"], "{:.3f}".format, otherwise="")
    return "-" if row[measure] is None else f"{row[measure]:.3f}{ends}"


def probe_headline(table: pa.Table) -> list[str]:
    """What the probes found, in a sentence for each modality whose classes were probed.

    View and kind are those with the highest mean validation score over the layers; the layer that is named is chosen on
    validation samples, too. The numbers are from test samples.

    Args:
        table: Rows of the `PROBES` contract.
    """
    frame = main_probes(pl.DataFrame(pl.from_arrow(table)))
    sentences = []
    of_samples = frame.filter((pl.col("tested_on") != "both") & (pl.col("attribute") != REGION))
    for source, own in _by(of_samples, "tested_on"):
        attributes = own["attribute"].unique(maintain_order=True).to_list()
        attribute = "class" if "class" in attributes else attributes[0]
        curve = chosen_curve(own.filter(pl.col("attribute") == attribute))
        low, high = curve["top1_low"].max(), curve["top1_high"].min()
        beside = f"chance {_share(curve['chance'].mean())}, shuffled labels {_share(curve['shuffled'].mean())}"
        if curve["control_type"].is_not_null().any():
            beside += f", control task by {curve['control_type'].drop_nulls()[0]} {_share(curve['control_task'].mean())}"
        how = f"{curve['view'][0]} rows, {curve['kind'][0]} probes"
        if len(curve) > 1 and low is not None and high is not None and low <= high:  # pyright: ignore[reportOperatorIssue]
            ends = f"{_share(curve['top1'].min())} to {_share(curve['top1'].max())}"
            found = f"is read equally well at every layer ({ends} of test samples; {beside}; {how})"
        else:
            best = curve.sort("validation", descending=True, nulls_last=True, maintain_order=True).row(0, named=True)
            worst = curve.sort("top1").row(0, named=True)
            interval = in_brackets(best["top1_low"], best["top1_high"], _share)
            lowest = f"; lowest at layer {worst['layer']}, {_share(worst['top1'])}" if best["layer"] != NO_LAYER else ""
            most = "best " if best["layer"] != NO_LAYER else ""
            found = f"is read {most}at {_at(best['layer'])}: {_share(best['top1'])}{interval} of test samples "
            found += f"({beside}; {how}, chosen on validation samples{lowest})"
        sentences.append(f"{attribute.capitalize()} of {source} samples {found}.")
    regions = frame.filter(pl.col("attribute") == REGION)
    return [*sentences, *([region_sentence(regions)] if len(regions) else [])]


def region_sentence(frame: pl.DataFrame) -> str:
    """What probes read of regions in single patches, beside what places alone tell.

    Args:
        frame: Rows of `main_probes` of the regions.
    """
    curve = chosen_curve(frame.filter(pl.col("kind") != POSITION))
    best = curve.sort("validation", descending=True, nulls_last=True, maintain_order=True).row(0, named=True)
    place = frame.filter((pl.col("kind") == POSITION) & (pl.col("layer") == best["layer"]))
    alone = "" if not len(place) else f"; places alone {_share(place['auroc'][0])}"
    what = f"{best['n_classes'] - 1} categories of regions and background"
    interval = in_brackets(best["auroc_low"], best["auroc_high"], _share)
    return (
        f"What a patch shows ({what}) is read best at layer {best['layer']}: AUROC {_share(best['auroc'])}{interval}{alone}; "
        f"{_share(best['top1'])} of test patches, of regions dealt anew {_share(best['shuffled'])} ({best['kind']} probes, layer "
        f"chosen on validation patches)."
    )


def chosen_curve(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows, a layer each, of the view and kind with the highest mean validation score; of the first where there is none.

    Args:
        frame: Rows of `main_probes` of one attribute and one modality.
    """
    parts = [own for _, own in _by(frame, "view", "kind")]
    return max(parts, key=lambda own: (len(own) == max(map(len, parts)), _number(own["validation"].mean()))).sort("layer")


def _at(layer: int) -> str:
    """Where a probe reads, in words."""
    return "the vision tower" if layer == NO_LAYER else f"layer {layer}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else -1.0


def _share(value: object) -> str:
    """A share with two digits and no leading zero."""
    return "?" if not isinstance(value, int | float) else f"{value:.2f}".replace("0.", ".", 1)
