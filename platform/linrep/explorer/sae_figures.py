"""Figures of SAEs beside random directions: quality over layers and over sparsity, and how few latents rebuild class vectors."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa
from matplotlib.figure import Figure

from linrep.explorer.figures import Curve, Panel, panels, shade
from linrep.sae.evaluate import ENERGIES

FVU = "fraction of variance unexplained"
WORDS = {"fvu": FVU, "kl_spliced": "KL from the untouched predictions, nats a token"}
BESIDE = {"kl_spliced": {"kl_resample": "another sample's tokens", "kl_mean": "mean token", "kl_zero": "zeros"}}
"""What else takes the place of the stream."""
RANDOM = "random directions"
HELD_OUT = {"image": "held-out image tokens", "text": "held-out text tokens"}


def figures(tables: Mapping[str, pa.Table]) -> dict[str, Figure]:
    """Figures by name.

    Args:
        tables: Of the schemas `QUALITY` and `REBUILT`, by their names in small letters.
    """
    quality = pl.DataFrame(pl.from_arrow(tables["quality"])).filter(pl.col("value").is_not_null())
    drawn = {}
    for measure in WORDS:
        part = quality.filter((pl.col("measure") == measure) & pl.col("modality").is_in(list(HELD_OUT)))
        beside = quality.filter(pl.col("measure").is_in(list(BESIDE.get(measure, ()))))
        if measure in BESIDE:  # a logarithmic axis has no place for zero
            part, beside = (rows.filter(pl.col("value") > 0) for rows in (part, beside))
        if len(part):
            drawn[f"layers_{measure}"] = _over_layers(part, measure, beside)
    moved = quality.filter(pl.col("measure") == "moved")
    if len(moved):
        drawn["moved"] = _moved(moved)
    energy = quality.filter(
        pl.col("measure").is_in([f"latents_of_energy_{share}" for share in ENERGIES]) & pl.col("modality").is_in(list(HELD_OUT))
    )
    if len(energy):
        drawn["energy"] = _energy(energy)
    if {"fvu", "l0"} <= set(quality["measure"]):
        drawn["front"] = _front(quality)
    if len(tables["rebuilt"]):
        drawn["rebuilt"] = _rebuilt(pl.DataFrame(pl.from_arrow(tables["rebuilt"])))
    return drawn


def _over_layers(part: pl.DataFrame, measure: str, beside: pl.DataFrame) -> Figure:
    """A panel a modality, a curve an SAE, its random directions grey; grey too, what else is put in the place of the stream."""
    parts = []
    for (modality,), own in part.sort("layer").group_by(["modality"], maintain_order=True):
        curves = []
        for (sae,), rows in own.group_by(["sae"], maintain_order=True):
            curves.append(_curve(str(sae), rows, "layer"))
            if rows["control"].is_not_null().any():
                curves.append(Curve(RANDOM, _column(rows, "layer"), _column(rows, "control"), control=True))
        others = beside.filter((pl.col("modality") == modality) & (pl.col("sae") == own["sae"][0])).sort("layer")
        for name, label in BESIDE.get(measure, {}).items():
            if len(rows := others.filter(pl.col("measure") == name)):
                curves.append(Curve(label, _column(rows, "layer"), _column(rows, "value"), control=True))
        log = _positive(pl.concat([own, others]))
        parts.append(Panel(HELD_OUT[str(modality)], "layer", WORDS[measure], tuple(curves), x_whole=True, y_log=log))
    intervals = "; 95% intervals over captions" if len(beside) else ""
    title = f"{WORDS[measure][0].upper()}{WORDS[measure][1:]}, layer by layer{intervals}"
    return panels(title, parts, n_columns=2, alike="y")


def _moved(part: pl.DataFrame) -> Figure:
    """Cosine with the first directions over layers, a curve an SAE, with quartiles over latents; another seed's grey."""
    curves = []
    for (sae,), rows in part.sort("layer").group_by(["sae"], maintain_order=True):
        curves.append(_curve(str(sae), rows, "layer"))
        curves.append(Curve("first directions of another seed", _column(rows, "layer"), _column(rows, "control"), control=True))
    panel = Panel("", "layer", "cosine with the first directions", tuple(curves), x_whole=True, y_range=(-0.05, 1.02))
    return panels("How much of the decoder is still its random start: 1 where nothing moved; quartiles of the latents", [panel])


