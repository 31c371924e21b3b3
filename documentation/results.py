"""The tables of docs/results.md, made from a workspace: what came out, with intervals and controls beside it.

  .venv/bin/python -m documentation.results runs

The sentences around them are written by people, who read them again when the tables change.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from linrep import artefact
from linrep.errors import StoreError
from linrep.explorer.sharing_words import main_rows, main_trends
from linrep.features.artefact import FEATURES_KIND
from linrep.interpret.artefact import INTERPRETATIONS_KIND
from linrep.kind import Kind
from linrep.places import Place, place
from linrep.probe.artefact import PROBES_KIND
from linrep.sae.artefact import EVALUATIONS, SAES
from linrep.sae.tuning import TUNES
from linrep.sharing.artefact import SHARING_KIND
from linrep.sharing.config import POOLINGS
from linrep.stats.interval import in_brackets, of_mean
from linrep.steer.artefact import STEERING, VERDICTS_KIND
from linrep.steer.config import DONORS, INTERCHANGE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
MARK, END = "<!-- results: {} -->", "<!-- results: end -->"
GOOD = 0.8
"""A latent separates a value well where its F1 is above this."""
KINDS = ("class_mean", "text_class_mean", "ridge", "ridge_pattern", "random", "orthogonal", "shuffled_mean", "unembedding")


def made(kind: Kind, where: Place, recipe: str | None = None) -> artefact.Artefact:
    """The one complete artefact of a kind in a place.

    Args:
        kind: The kind.
        where: A workspace, or an artefact that holds others.
        recipe: Of the artefact; any if None.

    Raises:
        StoreError: There is none, or there are several.
    """
    found = [one for one in artefact.all_in(kind, where) if recipe in (None, one.manifest.name) and one.complete]
    if len(found) != 1:
        raise StoreError(f"{len(found)} complete {kind.what} of {recipe} in {where}, not one")
    return found[0]


def rows(of: artefact.Artefact, table: str | None = None) -> pl.DataFrame:
    """A table of an artefact as a frame."""
    found = pl.from_arrow(of.table() if table is None else of.table(table))
    assert isinstance(found, pl.DataFrame)
    return found


def number(value: float | None, digits: int = 2) -> str:
    """A number as the tables show it: a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def shown(row: Mapping | None, name: str = "value", control: str | None = None, digits: int = 2) -> str:
    """A number of a row with its interval, and its control or null in round brackets."""
    if row is None or row.get(name) is None:
        return "–"
    prefix = "" if name == "value" else f"{name}_"
    interval = in_brackets(row[f"{prefix}low"], row[f"{prefix}high"], lambda x: f"{x:.{digits}f}", otherwise="")
    beside = "" if control is None or row[control] is None else f" ({row[control]:.{digits}f})"
    return f"{row[name]:.{digits}f}{interval}{beside}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    said = [f"| {' | '.join(line)} |" for line in (head, *lines)]
    return "\n".join([said[0], "|---" * len(head) + "|", *said[1:]])


def one(frame: pl.DataFrame, **wanted: object) -> Mapping | None:
    """The row with these values; None where there is none.

    Raises:
        StoreError: There are several.
    """
    found = frame.filter(*(pl.col(name).is_null() if value is None else pl.col(name) == value for name, value in wanted.items()))
    if len(found) > 1:
        raise StoreError(f"{len(found)} rows with {wanted}, not one")
    return found.row(0, named=True) if len(found) else None


