"""Figure, lines and curves of LatentLens beside the logit lens: whose nearest texts name what the image shows."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels
from linrep.stats.interval import in_brackets

CONTEXTS = {
    "all": "LatentLens",
    "own": "contexts of the same layer",
    "first": "word embeddings",
    "logit": "logit lens",
}
"""The contexts in words, in the order of their colours."""
MAIN = ("all", "logit")
"""Those that are shown of every model."""


def lens_figure(table: pa.Table) -> Figure | None:
    """For each attribute the shares by image layer and what is beyond other images; then where nearest contexts lie.

    Args:
        table: Rows of the `SHARING_LENS` contract.
    """
    frame = _by_layer(table)
    if not len(frame):
        return None
    parts = []
    for attribute in _attributes(frame):
        rows = frame.filter(pl.col("attribute") == attribute)
        parts += [_shares(rows, attribute), _beyond(rows, attribute)]
    deep = _depth(frame.filter(pl.col("contexts") == "all"))
    title = "How often the nearest contexts of an image token, or its likeliest words, name what the image shows; 95% intervals"
    return panels(title, [*parts, *([] if deep is None else [deep])], n_columns=2)


def _by_layer(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table)).sort("image_layer", maintain_order=True)


def _attributes(frame: pl.DataFrame) -> list[str]:
    """Class first, if it is there."""
    return sorted(frame["attribute"].unique(maintain_order=True), key=lambda name: name != "class")


def _of(frame: pl.DataFrame, contexts: str, model: str = "trained") -> pl.DataFrame:
    return frame.filter(pl.col("contexts") == contexts, pl.col("model") == model)


def _shares(rows: pl.DataFrame, attribute: str) -> Panel:
    """LatentLens and the logit lens, each beside the values of other images; random contexts and the untrained model."""
    curves = [_curve(rows, contexts, "value", "low", "high") for contexts in MAIN]
    whole = _of(rows, "all")
    curves += [
        _control("LatentLens, other images' values", whole, "permuted"),
        _control("contexts drawn at random", whole, "random"),
        _control("logit lens, other images' values", _of(rows, "logit"), "permuted"),
        _control("untrained model", _of(rows, "all", "untrained"), "value", "low", "high"),
    ]
    drawn = tuple(one for one in curves if one.x)
    return Panel(f"{attribute}: share that names it", "image layer", "share of image tokens", drawn, x_whole=True)


def _beyond(rows: pl.DataFrame, attribute: str) -> Panel:
    """What is left without the values of other images: nothing is to be found at 0."""
    curves = [_curve(rows, contexts, "over", "over_low", "over_high") for contexts in CONTEXTS]
    curves.append(_control("untrained model", _of(rows, "all", "untrained"), "over", "over_low", "over_high"))
    drawn = tuple(one for one in curves if one.x)
    return Panel(
        f"{attribute}: beyond other images' values", "image layer", "difference of shares", drawn, (0.0, "none"), x_whole=True
    )


def _depth(rows: pl.DataFrame) -> Panel | None:
    """The text layer of nearest contexts, which is the same whatever attribute they are asked about."""
    first = _attributes(rows)[:1]
    own = rows.filter(pl.col("attribute").is_in(first))
    trained = own.filter(pl.col("model") == "trained")
    if not len(trained):
        return None
    at = tuple(map(float, trained["image_layer"]))
    curves = [
        _curve(own, "all", "text_layer", "text_layer_low", "text_layer_high"),
        Curve("the same layer", at, at, colour="#3b3b3b"),
        _control("untrained model", _of(own, "all", "untrained"), "text_layer", "text_layer_low", "text_layer_high"),
    ]
    anywhere = (sum(at) / len(at), "mean of all text layers")
    return Panel(
        "Where nearest contexts lie", "image layer", "mean text layer", tuple(c for c in curves if c.x), anywhere, x_whole=True
    )


def _curve(rows: pl.DataFrame, contexts: str, *columns: str) -> Curve:
    own = _of(rows, contexts)
    value, low, high = (_numbers(own, column) for column in columns)
    at = tuple(map(float, own["image_layer"]))
    return Curve(CONTEXTS[contexts], at, value, low, high, colour=list(CONTEXTS).index(contexts))


def _control(label: str, rows: pl.DataFrame, value: str, low: str | None = None, high: str | None = None) -> Curve:
    ends = (None if name is None else _numbers(rows, name) for name in (low, high))
    return Curve(label, tuple(map(float, rows["image_layer"])), _numbers(rows, value), *ends, control=True)


def _numbers(rows: pl.DataFrame, name: str) -> tuple[float, ...]:
    return tuple(float("nan") if v is None else float(v) for v in rows[name])


def lens_lines(table: pa.Table) -> list[str]:
    """The shares at the first and the last layer above 0 beside their controls, in a line for each lens, attribute and model.

    Args:
        table: Rows of the `SHARING_LENS` contract.
    """
    frame = _by_layer(table)
    lines = []
    for attribute in _attributes(frame):
        for model in ("trained", "untrained"):
            for contexts, words in CONTEXTS.items():
                own = _of(frame.filter(pl.col("attribute") == attribute), contexts, model)
                if len(own) and (model == "trained" or contexts in MAIN):
                    whose = "" if model == "trained" else f"{model} model: "
                    ends = "; ".join(_in_full(row) for row in _ends(own))
                    lines.append(f"  {whose}{attribute}, {words}: {ends}; above at {_above(own)}")
    said = "  share of image tokens of whose nearest contexts, or likeliest words, one names the value of their image:"
    return [said, *lines] if lines else []


def _ends(own: pl.DataFrame) -> list[dict]:
    """The rows of the first layer above 0 and of the last; of one layer alone its row."""
    later = own.filter(pl.col("image_layer") > 0)
    chosen = later if len(later) else own
    return [chosen.row(i, named=True) for i in ((0, -1) if len(chosen) > 1 else (0,))]


def _in_full(row: dict) -> str:
    over = in_brackets(row["over_low"], row["over_high"], "{:+.2f}".format, otherwise="")
    return (
        f"layer {row['image_layer']} {_share(row)}, other images' {row['permuted']:.2f}, at random {row['random']:.2f}, "
        f"beyond others {row['over']:+.2f}{over}"
    )


def _share(row: dict) -> str:
    return f"{row['value']:.2f}{in_brackets(row['low'], row['high'], '{:.2f}'.format, otherwise='')}"


def _above(own: pl.DataFrame) -> str:
    """At how many layers the interval lies above the values of other images."""
    return f"{int((own['over_low'].fill_null(-1.0) > 0).sum())} of {len(own)} layers"


def lens_headline(table: pa.Table) -> list[str]:
    """How often nearest contexts name the class beside their controls and the logit lens, in a sentence or two.

    The layers are the first above 0 and the last: none is chosen for its number.

    Args:
        table: Rows of the `SHARING_LENS` contract.
    """
    frame = _by_layer(table)
    attribute = next(iter(_attributes(frame.filter(pl.col("model") == "trained"))), "class")
    rows = frame.filter(pl.col("attribute") == attribute)
    whole, words = _of(rows, "all"), _of(rows, "logit")
    if not len(whole):
        return []
    found = _ends(whole)
    sentence = f"LatentLens: at image {_layers(found)} a nearest context names the {attribute} for {_listed(found)} of image "
    sentence += f"tokens (other images' {_plain(found, 'permuted')}, contexts at random {_plain(found, 'random')})"
    above = [f"beyond other images at {_above(whole)}"]
    if len(words):
        likely = _ends(words)
        sentence += f", and a likeliest word of the logit lens for {_listed(likely)} (other images' {_plain(likely, 'permuted')})"
        above.append(f"the logit lens at {_above(words)}")
    untrained = _of(rows, "all", "untrained")
    if len(untrained):
        above.append(f"the untrained model at {_above(untrained)}")
    return [f"{sentence}.", f"LatentLens is {', '.join(above)}."]


def _layers(rows: Sequence[dict]) -> str:
    return f"layer{'s' if len(rows) > 1 else ''} {' and '.join(str(row['image_layer']) for row in rows)}"


def _listed(rows: Sequence[dict]) -> str:
    return " and ".join(map(_share, rows))


def _plain(rows: Sequence[dict], column: str) -> str:
    return " and ".join(f"{row[column]:.2f}" for row in rows)


def lens_curves(table: pa.Table) -> dict[str, dict[int, float]]:
    """Numbers of classes, or of the first attribute where there are none, as curves over image layers.

    Args:
        table: Rows of the `SHARING_LENS` contract.
    """
    frame = _by_layer(table)
    rows = frame.filter(pl.col("attribute").is_in(_attributes(frame)[:1]))
    curves = {}
    for name, contexts, model, column in (
        ("latent_lens", "all", "trained", "value"),
        ("latent_lens_permuted", "all", "trained", "permuted"),
        ("latent_lens_over", "all", "trained", "over"),
        ("latent_lens_over/untrained", "all", "untrained", "over"),
        ("logit_lens", "logit", "trained", "value"),
        ("logit_lens_over", "logit", "trained", "over"),
    ):
        own = _of(rows, contexts, model)
        if len(own):
            curves[name] = dict(zip(own["image_layer"].to_list(), own[column].to_list(), strict=True))
    return curves
