"""Which SAE shows what modalities share? Three designs at an equal budget: `python -m bench.sae_sharing --planted`, `--layer K`.

  .venv/bin/python -m bench.sae_sharing --planted
  .venv/bin/python -m bench.sae_sharing --workspace runs --layer 1 4 --out shared

One SAE of the rows of both modalities; an SAE of each, whose latents are matched after training; a crosscoder with shared and
private latents. All are trained on the same rows of image-caption pairs. Single tokens of an image and of its caption have no
counterparts, so a pair's rows are means of its tokens (`--pooling mean`) or its last tokens under one prompt (`--pooling last`).
`--planted` has worlds whose truth is known; DIR holds the harvest of the recipe. What every measure means: docs/sae-sharing.md.
"""

import argparse
import io
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import polars as pl

from bench.command import end_with
from bench.sae_sharing_rows import POOLINGS, read_pairs
from linrep.cluster.inputs import harvested
from linrep.errors import RecipeError
from linrep.places import place
from linrep.recipe import load_yaml, validate
from linrep.sae.paired.designs import CONTROLS, DESIGNS, Budget
from linrep.sae.paired.judge import TRUTH, DesignRow, by_measure, judge_pairs, judge_planted
from linrep.sae.paired.world import WORLDS
from linrep.stats.interval import in_brackets

FOUND = {
    "one_latent": "shared feature in one latent",
    "apart": "in one of each modality",
    "private": "private features",
    "auroc": "AUROC",
    "recall": "recall",
    "precision": "precision",
    "hedged": "hedged",
    "called": "called shared",
}
SHARING = {
    "energy_image": "energy shared, images",
    "energy_text": "energy shared, texts",
    "correlation": "correlation",
    "bimodal": "bimodal",
}
REBUILT = {
    "fvu_image": "FVU images",
    "fvu_text": "FVU texts",
    "fvu_image/pair": "FVU images, of pairs",
    "fvu_text/pair": "FVU texts, of pairs",
    "dead": "dead",
}
FOUND_IN_STORE = {"called": "called shared", **SHARING, "retrieval": "class retrieval", "agreement": "agreement of seeds"}
"""What is printed, by what it is called."""
MORE = ("one_latent", "apart", "private", "auroc", "recall", "precision", "retrieval", "agreement")
LESS = ("hedged", "fvu_image", "fvu_text")
"""Measures of which more, or less, is better; the others are compared with the truth, or with their null."""


def say(line: str) -> None:
    """What is being done, beside the table."""
    print(f"designs: {line}", file=sys.stderr, flush=True)