def probe_table(workspace: Place, recipe: str) -> str:
    """Top-1 of probes of image rows over layers."""
    frame = rows(made(PROBES_KIND, workspace, recipe), "probes")
    frame = frame.filter(pl.col("n_per_class").is_null(), pl.col("k").is_null(), ~pl.col("centred"))
    columns = (
        ("class, pooled, ridge", "class", "pooled", "ridge"),
        ("class, pooled, softmax", "class", "pooled", "softmax"),
        ("class, pooled, class mean", "class", "pooled", "class_mean"),
        ("class, last token, softmax", "class", "last", "softmax"),
        ("colour, pooled, softmax", "colour", "pooled", "softmax"),
        ("background, pooled, softmax", "ground", "pooled", "softmax"),
    )
    own = frame.filter(pl.col("fitted_on") == "image", pl.col("tested_on") == "image")
    lines = [
        [str(layer)]
        + [
            shown(one(own, layer=layer, attribute=attribute, view=view, kind=kind), "top1", "control_task")
            for _, attribute, view, kind in columns
        ]
        for layer in sorted(own["layer"].unique())
    ]
    return markdown(["layer", *(title for title, *_ in columns)], lines)


def transfer_table(workspace: Place, recipe: str) -> str:
    """Probes of captions on images over layers, as they are."""
    frame = rows(made(PROBES_KIND, workspace, recipe), "probes")
    frame = frame.filter(
        pl.col("n_per_class").is_null(), pl.col("k").is_null(), ~pl.col("centred"), pl.col("attribute") == "class",
        pl.col("view") == "pooled", pl.col("fitted_on") == "text", pl.col("tested_on") == "image",
    )  # fmt: skip
    kinds = [kind for kind in ("class_mean", "ridge", "lda", "softmax") if kind in set(frame["kind"])]
    lines = [
        [str(layer), *(shown(one(frame, layer=layer, kind=kind), "top1") for kind in kinds)]
        for layer in sorted(frame["layer"].unique())
    ]
    return markdown(["layer", *(kind.replace("_", " ") for kind in kinds)], lines)


def effects(workspace: Place, recipe: str) -> pl.DataFrame:
    """What edits did, by the judge of the recipe."""
    return rows(made(VERDICTS_KIND, made(STEERING, workspace, recipe).place), "effects")


def steer_table(site: str, strength: float) -> Callable[[Place, str], str]:
    """Successes by layer and direction, at one site and strength; turned, kept and damage of the class mean."""

    def table(workspace: Place, recipe: str) -> str:
        frame = effects(workspace, recipe).filter(pl.col("edit") == "add", pl.col("site") == site, pl.col("strength") == strength)
        success = frame.filter(pl.col("measure") == "success")
        kinds = [kind for kind in KINDS if kind in set(success.drop_nulls("value")["direction"])]
        own = frame.filter(pl.col("direction") == "class_mean")
        lines = [
            [str(layer), *(shown(one(success, layer=layer, direction=kind)) for kind in kinds)]
            + [shown(one(own, layer=layer, measure=measure)) for measure in ("turned", "turned_kept_all", "damage")]
            for layer in sorted(success["layer"].unique())
        ]
        return markdown(["layer", *(kind.replace("_", " ") for kind in kinds), "turned", "kept", "damage"], lines)

    return table


def interchange_table(workspace: Place, recipe: str) -> str:
    """Answers turned by streams of other runs at the last token, over layers; the control in round brackets beside the first."""
    frame = effects(workspace, recipe).filter(pl.col("edit") == INTERCHANGE)
    turned, over = (frame.filter(pl.col("measure") == measure) for measure in ("turned", "turned_over_image"))
    lines = [
        [str(layer), *(shown(one(turned, layer=layer, direction=donor)) for donor in DONORS)]
        + [shown(one(over, layer=layer, direction=donor)) for donor in ("text", "text_centred")]
        for layer in sorted(frame["layer"].unique())
    ]
    head = ["another image", "text", "text, centred", "image of the same class", "text - image", "text, centred - image"]
    return markdown(["layer", *head], lines)


def dose_table(workspace: Place, recipe: str) -> str:
    """Answers turned by the images' direction, the texts' at the same norm and at matched dose, and the texts' rest alone."""
    frame = effects(workspace, recipe).filter(pl.col("edit") == "add", pl.col("measure") == "turned")
    kinds = ("class_mean", "text_class_mean", "text_matched", "text_rest")
    lines = [
        [site, str(layer), *(shown(one(own, layer=layer, direction=kind)) for kind in kinds)]
        for site, strength in (("image", 2.0), ("last", 1.0))
        for own in [frame.filter(pl.col("site") == site, pl.col("strength") == strength)]
        for layer in sorted(own["layer"].unique())
    ]
    return markdown(["site", "layer", "images' (shared part)", "texts', same norm", "texts', matched dose", "texts' rest"], lines)


