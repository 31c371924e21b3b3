"""Plain words on the sharing results: what the curves show, and where they disagree with the claim."""

import polars as pl
import pyarrow as pa

TENTH = 0.1
"""Changes over the layers of less than this share of the distance from the null are called flat."""
SLIGHT = 0.05
"""A measure that is no further above its null than this is not held against it."""


CURVES = {
    "hub": "the hub score",
    "cka_debiased": "CKA",
    "subspace_overlap": "the overlap of leading subspaces",
    "neighbourhood_overlap": "the share of common neighbours",
    "direction_cosine": "the cosine of class directions",
    "transfer_image_to_text_centred": "transfer of probes from image to text",
    "transfer_text_to_image_centred": "transfer of probes from text to image",
}
"""Measures that would grow with depth where the modalities converge."""


def sharing_headline(table: pa.Table) -> list[str]:
    """Whether sharing grows with depth, in sentences: every curve is counted, none is chosen.

    Args:
        table: Rows of the `SHARING` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(table)).sort("layer")
    plain = frame.filter(pl.col("sae").is_null())
    own, untrained = (plain.filter(pl.col("model") == model) for model in ("trained", "untrained"))
    courses = _courses(own)
    if not courses:
        return ["No measure of sharing has a value: summary.txt says why."]
    first, last = own["layer"].min(), own["layer"].max()
    if first == last:
        values = "; ".join(
            f"{CURVES[name]} {ends[1]['value']:.2f} (null {_null(ends[1])})" for name, (_, ends) in courses.items()
        )
        return [f"Only layer {first} was compared, so nothing is said of depth: {values}."]
    groups = {course: [name for name, (own_course, _) in courses.items() if own_course == course] for course in COURSES}
    plural = {"grows": "grow", "stays flat": "stay flat", "falls": "fall"}
    parts = [
        f"{len(names)} {course if len(names) == 1 else plural[course]}{_listed(names, courses)}"
        for course, names in groups.items()
        if names
    ]
    verdict = "grows with depth" if len(groups["grows"]) == len(courses) else "does not grow with depth across the board"
    sentences = [f"Sharing {verdict}: of {len(courses)} measures from layer {first} to {last}, {'; '.join(parts)}."]
    probe = ends_of(own, "modality_probe")
    if probe:
        sentences.append(
            f"A linear probe separates image from text with accuracy {probe[0]['value']:.2f} at layer {first} and "
            f"{probe[1]['value']:.2f} at layer {last} (chance {_null(probe[1])})."
        )
    if len(untrained):
        beside = _courses(untrained)
        growing = [CURVES[name] for name in groups["grows"] if name in beside and beside[name][0] == "grows"]
        shown = ", ".join(growing)
        also = f"these also grow in the untrained control: {shown}" if growing else "none grows in the untrained control"
        sentences.append(f"Of the measures that grow, {also}.")
    return sentences


COURSES = ("grows", "stays flat", "falls")


def _courses(own: pl.DataFrame) -> dict[str, tuple[str, tuple[dict, dict]]]:
    found = {name: ends_of(own, name) for name in CURVES}
    return {name: (course_of(*ends), ends) for name, ends in found.items() if ends is not None}


def _listed(names: list[str], courses: dict[str, tuple[str, tuple[dict, dict]]]) -> str:
    shown = [f"{CURVES[name]} {courses[name][1][0]['value']:.2f} to {courses[name][1][1]['value']:.2f}" for name in names]
    return f" ({', '.join(shown)})"


def _null(row: dict) -> str:
    return "?" if row["null"] is None else f"{row['null']:.2f}"


def plain_words(table: pa.Table) -> str:
    """A paragraph on what the curves show, and where they disagree with the claim that modalities are disjoint and converge.

    Args:
        table: Rows of the `SHARING` contract.
    """
    frame = pl.DataFrame(pl.from_arrow(table)).sort("layer")
    own = frame.filter((pl.col("model") == "trained") & pl.col("sae").is_null())
    said, against = [], []
    probe, clusters = ends_of(own, "modality_probe"), ends_of(own, "cluster_homogeneity")
    if probe:
        apart = probe[1]["value"] > 0.95
        said.append(
            f"A linear probe separates image from text with accuracy {probe[0]['value']:.2f} in layer {probe[0]['layer']} and "
            f"{probe[1]['value']:.2f} in layer {probe[1]['layer']} (control {probe[1]['null']:.2f})"
            + (": the modalities stay apart to the last layer" if apart else "")
        )
    if clusters:
        said.append(f"homogeneity of clusters by modality goes from {clusters[0]['value']:.2f} to {clusters[1]['value']:.2f}")
    for name, words in CURVES.items():
        ends = ends_of(own, name)
        if ends is None:
            continue
        first, last = ends
        said.append(f"{words} {course_of(first, last)} ({first['value']:.2f} to {last['value']:.2f})")
        values = own.filter(pl.col("metric") == name).drop_nulls("value")
        peak = _peak(values)
        if course_of(first, last) == "falls":
            against.append(f"{words} falls with depth")
        elif peak is not None and last["layer"] > peak["layer"] > first["layer"] and course_of(peak, last) == "falls":
            against.append(
                f"{words} is highest in layer {peak['layer']} by one half of the pairs, {peak['value']:.2f} by the other, and "
                f"falls to {last['value']:.2f} after it"
            )
        elif course_of(first, last) == "stays flat":
            against.append(f"{words} does not grow")
        if first["null"] is not None and first["low"] is not None and first["low"] > first["null"] + SLIGHT:
            against.append(
                f"{words} is above its null in layer {first['layer']} already ({first['value']:.2f} against {first['null']:.2f})"
            )
    text = "What the curves show: " + "; ".join(said) + "."
    text += " The claim is: quite disjoint, and increasingly shared in deeper layers. "
    text += ("Against it: " + "; ".join(against) + ".") if against else "No curve is against it."
    text += _steered_words(own) + _latent_words(frame)
    undefined = own.filter(pl.col("value").is_null() & pl.col("note").is_not_null())
    for (metric, note), rows in undefined.group_by(["metric", "note"], maintain_order=True):
        layers = ", ".join(map(str, rows["layer"]))
        text += f" {str(metric).replace('_', ' ').capitalize()} has no value in layer {layers}: {note}."
    plain = frame.filter((pl.col("model") == "untrained") & pl.col("sae").is_null())
    control = plain.drop_nulls(["value", "low"])
    if len(control):
        names = ("hub", "cka_debiased", "neighbourhood_overlap", "direction_cosine", "transfer_image_to_text_centred")
        last = control.filter((pl.col("layer") == control["layer"].max()) & pl.col("metric").is_in(names))
        beyond = [r["metric"] for r in last.iter_rows(named=True) if r["null"] is not None and r["low"] > r["null"] + SLIGHT]
        text += (
            f" In the untrained model's last layer {', '.join(beyond)} are above their nulls too: that much is not learned."
            if beyond
            else f" In the untrained model's last layer none of {', '.join(names)} is more than {SLIGHT} above its null."
        )
    return text


def _peak(values: pl.DataFrame) -> dict | None:
    """The layer that is highest by one half of the pairs, with what the other half says of it; None without halves.

    The highest of several layers is too high where it was chosen.
    """
    halves = values.drop_nulls(["half_one", "half_two", "low"])
    if not len(halves):
        return None
    row = halves.sort("half_one", descending=True, maintain_order=True).row(0, named=True)
    moved = row["half_two"] - row["value"]
    return {**row, "value": row["half_two"], "low": row["low"] + moved, "high": row["high"] + moved}


def _steered_words(own: pl.DataFrame) -> str:
    """What directions found in texts do to answers about images, beside those found in images."""
    turned = own.filter(pl.col("metric").str.starts_with("turned_by_")).drop_nulls("value")
    of_texts = turned.filter(pl.col("metric").str.starts_with("turned_by_text_"))
    if not len(of_texts):
        return ""
    best = _reported(of_texts)
    if best is None:
        return ""
    twins = of_texts.select("layer", pl.col("metric").str.replace("turned_by_text_", "turned_by_", literal=True))
    of_images = _reported(turned.join(twins, ["layer", "metric"], "semi"))
    beside = "" if of_images is None else f", those found in images {of_images['half_two']:.2f}"
    null = best["null"]
    beside += "" if null is None else f", a random one there {null:.2f}"
    return (
        f" Directions found in texts turn {best['half_two']:.2f} of the answers about images{beside}, at the layer, site and "
        "strength that is best on the other half of the source classes."
    )


def _reported(rows: pl.DataFrame) -> dict | None:
    """The row that is best on one half, which is to be reported from the other; None without halves."""
    halves = rows.drop_nulls(["half_one", "half_two"])
    return halves.sort("half_one", descending=True, maintain_order=True).row(0, named=True) if len(halves) else None


def _latent_words(frame: pl.DataFrame) -> str:
    """What latents show, of each SAE of each model, beside its control of random directions."""
    text, rows = "", frame.filter(pl.col("sae").is_not_null() & ~pl.col("sae").str.ends_with("/random"))
    for (model, sae), own in rows.group_by(["model", "sae"], maintain_order=True):
        random = frame.filter((pl.col("model") == model) & (pl.col("sae") == f"{sae}/random"))
        said = []
        for name, words in (
            ("bimodal_mass", "the share of activation on bimodal latents"),
            ("overlap_0.01", "the share of latents that fire on both modalities"),
            ("cofire", "firing on an image and on its caption"),
            ("bridge_cosine", "the cosine of what both write"),
            ("cross_modal_weight_centred", "the likeness of a latent's strongest image and text tokens, each mean removed,"),
        ):
            ends, control = ends_of(own, name), ends_of(random, name)
            if ends is None:
                continue
            first, last = ends
            beside = "" if control is None else f", of random directions {control[1]['value']:.2f}"
            null = "" if last["null"] is None else f", null {last['null']:.2f}"
            said.append(
                f"{words} {course_of(first, last)} ({first['value']:.2f} in layer {first['layer']}, {last['value']:.2f} in layer "
                f"{last['layer']}{null}{beside})"
            )
        if said:
            text += f" Of the {model} model's latents in {sae}: " + "; ".join(said) + "."
    return text


def ends_of(frame: pl.DataFrame, name: str) -> tuple[dict, dict] | None:
    """The rows of a measure at the first and the last layer at which it has a value; None where it has none.

    Args:
        frame: Rows of one model, by layer.
        name: The measure.
    """
    rows = frame.filter((pl.col("metric") == name) & pl.col("value").is_not_null())
    return (rows.row(0, named=True), rows.row(-1, named=True)) if len(rows) else None


def course_of(first: dict, last: dict) -> str:
    """grows, falls, or stays flat: the change is small beside the distance from the null, or each end in the other's interval."""
    change = last["value"] - first["value"]
    ends = (first["low"], first["high"], last["low"], last["high"])
    overlaps = (
        None not in ends and first["low"] <= last["value"] <= first["high"] and last["low"] <= first["value"] <= last["high"]
    )
    distance = max(abs(row["value"] - (row["null"] or 0.0)) for row in (first, last))
    if abs(change) <= TENTH * distance or overlaps:
        return "stays flat"
    return "grows" if change > 0 else "falls"
