"""Designs beside each other: on planted worlds, with intervals over worlds, and on the pairs of a store, over pairs and seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.sae.paired.designs import Budget, designs
from linrep.sae.paired.measures import HeldPairs, dead, reconstruction, retrieval, sharing
from linrep.sae.paired.recovery import recovered
from linrep.sae.paired.rows import PairRows, shifted, standardised
from linrep.sae.paired.shared import called
from linrep.sae.paired.sides import Codes, Sides
from linrep.sae.paired.world import World, planted
from linrep.sae.panel.intervals import Resampled
from linrep.sae.stability import match
from linrep.stats.bootstrap import draws
from linrep.stats.clusters import share
from linrep.stats.interval import NOTHING, Interval, of_mean

TRUTH = "truth"
"""The planted features themselves, as if they were the latents of a design."""
N_TRAIN, N_HELD = 8192, 1024
"""Pairs of a planted world."""


@dataclass(frozen=True)
class DesignRow:
    """A measure of a design, with its 95% interval.

    Attributes:
        design: The design, or the control.
        measure: Its name.
        found: The value.
        null: The same where texts are dealt anew among the images; NaN where that changes nothing.
        seeds: Trainings, or worlds.
    """

    design: str
    measure: str
    found: Interval
    null: float
    seeds: int


def judge_planted(world: World, budget: Budget, seeds: Sequence[int]) -> list[DesignRow]:
    """Every design in worlds of one kind: a world, with directions and pairs of its own, for each seed.

    Args:
        world: What is planted.
        budget: What each design has; k is as many as are active.
        seeds: Of worlds and trainings.
    """
    found: dict[str, dict[str, list[float | tuple[int, int]]]] = {}
    nulls: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        train, held = (planted(world, n, seed, 2 * seed + part) for part, n in enumerate((N_TRAIN, N_HELD)))
        rows, held_rows = standardised(train.rows, held.rows)
        pairs = held_pairs(held_rows, torch.full((N_HELD,), -1), 0, seed)
        sides = designs(rows, budget, seed)
        for name, codes in {TRUTH: held.truth, **{name: own.codes(held_rows) for name, own in sides.items()}}.items():
            own = found.setdefault(name, {})
            values = vars(recovered(codes, held)) | {m: float(v[0]) for m, v in sharing(codes, pairs).items() if m != "called"}
            if name in sides:
                values |= {m: float(v[0]) for m, v in reconstruction(sides[name], pairs).items()}
                values["dead"] = dead(sides[name].codes(rows))
            for measure, value in values.items():
                own.setdefault(measure, []).append(value)
            for measure, value in null_of(codes, pairs, seed).items():
                nulls.setdefault(name, {}).setdefault(measure, []).append(value)
    return [
        DesignRow(name, measure, _over_worlds(values), _mean(nulls[name].get(measure, [])), len(values))
        for name, own in found.items()
        for measure, values in own.items()
    ]


def judge_pairs(
    train: PairRows, held: PairRows, label: Int[Tensor, " n"], budget: Budget, seeds: Sequence[int], resamples: int
) -> list[DesignRow]:
    """Every design on the pairs of a store.

    Args:
        train: Pairs to train on, as they are.
        held: Pairs to report on.
        label: Class of each held-out pair, -1 where it has none.
        budget: What each design has.
        seeds: Of trainings.
        resamples: Draws of held-out pairs.
    """
    rows, held_rows = standardised(train, held)
    pairs = held_pairs(held_rows, label, resamples, 0)
    trained: dict[str, list[Sides]] = {}
    for seed in seeds:
        for name, sides in designs(rows, budget, seed).items():
            trained.setdefault(name, []).append(sides)
    found = []
    for name, own in trained.items():
        measures: dict[str, list[Float[Tensor, " r"]]] = {}
        nulls: dict[str, list[float]] = {}
        for seed, sides in zip(seeds, own, strict=True):
            codes = sides.codes(held_rows)
            values = reconstruction(sides, pairs) | sharing(codes, pairs) | retrieval(codes, pairs)
            values["dead"] = torch.full((len(pairs.weights),), dead(sides.codes(rows)))
            for measure, value in values.items():
                measures.setdefault(measure, []).append(value)
            for measure, value in null_of(codes, pairs, seed).items():
                nulls.setdefault(measure, []).append(value)
        for measure, values in measures.items():
            stacked = torch.stack([value.double() for value in values]).numpy()
            interval = Resampled(stacked[:, 0], stacked[:, 1:]).interval()
            found.append(DesignRow(name, measure, interval, _mean(nulls.get(measure, [])), len(seeds)))
        found.append(DesignRow(name, "agreement", of_mean(agreement(own, held_rows)), math.nan, len(seeds)))
    return found


def held_pairs(rows: PairRows, label: Int[Tensor, " n"], resamples: int, seed: int) -> HeldPairs:
    """Held-out pairs with their halves, and draws of them."""
    second = torch.zeros(len(rows), dtype=torch.bool)
    second[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[: len(rows) // 2]] = True
    drawn = draws(len(rows), resamples, seed) if resamples else ()
    return HeldPairs(rows, label, second, torch.from_numpy(np.concatenate([np.ones((1, len(rows))), *drawn])))


def null_of(codes: Codes, held: HeldPairs, seed: int) -> dict[str, float]:
    """Sharing that is found where each half's texts are dealt anew among its images."""
    order = torch.arange(len(codes))
    for part, half in enumerate(held.halves):
        own = half.nonzero()[:, 0]
        order[own] = own[shifted(len(own), 2 * seed + part)]
    dealt = codes.dealt(order)
    once = HeldPairs(held.rows, held.label, held.second, held.weights[:1])
    return {name: float(value[0]) for name, value in sharing(dealt, once).items() if name != "bimodal"}


def agreement(sides: Sequence[Sides], held: PairRows) -> Float[np.ndarray, " k"]:
    """Mean cosine of what shared latents write to both rows with latents of other trainings, matched; one for each training.

    Trainings without a shared latent have none.
    """
    written = [own.decoder() for own in sides]
    calls: list[Bool[Tensor, " f"]] = [called(own.codes(held)) for own in sides]
    found = []
    for i, (own, shared) in enumerate(zip(written, calls, strict=True)):
        others = [match(own[shared], other)[0] for j, other in enumerate(written) if j != i and bool(shared.any())]
        found += [float(np.mean(others))] if others else []
    return np.array(found)


def _over_worlds(values: Sequence[float | tuple[int, int]]) -> Interval:
    """Over worlds: of shares Wilson's with worlds as clusters, of means Student's."""
    counts = [value for value in values if isinstance(value, tuple)]
    if counts:
        hits, of = np.array(counts, float).T
        return share(of, hits)
    known = np.array([value for value in values if not math.isnan(float(value))], float)  # pyright: ignore[reportArgumentType]
    return of_mean(known) if len(known) else NOTHING


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def by_measure(rows: Sequence[DesignRow]) -> Mapping[str, Mapping[str, DesignRow]]:
    """Rows by measure and design."""
    found: dict[str, dict[str, DesignRow]] = {}
    for row in rows:
        found.setdefault(row.measure, {})[row.design] = row
    return found
