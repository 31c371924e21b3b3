"""Tables of a search: every candidate, the fronts of each layer and modality, and which candidate to take."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from linrep.sae.front import Point, Recommendation, front, recommend
from linrep.sae.pack import Trial, choice
from linrep.store.tables import table_of
from schemas.tuning import FRONT, TRIALS


def finished(trials: Mapping[str, Trial]) -> list[Trial]:
    """Candidates that were trained to their end."""
    return [trial for trial in trials.values() if trial.status == "finished"]


def recommendations(trials: Mapping[str, Trial], layers: Sequence[int]) -> dict[int, Recommendation]:
    """The candidate to take, by layer; a layer where none was trained to its end has none."""
    found = {}
    for layer in layers:
        points = [Point(t.name, t.last["l0"], choice(t.last)) for t in finished(trials) if t.values["layer"] == layer]
        one = recommend(points)
        if one is not None:
            found[layer] = one
    return found


def _columns(trial: Trial) -> dict[str, Any]:
    names = ("layer", "architecture", "sparsity", "width", "learning_rate", "text_share")
    return {"candidate": trial.name, **{name: trial.values[name] for name in names}}


def trials_table(trials: Mapping[str, Trial]) -> pa.Table:
    """Every candidate, a row each."""
    rows: list[dict[str, object]] = [
        {
            **_columns(trial), "status": trial.status, "reason": trial.reason, "bracket": trial.bracket, "rows": trial.rows,
            "fvu": trial.last.get("fvu"), "l0": trial.last.get("l0"), "seconds": trial.seconds,
        }
        for trial in trials.values()
    ]  # fmt: skip
    return table_of(rows, TRIALS)


def front_table(trials: Mapping[str, Trial], chosen: set[str]) -> pa.Table:
    """Finished candidates, a row for each and modality, with the fronts of each layer and modality marked.

    Args:
        trials: All candidates.
        chosen: Names of those that are recommended.
    """
    rows: list[dict[str, object]] = []
    done = finished(trials)
    for layer in sorted({trial.values["layer"] for trial in done}):
        here = [trial for trial in done if trial.values["layer"] == layer]
        for modality in ("image", "text", "mean"):
            ending = "" if modality == "mean" else f"_{modality}"
            have = [trial for trial in here if f"fvu{ending}" in trial.last]
            best = {p.name for p in front([Point(t.name, t.last[f"l0{ending}"], choice(t.last, ending)) for t in have])}
            for trial in have:
                last = trial.last
                rows.append({
                    **_columns(trial), "modality": modality, "l0": last[f"l0{ending}"], "fvu": last[f"fvu{ending}"],
                    "fvu_choice": choice(last, ending),
                    "fvu_low": last.get(f"fvu{ending}_low"), "fvu_high": last.get(f"fvu{ending}_high"),
                    "control": (trial.control or {}).get(f"fvu{ending}"), "on_front": trial.name in best,
                    "recommended": trial.name in chosen,
                })  # fmt: skip
    return table_of(rows, FRONT)
