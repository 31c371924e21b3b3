"""Figures, lines and numbers of interpretations: how well explanations predict when latents fire, beside their controls."""

import math

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.stats.interval import Interval, in_brackets, of_mean
from linrep.stats.wilson import of_clusters, of_sum

GOOD = 0.8
"""Balanced accuracy from which on an explanation counts as good."""
TASKS = ("detection", "fuzzing", "overlap")
EXPLAINED = {"own": "own explanation", "shuffled": "another latent's", "random": "as many patches drawn anew"}
"""Controls in words."""
BINS = 20
CLEAR = 0.1
"""Random directions are as easy to explain where the scores of latents are surely not this much higher."""


def score_figures(scores: pa.Table) -> dict[str, Figure]:
    """A histogram of the scores for each layer, tasks and modalities in panels; controls grey.

    Args:
        scores: Rows of the `SCORES` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(scores)).drop_nulls("value")
    figures = {}
    for layer in sorted(set(frame["layer"])):
        own = frame.filter(pl.col("layer") == layer)
        parts = [
            _panel(task, modality, rows)
            for task in TASKS
            for modality in ("image", "text")
            if len(rows := own.filter((pl.col("task") == task) & (pl.col("modality") == modality)))
        ]
        if parts:
            said = [line for line in interpret_headline(scores.filter(pc.field("layer") == layer)) if "andom directions" in line]
            title = f"Scores of explanations of the latents of layer {layer}. {said[-1] if said else ''}"
            figures[f"interpret_layer{layer:02d}"] = panels(title, parts)
    return figures


def _panel(task: str, modality: str, rows: pl.DataFrame) -> Panel:
    curves = []
    for (sae, control), own in sorted(rows.group_by(["sae", "control"]), key=lambda item: str(item[0])):
        counts, edges = np.histogram(own["value"].to_numpy(), BINS, (0, 1))
        middle = tuple((edges[:-1] + edges[1:]) / 2)
        plain = control == "own" and not str(sae).endswith("/random")
        curves.append(Curve(f"{sae}, {EXPLAINED[str(control)]}", middle, tuple(counts / len(own)), control=not plain))
    x_label = "intersection over union" if task == "overlap" else "balanced accuracy, chance .5"
    n = int(rows.filter(pl.col("control") == "own").group_by("sae").len()["len"].max() or 0)  # pyright: ignore[reportArgumentType]
    return Panel(f"{task}, {modality}: {n} latents", x_label, "share of latents", tuple(curves))


def score_metrics(scores: pa.Table) -> dict[str, dict[int, float]]:
    """Curves over layers by task, modality, control and SAE: the mean; of own explanations also good ones and number."""
    frame = pl.DataFrame(pl.from_arrow(scores)).drop_nulls("value")
    curves: dict[str, dict[int, float]] = {}
    for (layer, sae, task, modality, control), own in frame.group_by(
        ["layer", "sae", "task", "modality", "control"], maintain_order=True
    ):
        name, values = f"{task}_{modality}_{control}_{sae}", own["value"].to_numpy()
        measures = {"mean": float(values.mean())}
        if control == "own":
            measures |= {"good": float((values > GOOD).mean()), "n": float(len(values))}
        for measure, value in measures.items():
            curves.setdefault(f"{measure}/{name}", {})[int(str(layer))] = value
    return curves


def interpret_headline(scores: pa.Table) -> list[str]:
    """How often explanations predict right, beside both controls, in a sentence for each modality; then how random directions do.

    All latents of all layers count alike, so nothing is selected. Intervals are over latents.

    Args:
        scores: Rows of the `SCORES` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(scores)).filter(pl.col("task") != "overlap").drop_nulls("value")
    random = pl.col("sae").str.ends_with("/random")
    sentences, verdicts = [], {}
    for modality in ("image", "text"):
        parts = []
        for task in TASKS:
            rows = frame.filter((pl.col("modality") == modality) & (pl.col("task") == task))
            own, shuffled, control = (
                rows.filter(chosen)
                for chosen in (
                    ~random & (pl.col("control") == "own"),
                    ~random & (pl.col("control") == "shuffled"),
                    random & (pl.col("control") == "own"),
                )
            )
            if not len(own):
                continue
            score, other, beside = map(mean_score, (own, shuffled, control))
            controls = f"another latent's explanation {_share(other.value)}, random directions {_share(beside.value)}"
            ends = in_brackets(score.low, score.high, _share)
            parts.append(f"{_share(score.value)}{ends} right in {task} ({controls}; {len(own)} latents)")
            if len(control):
                verdicts.setdefault(_verdict(score, beside), []).append(f"{modality} {task}")
        if parts:
            sentences.append(f"Of {modality} trials, explanations get {' and '.join(parts)}; chance is .50.")
    if not sentences:
        return ["No latent has enough answers for a score."]
    return [*sentences, *_verdicts(verdicts)]


