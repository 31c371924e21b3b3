"""The figure of the panel: explained variance through latents whose explanation agrees, and success over few latents."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.sae.panel.causal import LATENTS
from linrep.sae.panel.judge import CLASS_MEAN, PanelRow, curve_name
from linrep.sae.panel.variance import GRID


def curve_figure(title: str, rows: Sequence[PanelRow]) -> Figure:
    """Both measures that separate, as curves; the SAE that is judged has no difference from itself, its controls have.

    Args:
        title: What stands above.
        rows: Every row of the panel.
    """
    by = {(row.measure, row.sae): row for row in rows}
    parts = [
        Panel(
            "Explained variance through latents that agree with their explanation",
            "least agreement t (Matthews correlation)",
            "interpretable explained variance",
            _curves(by, GRID, curve_name),
            reference=(0.0, "nothing"),
        )
    ]
    if (f"success_{LATENTS[0]}", CLASS_MEAN) in by:
        parts.append(
            Panel(
                "Answers turned with all else kept, by a direction of few latents",
                "latents",
                "success",
                _curves(by, LATENTS, lambda m: f"success_{m:g}"),
                y_range=(-0.02, 1.02),
                x_whole=True,
            )
        )
    return panels(f"{title}: beside its controls (95% intervals over images and seeds)", parts, n_columns=2)


def _curves(by: dict[tuple[str, str], PanelRow], x: Sequence[float], name: Callable[[float], str]) -> tuple[Curve, ...]:
    names = dict.fromkeys(sae for measure, sae in by if measure == name(x[0]))
    colours = {sae: i for i, sae in enumerate(sae for sae in names if sae != CLASS_MEAN)}
    found = []
    for sae in names:
        own = [by[name(at), sae] for at in x]
        y, low, high = ([getattr(row.found, end) for row in own] for end in ("value", "low", "high"))
        found.append(Curve(sae, tuple(x), tuple(y), tuple(low), tuple(high), colour=colours.get(sae, -1)))
    return tuple(found)
