"""Figures, lines and numbers of the features of SAEs, each beside its random directions."""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.stats.interval import in_brackets
from linrep.stats.wilson import wilson
from linrep.store.layout import MODALITIES

GOOD = 0.8
"""F1 from which on a latent counts as separating its value."""
FALSE = 0.05
"""Share of random directions that may be above the F1 from which on a latent is said to be better than they are."""
MOST_SENTENCES = 3
RANDOM = "/random"
FIRES = (pl.col("rate_image") > 0) | (pl.col("rate_text") > 0)
RATE_BINS = np.linspace(-6.0, 0.0, 25)
"""Edges of the bins of log10 firing rates."""
SHARE_BINS = np.linspace(0.0, 1.0, 21)


def feature_figures(table: pa.Table) -> dict[str, Figure]:
    """All figures of a features table by name.

    Args:
        table: Rows of the `FEATURES` contract.
    """
    figures = {}
    for (layer,), frame in _frame(table).group_by(["layer"], maintain_order=True):
        parts = [
            Panel(f"how often latents fire: {m}", "log10 of the share of tokens", "share of latents", _rates(frame, f"rate_{m}"))
            for m in MODALITIES
        ]
        for column, title, label in (
            ("f1", "best class or attribute: F1", "F1 on the half not chosen on"),
            ("auroc", "best class or attribute: AUROC", "area under the ROC curve"),
            ("entropy", "entropy over the classes", "0 one class, 1 all alike"),
            ("modality_score", "modality score", "0 text only, 1 image only"),
            ("uniqueness", "uniqueness", "1 shares no top sample with any latent"),
            ("monosemanticity", "monosemanticity", "mean cosine in the other encoder"),
            ("region_iou", "best region: IoU of patches", "on the half of the images not chosen on"),
        ):
            curves = _shares(frame, column)
            if curves:
                parts.append(Panel(title, label, "share of latents", curves))
        title = f"Layer {layer}, latents that fire, random directions dashed. {_takeaway(frame)}"
        figures[f"features_layer{layer:02d}"] = panels(title, parts)
    return figures


def _takeaway(frame: pl.DataFrame) -> str:
    """Whether latents separate a label better than random directions do, an SAE after the other."""
    parts, said = dict(_saes(frame)), []
    for name, own in parts.items():
        found = _separation(own, parts.get(name + RANDOM))
        if not name.endswith(RANDOM) and found is not None:
            bar, n, n_all, by_chance = found
            said.append(
                f"{n / n_all:.0%} of {name} separate a label better than F1 {bar:.2f}, {by_chance:.0%} of random directions do"
            )
    return "; ".join(said) + ("." if said else "")


def _separation(own: pl.DataFrame, control: pl.DataFrame | None) -> tuple[float, int, int, float] | None:
    """F1 that few random directions exceed, latents above it, latents scored, and the share of random directions above it."""
    scored, null = own.filter(FIRES)["f1"].drop_nulls(), None if control is None else control.filter(FIRES)["f1"].drop_nulls()
    if null is None or not len(scored) or not len(null):
        return None
    bar = float(np.quantile(null.to_numpy(), 1 - FALSE, method="higher"))
    return bar, int((scored > bar).sum()), len(scored), int((null > bar).sum()) / len(null)


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table)).sort("layer", "sae", "latent")


def _saes(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (name,), own in frame.group_by(["sae"], maintain_order=True):
        yield str(name), own


def _rates(frame: pl.DataFrame, column: str) -> tuple[Curve, ...]:
    return _curves(frame, lambda own: np.log10(own.filter(pl.col(column) > 0)[column].to_numpy()), RATE_BINS)


def _shares(frame: pl.DataFrame, column: str) -> tuple[Curve, ...]:
    return _curves(frame, lambda own: own[column].drop_nulls().to_numpy(), SHARE_BINS)


def _curves(frame: pl.DataFrame, values: Callable[[pl.DataFrame], np.ndarray], edges: np.ndarray) -> tuple[Curve, ...]:
    middles = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    curves = []
    for name, own in _saes(frame):
        found = values(own)
        if len(found):
            counts = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] / len(own)
            curves.append(Curve(name, middles, tuple(counts.tolist()), control=name.endswith(RANDOM)))
    return tuple(curves)


def features_headline(table: pa.Table) -> list[str]:
    """What the latents do, in a sentence for each SAE; random directions beside.

    Value and threshold of a latent are chosen on one half of the samples; its F1 is from the other half.

    Args:
        table: Rows of the `FEATURES` contract.
    """
    frame = _frame(table)
    parts = [(layer, str(name), own) for (layer, name), own in frame.group_by(["layer", "sae"], maintain_order=True)]
    controls = {(layer, name.removesuffix(RANDOM)): own for layer, name, own in parts if name.endswith(RANDOM)}
    saes = [(layer, name, own) for layer, name, own in parts if not name.endswith(RANDOM)]
    n = len(saes) if len(saes) <= MOST_SENTENCES else MOST_SENTENCES - 1
    sentences = [_sentence(layer, name, own, controls.get((layer, name))) for layer, name, own in saes[:n]]
    if len(saes) > n:
        sentences.append(f"{len(saes) - n} more SAEs were looked into: the lines below have a row for each.")
    return sentences


