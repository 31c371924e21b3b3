"""The figures of the documentation, from the demo: that of the first page is drawn here, others are taken from the results.

  .venv/bin/python -m documentation.figure runs

The first page has a scene, where two latents fire in it, and what a direction does to answers. The answers that it quotes are
printed. Scene and cell are chosen by hand, as an example; the curves are over all of them. The latents are those that separate
the scene's colour and its class best, on the half of the samples that they are chosen on.
"""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from documentation.results import effects, made, rows
from documentation.where import Activity, Encoded, best_latent, scene_of
from linrep.explorer.figures import COLOURS
from linrep.places import place
from linrep.probe.artefact import PROBES_KIND
from linrep.steer.artefact import STEERING, VERDICTS_KIND
from linrep.vlm.families import layout
from linrep.vlm.tokens import patch_box

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "front.png"
SCENE = "images/n90000003/heldout-1-001815.JPEG"
LAYER, STRENGTH = 2, 1.5
"""Of the edit whose answers are quoted, at image tokens."""
KINDS = ("class_mean", "random")


def main(workspace: str, recipe: str = "demo", out: Path = OUT) -> None:
    """Draw the figure and print what the page says beside it."""
    here, encoded = place(workspace), Encoded(workspace, recipe)
    truth, image = scene_of(workspace, SCENE)
    found = [(name, best_latent(here, recipe, name, truth[name])) for name in ("colour", "class")]
    activity = encoded(image)
    figure = Figure(figsize=(12.6, 3.3), dpi=110, layout="constrained")
    scene, *heats, curves = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.7))
    pixels = np.asarray(Image.open(BytesIO(image)).convert("RGB"))
    scene.imshow(pixels)
    scene.set_title("a scene", fontsize=10)
    for axes, (name, best) in zip(heats, found, strict=True):
        draw_heat(axes, pixels, activity, encoded, best["latent"])
        axes.set_title(f"latent {best['latent']}: {name} {truth[name]}", fontsize=10)
        print(f"latent {best['latent']}, layer {best['layer']}: F1 {best['f1']:.2f} for {name} {truth[name]}")
    for axes in (scene, *heats):
        axes.set(xticks=[], yticks=[])
    measured = effects(here, recipe).filter(
        pl.col("edit") == "add", pl.col("site") == "image", pl.col("strength") == STRENGTH, pl.col("measure") == "turned"
    )
    draw_turned(curves, measured.sort("layer"))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    judged = made(VERDICTS_KIND, made(STEERING, here, recipe).place)
    for of, drawn, name in ((made(PROBES_KIND, here, recipe), "layers_class", "probes"), (judged, "layers_turned", "steering")):
        (out.parent / f"{name}.png").write_bytes((of.place / "figures" / f"{drawn}.png").read_bytes())
    quote(rows(judged, "verdicts"))
    print(measured.filter(pl.col("layer") == LAYER, pl.col("direction").is_in(KINDS)).select("direction", "value", "low", "high"))


def quote(verdicts: pl.DataFrame) -> None:
    """Print the answers about the scene: without an edit, and under each direction."""
    of = verdicts.filter(pl.col("sample_id") == SCENE, pl.col("edit") == "add", pl.col("site") == "image")
    of = of.filter(pl.col("layer") == LAYER, pl.col("strength") == STRENGTH, pl.col("direction").is_in(KINDS))
    print(of.select("source", "target", "direction", "about", "plain", "text").sort("direction", "about"))


def draw_heat(axes: Axes, pixels: np.ndarray, activity: Activity, encoded: Encoded, latent: int) -> None:
    """The image in grey with the patches on which a latent fires, denser where it fires more."""
    axes.imshow(np.asarray(Image.fromarray(pixels).convert("L")), cmap="gray", vmin=-60, vmax=300)
    plan, values = layout(activity.size, encoded.card), activity.crops[:, :, latent]
    for row, col in np.argwhere(values > 0):
        left, top, right, bottom = patch_box(plan, 1, int(row), int(col))
        alpha = 0.1 + 0.65 * float(values[row, col]) / float(values.max())
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, color=COLOURS[1], alpha=alpha, lw=0))


def draw_turned(axes: Axes, turned: pl.DataFrame) -> None:
    """Share of answers that a class direction turns when it is added at image tokens, beside random directions."""
    for kind, label, style, colour in (
        ("class_mean", "class direction", "-o", COLOURS[0]),
        ("random", "random direction, same norm", "--s", "#8a8a8a"),
    ):
        of = turned.filter(pl.col("direction") == kind)
        axes.plot(of["layer"], of["value"], style, color=colour, label=label, markersize=4)
        axes.fill_between(of["layer"], of["low"], of["high"], color=colour, alpha=0.18, linewidth=0)
    axes.set(xlabel="layer at which it is added to the image tokens", ylabel="share of answers turned", ylim=(-0.03, 1.03))
    axes.set_title("steering “what is it ?” to another object, 95% intervals", fontsize=10)
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    main(sys.argv[1])