def table(rows: Sequence[DesignRow], columns: Mapping[str, str]) -> str:
    """Some measures as a Markdown table: a row for each design and control; in round brackets where texts are dealt anew."""
    by = by_measure(rows)
    shown = {measure: title for measure, title in columns.items() if measure in by}
    names = [name for name in (TRUTH, *DESIGNS, *CONTROLS) if any(name in by[measure] for measure in shown)]
    lines = [f"| | {' | '.join(shown.values())} |", "|---" * (len(shown) + 1) + "|"]
    for name in names:
        cells = [_cell(by[measure].get(name)) for measure in shown]
        lines.append(f"| {f'**{name}**' if name in DESIGNS else name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: DesignRow | None) -> str:
    if row is None or math.isnan(row.found.value):
        return ""
    null = "" if math.isnan(row.null) else f" ({_short(row.null)})"
    return f"{_short(row.found.value)}{in_brackets(row.found.low, row.found.high, _short, '')}{null}"


def _short(value: float) -> str:
    """.12, -.03, 1.00 and 24.0."""
    if abs(value) >= 9.995:
        return f"{value:.1f}"
    text = f"{value:.2f}"
    return "0" if text in ("0.00", "-0.00") else text.replace("0.", ".", 1) if abs(value) < 0.995 else text


def verdicts(rows: Sequence[DesignRow]) -> list[str]:
    """A line for each measure of which more or less is better: the best design, and those whose intervals reach its own."""
    lines = []
    for measure, own in by_measure(rows).items():
        there = {name: own[name] for name in DESIGNS if name in own and not math.isnan(own[name].found.value)}
        if measure not in (*MORE, *LESS) or not there:
            continue
        sign = -1 if measure in LESS else 1
        best = max(there.values(), key=lambda row: sign * row.found.value)
        reach = [name for name, row in there.items() if row is not best and _overlap(row, best)]
        beside = f"intervals of {', '.join(reach)} reach it" if reach else "no other interval reaches it"
        lines.append(f"  {measure}: {best.design} ({_cell(best)}); {beside}")
    return lines


def _overlap(one: DesignRow, other: DesignRow) -> bool:
    """Whether two intervals have a point in common; one that is not known reaches everywhere."""
    ends = (one.found.low, one.found.high, other.found.low, other.found.high)
    return any(math.isnan(end) for end in ends) or (ends[0] <= ends[3] and ends[2] <= ends[1])


def show(title: str, rows: Sequence[DesignRow], parts: Sequence[Mapping[str, str]]) -> str:
    """The tables of a world or a layer and what they come to."""
    lines = [f"\n## {title}\n", *(f"{table(rows, columns)}\n" for columns in parts), "Best, and whose 95% intervals reach it:"]
    return "\n".join([*lines, *verdicts(rows)])


def run(asked: argparse.Namespace) -> None:
    """Compare the designs where it is asked for.

    Raises:
        LinrepError: Something that the user can mend.
    """
    if not asked.planted and not asked.layer:
        raise RecipeError("say --planted, or --layer and the layers of a harvest")
    budget = Budget(asked.decoder_rows, asked.k, asked.steps, asked.batch, asked.learning_rate)
    seeds, begun = range(asked.seeds), time.monotonic()
    text, found = [], []
    for name, world in WORLDS.items() if asked.planted else ():
        rows = judge_planted(world, replace(budget, k=world.active_latents), seeds)
        say(f"{name}: {len(seeds)} worlds, {time.monotonic() - begun:.0f} s")
        text.append(show(f"Planted: {name}", rows, (FOUND, SHARING, REBUILT)))
        print(text[-1])
        found += [{"where": name, **_record(row)} for row in rows]
    if asked.layer:
        workspace = place(asked.workspace)
        recipe = validate(load_yaml(asked.config), asked.config)
        store = harvested(recipe, workspace).store
        for layer in asked.layer:
            train, held, label = read_pairs(recipe.sharing, store, layer, asked.pooling)
            say(f"layer {layer} of {store.place.name}, {asked.pooling}: {len(train):,} training, {len(held):,} held-out pairs")
            rows = judge_pairs(train, held, label, budget, seeds, asked.resamples)
            say(f"layer {layer}: {len(seeds)} seeds, {time.monotonic() - begun:.0f} s")
            chance = by_measure(rows)["chance"][DESIGNS[0]].found.value
            of = "means of tokens" if asked.pooling == "mean" else "last tokens"
            title = f"Layer {layer}, {of}, {len(held):,} held-out pairs; class retrieval by chance {_short(chance)}"
            text.append(show(title, rows, (FOUND_IN_STORE, REBUILT)))
            print(text[-1])
            found += [{"where": f"layer {layer}, {asked.pooling}", **_record(row)} for row in rows]
    if asked.out is not None:
        out = place(asked.out)
        (out / "designs.md").write_bytes("\n".join(text).encode())
        sheet = io.BytesIO()
        pl.DataFrame(found).write_parquet(sheet)
        (out / "designs.parquet").write_bytes(sheet.getvalue())
        say(f"every row: {out / 'designs.parquet'}; the tables: {out / 'designs.md'}")


def _record(row: DesignRow) -> dict[str, object]:
    flat = asdict(row)
    return {**flat.pop("found"), **flat}


def main(words: Sequence[str] | None = None) -> int:
    """Compare and print; 0 done, 2 something that the message says how to mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planted", action="store_true", help="Worlds whose truth is known")
    parser.add_argument("--workspace", default="runs", help="Where the harvest is")
    parser.add_argument("--config", default="recipes/demo.yaml", help="The recipe")
    parser.add_argument("--layer", type=int, nargs="*", default=[], help="Layers k of the harvest")
    parser.add_argument("--pooling", choices=POOLINGS, default="mean", help="Which tokens a pair's rows are made of")
    parser.add_argument("--seeds", type=int, default=5, help="Planted worlds of a kind, or trainings")
    parser.add_argument("--decoder-rows", type=int, default=256, help="Of each design in all, a multiple of 4")
    parser.add_argument("--k", type=int, default=8, help="Active latents of a row; planted worlds say their own")
    parser.add_argument("--steps", type=int, default=1000, help="Steps of training")
    parser.add_argument("--batch", type=int, default=256, help="Pairs of a step")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="Of Adam at its height")
    parser.add_argument("--resamples", type=int, default=300, help="Draws of held-out pairs for the intervals")
    parser.add_argument("--out", default=None, help="Folder for every row (parquet) and the tables (Markdown)")
    return end_with(run, parser, words)


if __name__ == "__main__":
    sys.exit(main())