def _sentence(layer: object, name: str, own: pl.DataFrame, control: pl.DataFrame | None) -> str:
    fires, both = own.filter(FIRES), own.filter((pl.col("rate_image") > 0) & (pl.col("rate_text") > 0))
    found = [f"{len(fires):,} of {len(own):,} latents fire, {len(both):,} of them on both image and text tokens"]
    separation = _separation(own, control)
    if separation is not None:
        bar, n, n_all, by_chance = separation
        low, high = wilson(n / n_all, n_all)
        line = f"{n:,} of {n_all:,} ({n / n_all:.0%}, 95% interval {low:.0%} to {high:.0%}) separate a label better "
        line += f"than F1 {bar:.2f} on samples that it was not chosen on; {by_chance:.0%} of random directions do"
        found.append(line)
    elif len(fires["f1"].drop_nulls()):
        found.append(f"their median F1 for a label is {numbers(own)['median_f1']:.2f}; there are no random directions to compare")
    overlap = _overlap(own, control)
    if overlap is not None:
        found.append(overlap)
    alike, beside = (None if part is None else numbers(part)["median_monosemanticity"] for part in (own, control))
    if alike is not None:
        found.append(
            f"median monosemanticity is {alike:.2f}" + (f", of random directions {beside:.2f}" if beside is not None else "")
        )
    return f"Layer {layer}, SAE {name}: {'; '.join(found)}."


def _overlap(own: pl.DataFrame, control: pl.DataFrame | None) -> str | None:
    """How many latents overlap a region's patches by more than those of regions dealt anew, and the best of them."""
    scored = own.filter(FIRES).drop_nulls("region_iou")
    if not len(scored):
        return None
    best = scored.sort("region_iou", descending=True, maintain_order=True).row(0, named=True)
    beside = None if control is None else numbers(control)["above_dealt"]
    interval = in_brackets(best["region_iou_low"], best["region_iou_high"], "{:.2f}".format, otherwise="")
    return (
        f"the patches of {above_dealt(scored):.0%} overlap a region more than regions of other images at the same places"
        + (f", those of {beside:.0%} of random directions do" if beside is not None else "")
        + f" (best: latent {best['latent']} on {best['best_region']}, IoU {best['region_iou']:.2f}{interval})"
    )


def above_dealt(scored: pl.DataFrame) -> float:
    """Share of latents whose overlap with a region, by its interval, is above that with regions dealt anew."""
    return float((scored["region_iou_low"] > scored["region_iou_dealt"]).fill_null(False).sum() / max(len(scored), 1))


def feature_metrics(table: pa.Table) -> dict[str, dict[int, float]]:
    """The main numbers of each SAE and of its random directions: curves over layers.

    Args:
        table: Rows of the `FEATURES` contract.
    """
    curves: dict[str, dict[int, float]] = {}
    for (layer, sae), own in _frame(table).group_by(["layer", "sae"], maintain_order=True):
        for name, value in numbers(own).items():
            if value is not None:
                curves.setdefault(f"{name}/{sae}", {})[int(str(layer))] = value
    return curves


def numbers(own: pl.DataFrame) -> dict[str, float | None]:
    """The main numbers of one SAE."""
    fires = own.filter(FIRES)
    scored = fires["f1"].drop_nulls()

    def middle(column: str) -> float | None:
        value = fires[column].drop_nulls().median()
        return float(value) if isinstance(value, int | float) else None

    return {
        "alive": len(fires) / len(own),
        "alive_image": int((own["rate_image"] > 0).sum()) / len(own),
        "alive_text": int((own["rate_text"] > 0).sum()) / len(own),
        "good_f1": float((scored > GOOD).sum() / len(own)),
        "median_f1": middle("f1"),
        "median_auroc": middle("auroc"),
        "median_entropy": middle("entropy"),
        "median_uniqueness": middle("uniqueness"),
        "median_monosemanticity": middle("monosemanticity"),
        "median_region_iou": middle("region_iou"),
        "above_dealt": above_dealt(regions) if len(regions := fires.drop_nulls("region_iou")) else None,
    }


def summary_lines(table: pa.Table, chance: float | None = None) -> list[str]:
    """The main numbers in aligned lines, a line an SAE.

    Args:
        table: Rows of the `FEATURES` contract.
        chance: Monosemanticity of a blind latent.
    """
    heads = {
        "alive": "alive", "alive_image": "on image", "alive_text": "on text", "good_f1": f"F1 > {GOOD}", "median_f1": "F1",
        "median_auroc": "AUROC", "median_entropy": "entropy", "median_uniqueness": "unique", "median_monosemanticity": "monosem.",
    }  # fmt: skip
    if table["region_iou"].null_count < len(table):
        heads |= {"median_region_iou": "IoU", "above_dealt": "> dealt"}
    lines = [f"  {'layer':>5}  {'sae':28} {'latents':>8} " + " ".join(f"{head:>9}" for head in heads.values())]
    for (layer, sae), own in _frame(table).group_by(["layer", "sae"], maintain_order=True):
        found = numbers(own)
        shown = " ".join(f"{'' if found[name] is None else f'{found[name]:.3f}':>9}" for name in heads)
        lines.append(f"  {layer:>5}  {sae!s:28} {len(own):>8,} {shown}")
    lines.append("  (alive, on image, on text, F1 >: shares of latents; the others: medians over those that are alive)")
    if "above_dealt" in heads:
        lines.append("  (> dealt: share whose overlap with a region is above that with regions of other images)")
    if chance is not None:
        lines.append(f"  a blind latent's monosemanticity is {chance:.3f}")
    return lines


def flat(table: pa.Table) -> pa.Table:
    """The same table with lists as text, which a CSV can hold.

    Args:
        table: Any of the features' tables.
    """
    for i, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            lists = table[field.name].to_pylist()
            joined = [None if own is None else " | ".join(_word(v) for v in own) for own in lists]
            table = table.set_column(i, field.name, pa.array(joined, pa.string()))
    return table


def _word(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