def evaluation(workspace: Place, recipe: str) -> artefact.Artefact:
    """The evaluation of a recipe's SAEs."""
    return made(EVALUATIONS, made(SAES, workspace, recipe).place)


def quality_table(workspace: Place, recipe: str) -> str:
    """FVU, dead latents, and how many values have a latent that separates them, of each SAE."""
    found = evaluation(workspace, recipe)
    quality, truth = rows(found, "quality"), rows(found, "truth")
    attributes = [value for value in ("class", "colour", "ground") if value in set(truth["attribute"])]
    lines = []
    for layer, sae in sorted(set(quality.select("layer", "sae").rows())):
        own, of = (
            quality.filter(pl.col("layer") == layer, pl.col("sae") == sae),
            truth.filter(pl.col("layer") == layer, pl.col("sae") == sae),
        )
        fvu = [one(own, measure="fvu", modality=modality) for modality in ("image", "text")]
        alive = one(own, measure="alive", modality="both")
        line = [str(layer), sae, *(f"{number(row['value'], 3)} ({number(row['control'])})" if row else "–" for row in fvu)]
        line.append("–" if alive is None else f"{1 - alive['value']:.1%}")
        for attribute in attributes:
            part = of.filter(pl.col("attribute") == attribute)
            good, control = (int((part[column] > GOOD).sum()) for column in ("f1", "control"))
            apart = of_mean((part["f1"] - part["control"]).to_numpy())
            line.append(f"{good} of {len(part)} ({control})")
            line.append(f"{apart.value:+.2f}{in_brackets(apart.low, apart.high, '{:+.2f}'.format)}")
        lines.append(line)
    titles = [title for attribute in attributes for title in (f"{attribute}: F1 > {GOOD}", "F1 above random's")]
    return markdown(["layer", "SAE", "FVU image", "FVU text", "dead", *titles], lines)


def loss_table(workspace: Place, recipe: str) -> str:
    """KL in nats with each SAE in the place of the stream, and with ablations, at image and at text positions."""
    quality = rows(evaluation(workspace, recipe), "quality")
    measures = {"kl_spliced": "", "kl_resample": ", another sample's", "kl_mean": ", mean", "kl_zero": ", zeros"}
    columns = [(m, p) for p in ("image", "text") for m in measures]
    lines = []
    for layer, sae in sorted(set(quality.select("layer", "sae").rows())):
        own = quality.filter(pl.col("layer") == layer, pl.col("sae") == sae)
        found = [(one(own, measure=m, modality=p), 4 if m == "kl_spliced" else 2) for m, p in columns]
        lines.append([str(layer), sae, *(shown(row, control="control", digits=digits) for row, digits in found)])
    return markdown(["layer", "SAE", *(f"{p}{measures[m]}" for m, p in columns)], lines)


def needed_table(workspace: Place, recipe: str) -> str:
    """Latents that rebuild class directions, beside random vectors and random directions."""
    quality = rows(evaluation(workspace, recipe), "quality")
    lines = []
    for layer, sae in sorted(set(quality.select("layer", "sae").rows())):
        own = quality.filter(pl.col("layer") == layer, pl.col("sae") == sae)
        line = [str(layer), sae]
        for cosine in ("0.8", "0.9"):
            of, other = (one(own, measure=f"latents_needed_{cosine}/{what}", modality="image") for what in ("class", "random"))
            line += [
                "–" if of is None else f"{of['value']:g} [{of['low']:g}, {of['high']:g}] ({of['control']:g})",
                "–" if other is None else f"{other['value']:g}",
            ]
        lines.append(line)
    head = [f"{what}, cosine {cosine}" for cosine in (0.8, 0.9) for what in ("class vectors", "random vectors")]
    return markdown(["layer", "SAE", *head], lines)


