"""SAEs in lines: the trade between sparsity and loss, layer by layer, each beside random directions."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from linrep.sae.evaluate import ENERGIES
from linrep.sae.report import COSINES
from linrep.stats.interval import in_brackets, of_mean

SHOWN = (
    "fvu", "l0", "alive", "dense", "moved", "latents_of_energy", "kl_", "ce_recovered", "latents_needed", "stability", "n_texts",
)  # fmt: skip
LAZY = 0.5
"""Mean cosine with the first directions above which an SAE is said to have hardly left its random start."""
GOOD = 0.8
"""A latent separates a value well where its F1 is above this."""
Measured = tuple[float, float | None, float | None, float | None]
"""Value, lower and upper end of its spread, control."""
NOT_KNOWN = (None, None, None, None)


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def summary_lines(tables: Mapping[str, pa.Table], reads: Mapping[str, list[str]]) -> list[str]:
    """The main numbers of each SAE, with the random SAE's in round brackets."""
    quality, truth, rebuilt = (_frame(tables[name]) for name in ("quality", "truth", "rebuilt"))
    lines, n_texts = [], {}
    for (layer, sae), part in quality.group_by(["layer", "sae"], maintain_order=True):
        measured = {
            (r["measure"], r["modality"]): (r["value"], r["low"], r["high"], r["control"])
            for r in part.iter_rows(named=True) if r["value"] is not None
        }  # fmt: skip
        n_texts |= {measure: int(value[0]) for (measure, _), value in measured.items() if measure.startswith("n_texts")}
        lines.append(f"  layer {layer} {sae}")
        lines += [_of_modality(measured, modality) for modality in ("image", "text") if ("l0", modality) in measured]
        here = (pl.col("layer") == layer) & (pl.col("sae") == sae)
        lines += [*_training(measured), *_needed(measured, rebuilt.filter(here)), *_found(truth.filter(here))]
        lines += [f"    {m} {v[0]:.2f} ({v[3]:.2f})" for (m, _), v in measured.items() if m.startswith("stability")]
    lines += [f"  {name} read {'; '.join(said)}" for name, said in list(reads.items())[:1]]
    return ["  in round brackets: random directions", *_on_captions(n_texts), *lines]


def _on_captions(n_texts: Mapping[str, int]) -> list[str]:
    if not n_texts:
        return []
    return [
        f"  KL from the untouched model's predictions with the SAE in the place of the stream, nats a token, with its 95% "
        f"interval over {n_texts['n_texts']} held-out captions; then that of another sample's tokens, of the mean token, of zeros"
    ]


def _training(measured: Mapping[tuple[str, str], Measured]) -> list[str]:
    """How far decoder rows are from their random start, and how few latents do most of the work."""
    parts = []
    if (moved := measured.get(("moved", "both"))) is not None:
        parts.append(f"cosine with the random start, mean [quartiles] {_said(moved)}")
    for modality in ("image", "text"):
        carried = [measured.get((f"latents_of_energy_{share}", modality)) for share in ENERGIES]
        if all(found is not None for found in carried):
            own, beside = (
                "/".join("-" if found is None or found[i] is None else f"{found[i]:.0f}" for found in carried) for i in (0, 3)
            )
            parts.append(f"latents that write 50/90/99% of the {modality} energy {own} ({beside})")
    return [f"    {'; '.join(parts)}"] if parts else []


def _of_modality(measured: Mapping[tuple[str, str], Measured], modality: str) -> str:
    """FVU is undefined where the held-out rows do not vary, or an SAE's output is not finite."""
    fvu = measured.get(("fvu", modality))
    parts = ["FVU undefined (constant rows)" if fvu is None else f"FVU {_said(fvu)}"]
    parts[0] += f", L0 {measured['l0', modality][0]:.3g}"
    alive = measured.get(("alive", "both"), measured.get(("alive", modality), (float("nan"),)))[0]
    if ("n_texts", modality) in measured:
        beside = (
            f"{words} {_said(measured.get((f'kl_{name}', modality)), spread=False)}"
            for name, words in (("resample", "another sample's"), ("mean", "mean"), ("zero", "zeros"))
        )
        parts.append(f"KL {_said(measured.get(('kl_spliced', modality)), digits=2)}; {'; '.join(beside)}")
    return f"    {modality}: {', '.join(parts)}" + (f", dead {1 - alive:.1%}" if modality == "image" else "")


