"""Does an SAE beat its controls? One table for any SAE of a harvest: `python -m bench.sae_panel --workspace DIR --layer K`.

  .venv/bin/python -m bench.sae_panel --workspace runs --layer 1 --sae topk-32-x8
  .venv/bin/python -m bench.sae_panel --workspace runs --layer 1 --sae path/to/an/sae --out panel
  .venv/bin/python -m bench.sae_panel --workspace runs --layer 1 --sae topk-32-x8 --shared

DIR holds the harvest of the recipe. SAEs are named as in the workspace, or by the folder of one in any format that is known
(SAELens, dictionary_learning, sparsify, the paper's), or by hf://OWNER/NAME/FOLDER. SAEs that differ in their seed alone are
judged together. Beside each stand six controls of as many latents, as many of them active, with seeds of their own: random
directions, random directions of the data's covariance, an SAE trained on a frozen random decoder, one trained on Gaussian rows of
the same covariance, rows of the data, principal components. What every measure means and what it showed: docs/saes.md.
"""

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import torch
from matplotlib.figure import Figure

from bench.command import end_with
from bench.sae_panel_figure import curve_figure
from bench.sae_panel_model import make_trial, plan_pairs
from bench.sae_panel_rows import HarvestRows, find_saes, read_rows
from bench.sae_panel_shared import ablate, ablation_figure, ablation_tables, prepare_questions, read_tokens
from linrep.cluster.inputs import HarvestInput, harvested
from linrep.encoder import active
from linrep.places import Place, place
from linrep.recipe import Recipe, load_yaml, validate
from linrep.sae.controls import Training
from linrep.sae.controls.directions import Active
from linrep.sae.panel.beside import controls
from linrep.sae.panel.causal import LATENTS
from linrep.sae.panel.judge import Bench, JudgedSae, PanelRow, curve_name, resampled, rows_of, separates, successes
from linrep.sae.sae import Sae

TABLES = (
    (
        "Reconstruction and explanations, on held-out images",
        {
            "explained_variance": "explained variance",
            "interpretable": "interpretable, mean over t",
            curve_name(0.5): "interpretable, t .5",
            curve_name(0.7): "interpretable, t .7",
            "agreement": "agreement",
            "retrieval": "retrieval (chance .10)",
            "one_to_one": "one-to-one F1",
        },
    ),
    ("Success with few latents", {f"success_{m}": f"{m} latent{'s' * (m > 1)}" for m in LATENTS}),
    (
        "Latents needed for a cosine of .8 (fewer is sparser)",
        {f"latents_needed_{name}": f"{name} vectors" for name in ("class", "shuffled", "covariance")},
    ),
)
"""What is printed: measures by title, and what a column is called."""
FEWER = "latents_needed"


def say(line: str) -> None:
    """What is being done, beside the table."""
    print(f"panel: {line}", file=sys.stderr, flush=True)


def training_of(recipe: Recipe) -> Training:
    """How long the recipe's SAEs are trained, which is how long the trained controls are."""
    own = recipe.sae
    rate, aux = own.design.adam.learning_rate, own.design.aux
    return Training(own.rows, own.batch, rate) if aux is None else Training(own.rows, own.batch, rate, aux.dead_after)


def as_image(saes: Mapping[str, Sae]) -> Sae:
    """What takes raw image rows."""
    return saes["image"] if "image" in saes else saes[""]


def active_latents(saes: Mapping[str, Sae], rows: HarvestRows) -> Active:
    """Active latents of a row of each modality, as a control has them: as many as the SAE has on training rows."""
    found: Active = {}
    for modality, x in rows.activations.items():
        sae = saes.get(modality, as_image(saes))
        some = x[:4096]
        found[modality] = max(1, min(round(len(active(sae, some).value) / len(some)), sae.n_latents))
    return found