def mean_score(rows: pl.DataFrame) -> Interval:
    """The mean score of some latents, with its interval over latents; without ends for fewer than two."""
    plain = of_mean(rows["value"].to_numpy())
    n = len(rows)
    if n < 2:
        return plain
    variance = float(rows["value"].var() or 0.0) / n  # pyright: ignore[reportArgumentType]
    trials = float((rows["n_positive"] + rows["n_negative"]).to_numpy().sum())
    return Interval(plain.value, *of_clusters(plain.value, max(trials, n), variance, n))


def _verdict(own: Interval, random: Interval) -> str:
    low, high = of_sum([(1.0, own.value, own.low, own.high), (-1.0, random.value, random.low, random.high)])
    if low > 0:
        return "harder"
    return "as easy" if high < CLEAR else "open"


def _verdicts(found: dict[str, list[str]]) -> list[str]:
    """One sentence on random directions."""
    if not found:
        return []
    if set(found) == {"as easy"}:
        return ["Random directions are as easy to explain here: the scores do not show that training made latents explainable."]
    words = {
        "harder": "Random directions are harder to explain in",
        "as easy": "as easy in",
        "open": "too few latents to decide in",
    }
    parts = [f"{words[verdict]} {', '.join(found[verdict])}" for verdict in words if verdict in found]
    text = "; ".join(parts)
    if "harder" not in found:
        text = f"Random directions compare so: {text}"
    return [f"{text}."]


def _share(value: float) -> str:
    """A share with two digits and no leading zero."""
    return f"{value:.2f}".replace("0.", ".", 1) if math.isfinite(value) else "none"


def summary_lines(scores: pa.Table, explanations: pa.Table, alive: dict[str, int], width: dict[str, int]) -> list[str]:
    """The main numbers in aligned lines.

    Args:
        scores: Rows of the `SCORES` contract.
        explanations: Rows of the `EXPLANATIONS` contract.
        alive: Latents that fire at all, by layer/SAE.
        width: Latents in all.
    """
    frame, said = (pl.DataFrame(pl.from_arrow(table)) for table in (scores, explanations))
    lines = []
    for (layer, sae), own in frame.group_by(["layer", "sae"], maintain_order=True):
        key = f"{layer}/{sae}"
        texts = said.filter((pl.col("layer") == layer) & (pl.col("sae") == sae))
        human = int((texts["source"] == "human").sum())
        lines.append(
            f"  layer {layer}, {sae}: {len(texts)} latents drawn of {alive[key]} alive among {width[key]}; "
            f"{texts['explanation'].count()} explained" + (f", {human} of them by people" if human else "")
        )
        lines.append(f"    {'':24} {'mean':>6} {'median':>7} {'above .8':>9} {'latents':>8} {'shuffled: mean':>15} {'n':>5}")
        for task in TASKS:
            for modality in ("image", "text"):
                some = own.filter((pl.col("task") == task) & (pl.col("modality") == modality))
                line = _line(f"{task}, {modality}", some)
                if line:
                    lines.append(line)
    return lines


def _line(name: str, rows: pl.DataFrame) -> str | None:
    if not len(rows):
        return None
    own, control = (
        rows.filter((pl.col("control") == "own") == is_own)["value"].drop_nulls().to_numpy() for is_own in (True, False)
    )
    if not len(own):
        return f"    {name:24} no latent with enough answers"
    unscored = int(rows.filter(pl.col("control") == "own")["value"].null_count())
    shuffled = f"{control.mean():15.3f} {len(control):5d}" if len(control) else f"{'none':>15}"
    tail = f"  ({unscored} more have too few samples)" if unscored else ""
    good = f"{(own > GOOD).mean():9.2f}" if not name.startswith("overlap") else f"{'':9}"
    return f"    {name:24} {own.mean():6.3f} {np.median(own):7.3f} {good} {len(own):8d} {shuffled}{tail}"