def front_table(workspace: Place, recipe: str) -> str:
    """The candidates of the search that were trained to their end."""
    front = rows(made(TUNES, workspace, recipe), "front")
    lines = []
    for mean in front.filter(pl.col("modality") == "mean").sort("layer", "l0", "width").iter_rows(named=True):
        line = [str(mean["layer"]), str(mean["width"]), f"{mean['sparsity']:g}", f"{mean['learning_rate']:g}"]
        for modality in ("image", "text"):
            row = one(front, layer=mean["layer"], candidate=mean["candidate"], modality=modality)
            line.append(shown(row, "fvu", "control", digits=3))
        lines.append([*line, *("yes" if mean[name] else "" for name in ("on_front", "recommended"))])
    return markdown(["layer", "width", "k", "learning rate", "FVU image", "FVU text", "on the front", "recommended"], lines)


SHARED = (
    "hub", "hub_centred", "hub_whitened", "cka_debiased", "subspace_overlap", "neighbourhood_overlap", "gap_share",
    "modality_directions", "direction_cosine", "transfer_image_to_text", "transfer_text_to_image",
)  # fmt: skip
OF_LATENTS = (
    "overlap_0.01", "bimodal_mass", "cofire", "cross_modal_weight", "cross_modal_weight_centred", "cross_modal_weight_rest",
    "reliability_cross_modal_weight_rest",
)  # fmt: skip