def _said(value: Measured | None, digits: int | None = None, spread: bool = True) -> str:
    """A number, the ends of its spread and its control; a dash where there is none.

    Args:
        value: All four.
        digits: Significant ones, of the control too; None: three, and two decimals of the control.
        spread: Whether the ends are said.
    """
    if value is None:
        return "-"
    number, low, high, control = value
    form = f"{{:.{digits or 3}g}}".format
    ends = in_brackets(low, high, form, otherwise="") if spread else ""
    return form(number) + ends + ("" if control is None else f" ({form(control) if digits else f'{control:.2f}'})")


def _needed(measured: Mapping[tuple[str, str], Measured], rebuilt: pl.DataFrame) -> list[str]:
    """Latents that class vectors need, beside those that random vectors do, and those of random directions."""
    if not len(rebuilt):
        return []
    most, parts = int(rebuilt["n_latents"].max()), []  # pyright: ignore[reportArgumentType]

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:g}" if value <= most else f"more than {most}"

    for cosine in COSINES:
        (own, low, high, control), (other, *_) = (
            measured.get((f"latents_needed_{cosine}/{kind}", "image"), NOT_KNOWN) for kind in ("class", "random")
        )
        spread = f"{number(own)} [{number(low)}, {number(high)}] ({number(control)})"
        parts.append(f"cosine {cosine} from {spread} latents, random vectors {number(other)}")
    return [f"    class vectors, median [quartiles]: {'; '.join(parts)}"]


def _found(truth: pl.DataFrame) -> list[str]:
    lines = []
    for (attribute,), rows in truth.group_by(["attribute"], maintain_order=True):
        good, control = (int((rows[name] > GOOD).sum()) for name in ("f1", "control"))
        medians = ", ".join(
            f"median {title} {_median(rows[name], 2)} ({_median(rows[beside], 2)})"
            for title, name, beside in (("F1", "f1", "control"), ("AUROC", "auroc", "auroc_control"))
        )
        lines.append(
            f"    {attribute}: latents with F1 > {GOOD} for {good} of {len(rows)} ({control}), {medians}, "
            f"F1 above the random SAE's by {_difference(rows)}"
        )
    return lines


def _median(values: pl.Series, digits: int) -> str:
    """Their median; a dash where there is none."""
    found = values.drop_nans().median()
    return "-" if found is None else f"{found:.{digits}f}"


def _difference(rows: pl.DataFrame) -> str:
    """Mean difference of F1 over the values of an attribute, each value against itself, with its 95% interval."""
    apart = of_mean((rows["f1"] - rows["control"]).to_numpy())
    return f"{apart.value:+.2f}{in_brackets(apart.low, apart.high, '{:+.2f}'.format)}"


def card_lines(tables: Mapping[str, pa.Table], layer: int, sae: str) -> dict[str, Any]:
    """What a model card says of an SAE: result, its spread and control by name."""
    here = (pl.col("layer") == layer) & (pl.col("sae") == sae)
    found: dict[str, Any] = {}
    for row in _frame(tables["quality"]).filter(here & pl.col("value").is_not_null()).iter_rows(named=True):
        if row["measure"].startswith(SHOWN):
            beside = "" if row["control"] is None else f" (random directions: {row['control']:.4g})"
            spread = in_brackets(row["low"], row["high"], "{:.4g}".format, otherwise="")
            found[f"{row['measure']}, {row['modality']}"] = f"{row['value']:.4g}{spread}{beside}"
    if len(tables["truth"]):
        part = _frame(tables["truth"]).filter(here)
        for (attribute,), rows in part.group_by(["attribute"], maintain_order=True):
            for title, name, beside in (("F1", "f1", "control"), ("AUROC", "auroc", "auroc_control")):
                found[f"median {title} of the best latent, {attribute}"] = (
                    f"{_median(rows[name], 3)} (random directions: {_median(rows[beside], 3)})"
                )
            found[f"F1 above random directions', {attribute}"] = _difference(rows)
    return found