def judge(
    name: str, seeds: Mapping[str, Mapping[str, Sae]], rows: HarvestRows, bench: Bench, training: Training, n_seeds: int
) -> dict[str, tuple[JudgedSae, ...]]:
    """The SAE's seeds and its controls, each judged without the model."""
    one = next(iter(seeds.values()))
    k = active_latents(one, rows)
    say(f"{name}: {', '.join(seeds)}; controls have {as_image(one).n_latents:,} latents, of them active {k}")
    begun = time.monotonic()
    with torch.no_grad():
        beside = controls(rows.activations, as_image(one).n_latents, k, range(n_seeds), training)
        say(f"{name}: controls are made, {time.monotonic() - begun:.0f} s")
        judged = {}
        for who, saes in {name: tuple(map(as_image, seeds.values())), **beside}.items():
            judged[who] = tuple(bench.judge(sae) for sae in saes)
            say(f"{name}: {who} is judged ({len(saes)} seed{'s' * (len(saes) > 1)}), {time.monotonic() - begun:.0f} s")
    return judged


def table(rows: Sequence[PanelRow], columns: Mapping[str, str]) -> str:
    """Some measures as a Markdown table: a row for each SAE."""
    by = {(row.measure, row.sae): row for row in rows}
    names = dict.fromkeys(row.sae for row in rows if row.measure in columns)
    lines = [f"| | seeds | {' | '.join(columns.values())} |", "|---" * (len(columns) + 2) + "|"]
    for name in names:
        own = [by[measure, name] for measure in columns]
        lines.append(f"| {name} | {max(row.seeds for row in own)} | {' | '.join(map(_cell, own))} |")
    return "\n".join(lines)


def _cell(row: PanelRow) -> str:
    form = "{:.1f}".format if row.measure.startswith(FEWER) else _short
    ends = f" [{form(row.found.low)}, {form(row.found.high)}]" if math.isfinite(row.found.low) else ""
    return f"{form(row.found.value)}{ends}"


