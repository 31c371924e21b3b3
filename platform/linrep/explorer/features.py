"""Figures, lines and numbers of the features of dictionaries, each beside its random directions."""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.store.layout import MODALITIES

GOOD = 0.8
"""F1 from which on a latent is said to tell its value."""
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
        ):
            curves = _shares(frame, column)
            if curves:
                parts.append(Panel(title, label, "share of latents", curves))
        figures[f"features_layer{layer:02d}"] = panels(f"layer {layer}: latents that fire, random directions dashed", parts)
    return figures


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table)).sort("layer", "dictionary", "latent")


def _dictionaries(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (name,), own in frame.group_by(["dictionary"], maintain_order=True):
        yield str(name), own


def _rates(frame: pl.DataFrame, column: str) -> tuple[Curve, ...]:
    return _curves(frame, lambda own: np.log10(own.filter(pl.col(column) > 0)[column].to_numpy()), RATE_BINS)


def _shares(frame: pl.DataFrame, column: str) -> tuple[Curve, ...]:
    return _curves(frame, lambda own: own[column].drop_nulls().to_numpy(), SHARE_BINS)


def _curves(frame: pl.DataFrame, values: Callable[[pl.DataFrame], np.ndarray], edges: np.ndarray) -> tuple[Curve, ...]:
    middles = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    curves = []
    for name, own in _dictionaries(frame):
        found = values(own)
        if len(found):
            counts = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] / len(own)
            curves.append(Curve(name, middles, tuple(counts.tolist()), control=name.endswith("/random")))
    return tuple(curves)


def feature_metrics(table: pa.Table) -> dict[str, float]:
    """The main numbers as MLflow metrics; dictionary and layer are in the names.

    Args:
        table: Rows of the `FEATURES` contract.
    """
    named = {}
    for (layer, dictionary), own in _frame(table).group_by(["layer", "dictionary"], maintain_order=True):
        for name, value in numbers(own).items():
            if value is not None:
                named[f"{name}_{dictionary}_layer{layer:02d}"] = value
    return named


def numbers(own: pl.DataFrame) -> dict[str, float | None]:
    """The main numbers of one dictionary."""
    fires = own.filter((pl.col("rate_image") > 0) | (pl.col("rate_text") > 0))
    told = fires["f1"].drop_nulls()

    def middle(column: str) -> float | None:
        value = fires[column].drop_nulls().median()
        return float(value) if isinstance(value, int | float) else None

    return {
        "alive": len(fires) / len(own),
        "alive_image": int((own["rate_image"] > 0).sum()) / len(own),
        "alive_text": int((own["rate_text"] > 0).sum()) / len(own),
        "told": float((told > GOOD).sum() / len(own)),
        "median_f1": middle("f1"),
        "median_auroc": middle("auroc"),
        "median_entropy": middle("entropy"),
        "median_uniqueness": middle("uniqueness"),
        "median_monosemanticity": middle("monosemanticity"),
    }


def summary_lines(table: pa.Table, chance: float | None = None) -> list[str]:
    """The main numbers in aligned lines, a line a dictionary.

    Args:
        table: Rows of the `FEATURES` contract.
        chance: Monosemanticity of a blind latent.
    """
    heads = {
        "alive": "alive", "alive_image": "on image", "alive_text": "on text", "told": f"F1 > {GOOD}", "median_f1": "F1",
        "median_auroc": "AUROC", "median_entropy": "entropy", "median_uniqueness": "unique", "median_monosemanticity": "monosem.",
    }  # fmt: skip
    lines = [f"  {'layer':>5}  {'dictionary':28} {'latents':>8} " + " ".join(f"{head:>9}" for head in heads.values())]
    for (layer, dictionary), own in _frame(table).group_by(["layer", "dictionary"], maintain_order=True):
        found = numbers(own)
        shown = " ".join(f"{'' if found[name] is None else f'{found[name]:.3f}':>9}" for name in heads)
        lines.append(f"  {layer:>5}  {dictionary!s:28} {len(own):>8,} {shown}")
    lines.append("  (alive, on image, on text, F1 >: shares of latents; the others: medians over those that are alive)")
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