def sharing_table(workspace: Place, recipe: str) -> str:
    """Measures of sharing at the first, a middle and the last layer, and of the untrained model at the last."""
    frame = main_rows(rows(made(SHARING_KIND, workspace, recipe), "sharing"))
    layers = sorted(frame["layer"].unique())
    places = [("trained", layers[0]), ("trained", layers[len(layers) // 2]), ("trained", layers[-1]), ("untrained", layers[-1])]
    saes = sorted({name for name in frame["sae"].unique() if name is not None})
    wanted = [(metric, None) for metric in SHARED]
    wanted += [(metric, sae) for sae in saes for metric in OF_LATENTS if not sae.endswith("/random")]
    wanted += [(metric, sae) for sae in saes for metric in ("bimodal_mass", *OF_LATENTS[4:6]) if sae.endswith("/random")]
    lines = [
        [f"`{metric}`" + (f" of {sae}" if sae else "")]
        + [shown(one(frame, metric=metric, sae=sae, model=model, layer=layer), control="null") for model, layer in places]
        for metric, sae in wanted
    ]
    return markdown(["metric", *(f"{model}, layer {layer}" for model, layer in places)], lines)


POOLED = (
    ("direction_cosine", "class"), ("direction_cosine", "colour"), ("direction_cosine", "ground"),
    ("class_retrieval_text_to_image", "class"), ("hub", None), ("hub_centred", None), ("hub_whitened", None), ("gap_share", None),
)  # fmt: skip


def poolings_table(workspace: Place, recipe: str) -> str:
    """Measures for each choice of tokens: base and last layer, the trend, and the untrained model at the last layer."""
    results = made(SHARING_KIND, workspace, recipe)
    frame, trends = rows(results, "sharing"), main_trends(results.table("trends"))
    lines = []
    for metric, attribute in POOLED:
        for pooling in POOLINGS:
            which = {"metric": metric, "attribute": attribute, "pooling": pooling, "sae": None}
            trend = one(trends, **which, model="trained")
            if trend is None:
                continue
            ends = [one(frame, **which, model="trained", layer=trend[end]) for end in ("base", "last")]
            untrained = one(frame, **which, model="untrained", layer=trend["last"])
            change = f"{trend['change']:+.2f}{in_brackets(trend['low'], trend['high'], '{:+.2f}'.format)}"
            others = in_brackets(trend["classes_low"], trend["classes_high"], "{:+.2f}".format, otherwise="")
            lines.append(
                [f"`{metric}`" + (f", {attribute}" if attribute else ""), pooling, f"{trend['base']} to {trend['last']}",
                 *(shown(row, control="null") for row in ends), change, others.strip(), trend["verdict"],
                 shown(untrained, control="null"), trend["over_untrained_verdict"] or ""]
            )  # fmt: skip
    head = ["measure", "tokens", "layers", "base", "last", "change", "over classes", "verdict", "untrained, last", "beyond it"]
    return markdown(head, lines)


def latents_table(workspace: Place, recipe: str) -> str:
    """How many latents of each SAE fire, and how well the best one separates each attribute."""
    found = made(FEATURES_KIND, workspace, recipe)
    features, labels = rows(found, "features"), rows(found, "labels")
    lines = []
    for layer, sae in features.select("layer", "sae").unique(maintain_order=True).rows():
        own = features.filter(pl.col("layer") == layer, pl.col("sae") == sae)
        line = [str(layer), sae, str(len(own))]
        line += [str(int((own[f"rate_{modality}"] > 0).sum())) for modality in ("image", "text")]
        line.append(number(own["uniqueness"].drop_nulls().median()))  # type: ignore[arg-type]
        of = labels.filter(pl.col("layer") == layer, pl.col("sae") == sae, pl.col("modality") == "image")
        for attribute in ("class", "colour", "ground"):
            best = of.filter(pl.col("attribute") == attribute).sort("f1_chosen", descending=True).unique("value", keep="first")
            line.append(f"{number(best['f1'].median())} ({len(best)})")  # type: ignore[arg-type]
        lines.append(line)
    head = ["layer", "SAE", "latents", "fire on images", "fire on texts", "median uniqueness"]
    return markdown([*head, *(f"median F1, {attribute}" for attribute in ("class", "colour", "ground"))], lines)


def score_table(workspace: Place, recipe: str) -> str:
    """Mean scores of explanations over latents, with shuffled explanations beside them."""
    scores = rows(made(INTERPRETATIONS_KIND, workspace, recipe), "scores").drop_nulls("value")
    lines = []
    for sae in scores["sae"].unique(maintain_order=True):
        line = [sae]
        for task, modality in (("detection", "image"), ("detection", "text"), ("fuzzing", "image"), ("fuzzing", "text")):
            parts = []
            for control in ("own", "shuffled"):
                of = scores.filter(
                    pl.col("sae") == sae, pl.col("task") == task, pl.col("modality") == modality, pl.col("control") == control
                )
                mean = of_mean(of["value"].to_numpy())
                parts.append(f"{mean.value:.2f}{in_brackets(mean.low, mean.high, '{:.2f}'.format)}" if control == "own" else
                             f"({mean.value:.2f}), {len(of)}")  # fmt: skip
            line.append(" ".join(parts))
        lines.append(line)
    return markdown(["SAE", "detection, image", "detection, text", "fuzzing, image", "fuzzing, text"], lines)


TABLES: dict[str, Callable[[Place, str], str]] = {
    "probes": probe_table,
    "transfer": transfer_table,
    "steering at image tokens": steer_table("image", 2.0),
    "steering at the last token": steer_table("last", 1.0),
    "matched dose": dose_table,
    "interchange": interchange_table,
    "saes": quality_table,
    "loss": loss_table,
    "needed": needed_table,
    "search": front_table,
    "sharing": sharing_table,
    "sharing by tokens": poolings_table,
    "latents": latents_table,
    "explanations": score_table,
}
"""The marks of the page, and what makes the table behind each."""


def main(workspace: str, recipe: str = "demo", page: Path = PAGE) -> None:
    """Write every table of the page anew."""
    from documentation.where import where_table

    text = page.read_text(encoding="utf-8")
    for name, table in {**TABLES, "where": where_table}.items():
        before, rest = text.split(MARK.format(name) + "\n")
        text = f"{before}{MARK.format(name)}\n{table(place(workspace), recipe)}\n{END}{rest.split(END, 1)[1]}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