def sae_headline(quality: pa.Table) -> list[str]:
    """Which SAE to use, in sentences: of each layer the one that explains most variance, with what it costs and its control.

    All numbers are of held-out rows. The SAE is chosen by the same FVU that is reported, and the sentence says so.

    Args:
        quality: Rows of the `QUALITY` contract.
    """
    frame = _frame(quality).drop_nulls("value")
    fvu = frame.filter((pl.col("measure") == "fvu") & pl.col("modality").is_in(["image", "text"]))
    whole = fvu.group_by(["layer", "sae"], maintain_order=True).agg(pl.col("value").mean(), pl.col("control").mean())
    if not len(whole):
        return ["No SAE has an FVU: the held-out rows do not vary. summary.txt has what there is."]
    sentences = []
    layers = sorted(whole["layer"].unique())
    best = whole.sort("value", maintain_order=True).unique("layer", keep="first", maintain_order=True).sort("layer")
    names = best["sae"].unique().to_list()
    lowest, highest = float(best["value"].min()), float(best["value"].max())  # type: ignore[arg-type]
    where = f"at layer {layers[0]}" if len(layers) == 1 else f"at layers {layers[0]} to {layers[-1]}"
    value = f"{lowest:.2f}" if len(layers) == 1 else f"{lowest:.2f} to {highest:.2f}"
    l0 = frame.filter((pl.col("measure") == "l0") & pl.col("sae").is_in(names) & pl.col("modality").is_in(["image", "text"]))
    random = float(best["control"].mean())  # type: ignore[arg-type]
    among = whole["sae"].n_unique()
    chosen = f", the lowest of {among} SAEs a layer, chosen and reported on the same held-out rows" if among > 1 else ""
    active = l0["value"].mean()
    sentences.append(
        f"Use {' or '.join(sorted(names))}: FVU {value} {where} with {active:.0f} latents active a token "
        f"(random directions {random:.2f}){chosen}."
    )
    sentences += _lazy(frame, names)
    return sentences + _lost(frame, best)


def _lost(frame: pl.DataFrame, best: pl.DataFrame) -> list[str]:
    """How far predictions move with the best SAEs in the place of the stream: in nats, where they move furthest."""
    moved = frame.filter((pl.col("measure") == "kl_spliced") & (pl.col("modality") == "both"))
    moved = moved.join(best.select("layer", "sae"), on=["layer", "sae"])
    if not len(moved):
        return []
    worst = moved.sort("value", descending=True, maintain_order=True).row(0, named=True)
    layer, sae = worst["layer"], worst["sae"]
    beside = f", random directions {worst['control']:.2g}" if worst["control"] is not None else ""
    other = frame.filter((pl.col("measure") == "kl_resample") & (pl.col("modality") == "both"))
    other = other.filter((pl.col("layer") == layer) & (pl.col("sae") == sae))["value"]
    cost = f"; another sample's tokens move them by {other[0]:.2g}" if len(other) else ""
    where = f" at layer {layer}, where they move furthest" if len(moved) > 1 else ""
    ends = in_brackets(worst["low"], worst["high"], "{:.2g}".format, otherwise="")
    return [
        f"With it in the place of the stream, predictions move by a KL of {worst['value']:.2g}{ends} nats a token{where}"
        f"{beside}{cost}."
    ]


def _lazy(frame: pl.DataFrame, names: list[str]) -> list[str]:
    """Whether training took the decoder away from its random start; nothing where that is not known."""
    moved = frame.filter((pl.col("measure") == "moved") & pl.col("sae").is_in(names))["value"]
    if not len(moved):
        return []
    lowest, highest = float(moved.min()), float(moved.max())  # type: ignore[arg-type]
    value = f"{lowest:.2f}" if f"{lowest:.2f}" == f"{highest:.2f}" else f"{lowest:.2f} to {highest:.2f}"
    said = f"Decoder rows have a mean cosine of {value} with the random directions that they began at"
    if highest > LAZY:
        return [f"{said}: above {LAZY} the decoder is still much of its random start, and more training is due."]
    return [f"{said} (1: never moved)."]