def _energy(part: pl.DataFrame) -> Figure:
    """A panel a modality, a curve an SAE and layer: the share of the energy over the latents that write it."""
    shares = {f"latents_of_energy_{share}": share for share in ENERGIES}
    layers, parts = sorted(part["layer"].unique()), []
    wide = part.with_columns(pl.col("measure").replace_strict(shares, return_dtype=pl.Float64).alias("share")).sort("share")
    for (modality,), own in wide.group_by(["modality"], maintain_order=True):
        curves = []
        for (layer, sae), rows in own.sort("layer", "sae", "share").group_by(["layer", "sae"], maintain_order=True):
            label = f"layer {layer}" if own["sae"].n_unique() == 1 else f"layer {layer}, {sae}"
            colour = shade(layers.index(layer), len(layers))
            curves.append(Curve(label, _column(rows, "value"), _column(rows, "share"), colour=colour))
            known = rows.drop_nulls("control")
            if len(known):
                curves.append(Curve(RANDOM, _column(known, "control"), _column(known, "share"), control=True))
        axes = {"x_label": "latents, most energy first", "y_label": "share of the energy", "curves": tuple(curves)}
        parts.append(Panel(HELD_OUT[str(modality)], **axes, y_range=(0.4, 1.02), x_log=True))
    return panels("How few latents write most of what is written", parts, n_columns=2, alike="y")


def _front(quality: pl.DataFrame) -> Figure:
    """A panel a modality, a curve a layer: further down and to the left is better; as many random directions grey."""
    values = quality.filter(pl.col("measure").is_in(["fvu", "l0"]) & pl.col("modality").is_in(list(HELD_OUT)))
    keys = ["layer", "sae", "modality"]
    wide = values.pivot("measure", index=keys, values="value").join(
        values.filter(pl.col("measure") == "fvu").select(*keys, "control"), on=keys, how="left"
    )
    layers, parts = sorted(wide["layer"].unique()), []
    for (modality,), own in wide.group_by(["modality"], maintain_order=True):
        curves = []
        for i, layer in enumerate(layers):
            rows = own.filter(pl.col("layer") == layer).drop_nulls(["l0", "fvu"]).sort("l0")
            if len(rows):
                colour = shade(i, len(layers))
                curves.append(Curve(f"layer {layer}", _column(rows, "l0"), _column(rows, "fvu"), colour=colour))
                known = rows.drop_nulls("control")
                if len(known):
                    curves.append(Curve(RANDOM, _column(known, "l0"), _column(known, "control"), control=True))
        log = _positive(own.select(pl.col("fvu").alias("value"), "control"))
        parts.append(Panel(HELD_OUT[str(modality)], "L0: latents active a token", FVU, tuple(curves), x_log=True, y_log=log))
    title = "What SAEs leave unexplained by how many latents they use: further down and to the left is better"
    return panels(title, parts, n_columns=2, alike="y")


def _rebuilt(frame: pl.DataFrame) -> Figure:
    """A panel an SAE, a curve a layer: class vectors, and grey random vectors of the same norms."""
    layers, parts = sorted(frame["layer"].unique()), []
    for (sae,), own in frame.group_by(["sae"], maintain_order=True):
        curves = []
        for (layer, kind), rows in own.sort("layer", "n_latents").group_by(["layer", "vectors"], maintain_order=True):
            plain, colour = kind == "class", shade(layers.index(layer), len(layers))
            label = f"layer {layer}" if plain else "random vectors"
            curves.append(Curve(label, _column(rows, "n_latents"), _column(rows, "cosine"), control=not plain, colour=colour))
        parts.append(Panel(str(sae), "latents used", "cosine with the vector", tuple(curves), y_range=(0, 1.02), x_log=True))
    return panels(
        "How few latents rebuild differences of class means, beside random vectors of the same norms", parts, n_columns=2
    )


def _curve(label: str, rows: pl.DataFrame, x: str) -> Curve:
    known = rows["low"].is_not_null().all() and rows["high"].is_not_null().all()
    low, high = (_column(rows, end) if known else None for end in ("low", "high"))
    return Curve(label, _column(rows, x), _column(rows, "value"), low, high)


def _positive(rows: pl.DataFrame) -> bool:
    """Whether all values and controls can stand on a logarithmic axis."""
    return all(bool((rows[name].drop_nulls().drop_nans() > 0).all()) for name in ("value", "control"))


def _column(frame: pl.DataFrame, name: str) -> tuple[float, ...]:
    return tuple(float("nan") if value is None else float(value) for value in frame[name])
