"""The search of a recipe with its halving against its whole grid: `python -m bench.tune --workspace DIR`.

DIR holds the harvest of the recipe (`make demo` for the demo's). Both searches are jobs as people run them, with Ray and MLflow.
It reports wall time, the share of tokens that halving spends, the best FVU at each sparsity against the grid's, and whether the
fronts are fronts by the plain definition. Searches that DIR holds already are read and not timed.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from bench.command import end_with
from linrep.cluster.run_tune_sae import plan_search
from linrep.cluster.stage import run_stage
from linrep.places import Place, place
from linrep.recipe import Recipe, load_yaml, validate
from linrep.sae.pack import Trial
from linrep.sae.search import Whole
from linrep.sae.trials import read_trials

MOST_TOKENS, MOST_LOSS, MOST_SECONDS = 0.5, 1.05, 600.0
"""Halving is to spend less than half of the grid's tokens, to end within 5% of its best FVU, and to take under ten minutes."""


@dataclass(frozen=True)
class Search:
    """A complete search.

    Attributes:
        trials: Its candidates.
        front: The finished ones by modality, with the fronts marked.
        seconds: Wall time of the whole job; None of one that was there, or begun, before.
    """

    trials: dict[str, Trial]
    front: pl.DataFrame
    seconds: float | None

    @property
    def rows(self) -> int:
        """Tokens, over all candidates."""
        return sum(trial.rows for trial in self.trials.values())

    def best(self, layer: int, architecture: str, sparsity: float) -> float:
        """Least FVU, mean over the modalities, among the finished candidates of a sparsity."""
        asked = (layer, architecture, sparsity)
        return min(
            (
                trial.last["fvu"]
                for trial in self.trials.values()
                if trial.status == "finished" and tuple(trial.values[n] for n in ("layer", "architecture", "sparsity")) == asked
            ),
            default=math.inf,
        )


def run(recipe: Recipe, workspace: Place) -> Search:
    """Run or read the search of a recipe."""
    stage = plan_search(recipe, workspace)
    place = stage.artefact.place
    is_new = not read_trials(place)
    begun = time.perf_counter()
    run_stage(stage, workspace)
    seconds = time.perf_counter() - begun
    trials = read_trials(place)
    with (place / "front.parquet").open() as file:
        front = pl.read_parquet(file.read())
    return Search(trials, front, seconds if is_new else None)


def dominated(search: Search) -> list[str]:
    """What the marks of the fronts get wrong, by comparing all pairs within each layer and modality."""
    wrong = []
    for (layer, modality), rows in search.front.group_by(["layer", "modality"], maintain_order=True):
        points = rows.select("candidate", "l0", "fvu", "on_front").rows()
        for name, l0, fvu, marked in points:
            beaten = any(a <= l0 and b <= fvu and (a < l0 or b < fvu) for _, a, b, _ in points)
            if marked == beaten:
                wrong.append(f"layer {layer}, {modality}: {name}")
    return wrong


def report(halving: Search, grid: Search) -> dict[str, object]:
    """Print the comparison."""
    share = halving.rows / grid.rows
    n = {status: sum(t.status == status for t in halving.trials.values()) for status in ("finished", "stopped", "failed")}
    print(f"{len(halving.trials)} candidates; with halving {', '.join(f'{count} {status}' for status, count in n.items())}")
    for name, search in (("halving", halving), ("grid", grid)):
        took = "found complete" if search.seconds is None else f"{search.seconds:.0f} s"
        print(f"  {name}: {took}, {search.rows:,} tokens")
    print(f"  halving spends {share:.1%} of the grid's tokens: {verdict(share < MOST_TOKENS)}")
    if halving.seconds is not None:
        print(f"  in {halving.seconds:.0f} s: {verdict(halving.seconds < MOST_SECONDS)}")
    ratios = {}
    values = {tuple(t.values[n] for n in ("layer", "architecture", "sparsity")) for t in grid.trials.values()}
    for layer, architecture, sparsity in sorted(values):
        mine, best = (search.best(layer, architecture, sparsity) for search in (halving, grid))
        ratios[f"layer {layer}, {architecture} {sparsity:g}"] = mine / best
        print(
            f"  layer {layer}, {architecture} {sparsity:g}: best FVU {mine:.4f}, of the grid {best:.4f}, "
            f"{mine / best:.3f} of it: {verdict(mine <= MOST_LOSS * best)}"
        )
    wrong = [*dominated(halving), *dominated(grid)]
    n_fronts = sum(search.front.select("layer", "modality").n_unique() for search in (halving, grid))
    print(f"  {n_fronts} fronts, wrong about {len(wrong)} candidates{': ' if wrong else ''}{'; '.join(wrong)}")
    seconds = {"halving": halving.seconds, "grid": grid.seconds}
    return {"share": share, "seconds": seconds, "fvu": ratios, "wrong": wrong, "candidates": len(halving.trials), **n}


def verdict(met: bool) -> str:
    """Whether a target is met."""
    return "met" if met else "missed"


def main(words: Sequence[str] | None = None) -> int:
    """Run both searches and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs", help="Where the harvest is")
    parser.add_argument("--config", default="recipes/demo.yaml", help="The recipe")
    return end_with(_compare, parser, words)


def _compare(asked: argparse.Namespace) -> None:
    recipe = validate(load_yaml(asked.config), asked.config)
    whole = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"stop": Whole()})})
    halving, grid = (run(each, place(asked.workspace)) for each in (recipe, whole))
    print(json.dumps(report(halving, grid)))


if __name__ == "__main__":
    sys.exit(main())