def _short(value: float) -> str:
    """.12, -.03 and 1.00."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"


def verdicts(rows: Sequence[PanelRow], measures: Sequence[str]) -> list[str]:
    """A line for each measure: whether the SAE is better than every control, and by how much more than the nearest."""
    lines = []
    for measure in measures:
        fewer = measure.startswith(FEWER)
        better = separates(rows, measure, fewer)
        apart = {row.sae: row.apart for row in rows if row.measure == measure and row.apart is not None and row.sae in better}
        nearest = min(apart, key=lambda name: apart[name].value * (-1 if fewer else 1))
        gap = apart[nearest]
        short = f"nearest is {nearest}: {_sign(gap.value)} [{_sign(gap.low)}, {_sign(gap.high)}]"
        missing = [name for name, yes in better.items() if not yes]
        said = "better than every control" if not missing else f"not shown to be better than {', '.join(missing)}"
        lines.append(f"  {measure}: {said}; {short}")
    return lines


def _sign(value: float) -> str:
    return f"{value:+.2f}"


def show(name: str, layer: int, rows: Sequence[PanelRow], strength: float) -> None:
    """Print the tables and what they come to."""
    there = {row.measure for row in rows}
    print(f"\n## {name}, layer {layer}\n")
    for title, columns in TABLES:
        if set(columns) <= there:
            at = f": directions at image tokens, {strength:g} times the difference of class means" if "Success" in title else ""
            print(f"{title}{at}\n\n{table(rows, columns)}\n")
    print("Against the controls, on the same images (difference with a 95% interval over images and seeds):")
    print("\n".join(verdicts(rows, [measure for _, columns in TABLES for measure in columns if measure in there])))


def write(
    out: Place, name: str, layer: int, rows: Sequence[PanelRow],
    drawn: Callable[[str, Sequence[PanelRow]], Figure] = curve_figure, end: str = "",
) -> None:  # fmt: skip
    """All rows as JSON, and a figure of them."""
    stem = f"{name.replace('/', '-')}-layer-{layer:03d}{end}"
    content = [asdict(row) for row in rows]
    (out / f"{stem}.json").write_bytes(json.dumps(content, indent=1).encode())
    figure = drawn(f"{name}, layer {layer}", rows)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    (out / f"{stem}.png").write_bytes(image.getvalue())
    say(f"every row and the figure: {out / stem}.json, .png")


def run(asked: argparse.Namespace) -> None:
    """Judge the SAEs that are asked for.

    Raises:
        LinrepError: Something that the user can mend.
    """
    workspace = place(asked.workspace)
    recipe = validate(load_yaml(asked.config), asked.config)
    harvest = harvested(recipe, workspace)
    groups = find_saes(workspace, harvest.store, asked.layer, asked.sae)
    if asked.shared:
        _shared(recipe, workspace, harvest, groups, asked)
        return
    rows = read_rows(recipe, workspace, harvest, asked.layer, asked.images)
    say(
        f"layer {asked.layer} of {harvest.store.place.name}: {len(rows.data.train.x):,} tokens of {rows.data.train.n_images:,} "
        f"training images, {len(rows.data.held.x):,} of {rows.data.held.n_images:,} held-out ones; "
        f"{len(rows.data.train_values.names)} attribute values"
    )
    bench = Bench(rows.data, rows.of_class, resamples=asked.resamples)
    plan = trial = None
    if not asked.no_model:
        plan = plan_pairs(recipe, harvest, rows.names, asked.pairs, asked.steered, asked.strength)
        trial = make_trial(recipe, workspace, harvest, plan, asked.layer, say)
    for name, seeds in groups.items():
        judged = judge(name, seeds, rows, bench, training_of(recipe), asked.seeds)
        measures = resampled(judged)
        if plan is not None and trial is not None:
            pairs = [(rows.names.index(a), rows.names.index(b)) for a, b in plan.pairs]
            measures |= successes(bench, judged, pairs, trial)
        found = rows_of(measures, name)
        show(name, asked.layer, found, asked.strength)
        if asked.out is not None:
            write(place(asked.out), name, asked.layer, found)
        if len(seeds) == 1:
            print(
                f"\n{name} has one seed, which says nothing of others: train more with .venv/bin/python jobs/train_sae.py "
                f"--config {asked.config} --workspace {asked.workspace} --sae.layers {asked.layer} --sae.grid.seed 0,1,2"
            )


def _shared(
    recipe: Recipe,
    workspace: Place,
    harvest: HarvestInput,
    groups: Mapping[str, Mapping[str, Mapping[str, Sae]]],
    asked: argparse.Namespace,
) -> None:
    """What answers lose without latents that both modalities use, of each SAE and seed."""
    tokens = read_tokens(harvest.store, asked.layer, asked.images)
    questions = prepare_questions(recipe, workspace, harvest, asked.layer, asked.questions, say)
    for seeds in groups.values():
        for name, saes in seeds.items():
            found = ablate(saes, tokens, questions, asked.draws, asked.resamples, say)
            print(f"\n## {name}, layer {asked.layer}\n\n{ablation_tables(found)}")
            if asked.out is not None:
                write(place(asked.out), name, asked.layer, found, ablation_figure, "-shared")


def main(words: Sequence[str] | None = None) -> int:
    """Judge and print; 0 done, 2 something that the message says how to mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs", help="Where the harvest is")
    parser.add_argument("--config", default="recipes/demo.yaml", help="The recipe")
    parser.add_argument("--layer", type=int, required=True, help="Layer k of the harvest")
    parser.add_argument("--sae", nargs="*", default=[], help="SAEs by name or how it begins, folder or address; all of the layer")
    parser.add_argument("--seeds", type=int, default=3, help="Seeds of each control")
    parser.add_argument("--images", type=int, default=2048, help="Training images at most, and as many held-out ones")
    parser.add_argument("--pairs", type=int, default=24, help="Ordered pairs of classes for success with few latents")
    parser.add_argument("--steered", type=int, default=8, help="Test images of each pair")
    parser.add_argument("--strength", type=float, default=1.5, help="Of a direction, in differences of class means")
    parser.add_argument("--shared", action="store_true", help="Instead: what answers lose without latents of both modalities")
    parser.add_argument("--draws", type=int, default=10, help="Draws of each set of latents that --shared takes away")
    parser.add_argument("--questions", type=int, default=128, help="Test images, and described scenes, that --shared asks about")
    parser.add_argument("--no-model", action="store_true", help="Leave success with few latents out: the model is not loaded")
    parser.add_argument("--resamples", type=int, default=500, help="Draws of images for the intervals")
    parser.add_argument("--out", default=None, help="Folder for every row (JSON) and the curve (PNG)")
    return end_with(run, parser, words)


if __name__ == "__main__":
    sys.exit(main())
