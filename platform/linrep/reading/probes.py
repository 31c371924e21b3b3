"""What probes read in one vector: the class of each attribute with its probability, beside the runner-up.

The probes are the linear discriminants of the probe stage. Its file of directions holds their weights and the class means. With
the share of each class among the training samples that gives back the whole classifier: the probabilities are the fitted ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.directions import Directions, DirectionSet
from linrep.probe.linear import Linear
from linrep.store.layout import Modality, View

KIND = "lda"
MODALITY = "modality"
"""The attribute that is fitted on both modalities together."""


@dataclass(frozen=True)
class Probe:
    """A linear discriminant of one attribute in one view and layer.

    Attributes:
        attribute: class, modality, or an attribute of the samples.
        view: pooled or last: which vectors it reads.
        layer: Layer k.
        modality: Of the vectors: image, text, or both.
        names: The values in words.
        linear: The classifier; a softmax of its scores gives probabilities.
        top1: Share of held-out samples that it reads right; None where it was not tested.
        chance: Share of the most frequent value among them.
    """

    attribute: str
    view: str
    layer: int
    modality: str
    names: tuple[str, ...]
    linear: Linear
    top1: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class ProbeReading:
    """What a probe reads in a vector.

    Attributes:
        attribute: What is read.
        view: In which vector.
        layer: In which layer.
        value: The likeliest value.
        p: Its probability.
        runner_up: The next one.
        p_runner_up: Its probability.
        top1: How often the probe is right on held-out samples.
        chance: How often the most frequent value is.
    """

    attribute: str
    view: str
    layer: int
    value: str
    p: float
    runner_up: str
    p_runner_up: float
    top1: float | None
    chance: float | None


def discriminant(weights: Directions, means: Directions, shares: Mapping[str, float]) -> Linear:
    """The linear discriminant of an attribute from its weights, the class means, and the share of each class.

    Args:
        weights: Kind lda: one row a class, per unit of activation, about the mean of all rows.
        means: Kind class_mean, of the same place.
        shares: Of the training samples, by class; those of one that is not named is 0.

    Source: `linrep.probe.closed.lda`, which fits it.
    """
    share = torch.tensor([shares.get(name, 0.0) for name in weights.names], dtype=torch.float64)
    share = share / share.sum().clamp(min=1e-300)
    mu = torch.stack([means.vector(name) for name in weights.names]).double()
    w, centre = weights.vectors.double(), share @ mu
    bias = (share.clamp(min=1e-300).log() - 0.5 * ((mu - centre) * w).sum(1)).clamp(min=-1e30)
    return Linear(KIND, centre, w.T.contiguous(), bias)


def probes_of(directions: DirectionSet, labels: pa.Table, scores: pa.Table, modality: Modality) -> tuple[Probe, ...]:
    """The discriminants that read vectors of one modality, class first, the modality itself last.

    Args:
        directions: Of the probe stage.
        labels: Its table of who was labelled what.
        scores: Its table of probes.
        modality: Of the vectors.
    """
    shares = _shares(labels)
    tested = {
        (row["attribute"], row["view"], row["layer"], row["fitted_on"]): row
        for row in scores.select(
            ["attribute", "view", "layer", "kind", "fitted_on", "tested_on", "centred", "n_per_class", "top1", "chance"]
        ).to_pylist()
        if row["kind"] == KIND and row["fitted_on"] == row["tested_on"] and not row["centred"] and row["n_per_class"] is None
    }
    found = []
    for entry in directions.entries:
        if entry.kind != KIND or entry.view not in ("pooled", "last") or entry.modality not in (modality, "both"):
            continue
        means = directions.select("class_mean", entry.layer, entry.view, entry.modality, entry.attribute)
        own = discriminant(entry, means, shares.get((entry.attribute, entry.modality), {}))
        row: dict[str, Any] = tested.get((entry.attribute, entry.view, entry.layer, entry.modality), {})
        found.append(
            Probe(entry.attribute, entry.view, entry.layer, entry.modality, entry.names, own, row.get("top1"), row.get("chance"))
        )
    order = {name: i for i, name in enumerate(dict.fromkeys(["class", *(p.attribute for p in found if p.attribute != MODALITY)]))}
    return tuple(sorted(found, key=lambda p: (order.get(p.attribute, len(order)), p.view != "pooled", p.layer)))


def _shares(labels: pa.Table) -> dict[tuple[str, str], dict[str, float]]:
    """Training samples of each class, by attribute and modality; of the modality itself those of both together."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    counted = labels.group_by(["attribute", "modality", "split", "class_name"]).aggregate([([], "count_all")]).to_pylist()
    for row in counted:
        if row["split"] == "train":
            own = found.setdefault((row["attribute"], "both" if row["attribute"] == MODALITY else row["modality"]), {})
            own[row["class_name"]] = own.get(row["class_name"], 0.0) + row["count_all"]
    return found


def read_probes(vectors: Mapping[tuple[View, int], Float[Tensor, " d"]], probes: Iterable[Probe]) -> tuple[ProbeReading, ...]:
    """What each probe reads in the vector of its view and layer; those without a vector, or one that is not finite, read nothing.

    Args:
        vectors: By view and layer.
        probes: In the order in which their readings are wanted.
    """
    found = []
    for probe in probes:
        x = vectors.get((probe.view, probe.layer))  # pyright: ignore[reportArgumentType]
        if x is None or not bool(x.isfinite().all()) or len(probe.names) < 2:
            continue
        p, at = probe.linear.scores(x[None].double())[0].softmax(-1).topk(2)
        first, second = (probe.names[i] for i in at.tolist())
        found.append(
            ProbeReading(
                *(probe.attribute, probe.view, probe.layer),
                *(first, float(p[0]), second, float(p[1]), probe.top1, probe.chance),
            )
        )
    return tuple(found)
