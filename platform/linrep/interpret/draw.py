"""Which latents, and which samples of each: some to explain, others to score, none to both; all by hashes, so always the same."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import polars as pl

from linrep.contents.stored import Token
from linrep.interpret.config import InterpretConfig, Scored
from linrep.interpret.firing import Firing
from linrep.interpret.views import Case, Evidence, Latent, Task, Trial, View
from linrep.sample import unit_hash
from linrep.store.layout import MODALITIES, Modality

Row = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """Examples of a latent in one modality, rows of the features' `examples`.

    Attributes:
        shown: For the explainer, the strongest first.
        scored: For the scorer; none of these samples is among the shown.
    """

    shown: tuple[Row, ...]
    scored: tuple[Row, ...]


def choose_latents(features: pl.DataFrame, n: int | str, seed: int) -> list[int]:
    """Latents of one SAE, drawn among those that fire at all, in rising order.

    Args:
        features: Rows of the `FEATURES` contract of one SAE.
        n: How many, or all.
        seed: Of the draw.
    """
    alive = features.filter(pl.col("samples_image") + pl.col("samples_text") > 0)["latent"].to_list()
    drawn = sorted(alive, key=lambda latent: unit_hash(str(latent), f"{seed}/latents"))
    return sorted(drawn if n == "all" else drawn[: int(n)])


def split_examples(rows: Iterable[Row], config: InterpretConfig) -> Examples:
    """The examples of one latent and modality, parted.

    The explainer gets the top ones and the first few of each quantile, never more than half of it. The scorer gets what else
    there is of the quantiles, in turn from each, so that all strengths are there alike.
    """
    rows = list(rows)
    top = sorted((r for r in rows if r["kind"] == "top"), key=lambda r: r["rank"])[: config.show.top]
    shown = {row["sample_id"]: row for row in top}
    left: list[list[Row]] = []
    fair = [r for r in rows if r["kind"] == "quantile"]
    for quantile in sorted({r["quantile"] for r in fair}):
        own = sorted((r for r in fair if r["quantile"] == quantile and r["sample_id"] not in shown), key=lambda r: r["rank"])
        n = min(config.show.spread, len(own) // 2)
        shown |= {row["sample_id"]: row for row in own[:n]}
        left.append(own[n:])
    scored = [row for turn in zip_longest(*left) for row in turn if row is not None][: config.score.positives]
    return Examples(tuple(sorted(shown.values(), key=lambda r: -r["activation"])), tuple(scored))


def build_case(
    latent: Latent,
    feature: Row,
    examples: Mapping[Modality, Examples],
    firing: Firing,
    number: Mapping[str, int],
    ids: Sequence[str],
    config: InterpretConfig,
) -> Case:
    """Everything to ask about a latent.

    Args:
        latent: The latent.
        feature: Its row of the features.
        examples: Its examples by modality.
        firing: Where it, its neighbours and others fire.
        number: Number of each sample in the store, by name.
        ids: Name of each sample, by number.
        config: How much to ask.
    """
    active, silent, trials, found = [], [], {}, []
    for modality in MODALITIES:
        own = examples.get(modality)
        if own is None or not own.shown:
            continue
        held = {row["sample_id"]: firing.sample_tokens(modality, number[row["sample_id"]]) for row in (*own.shown, *own.scored)}
        quiet = {name: h.quiet(latent.number) for name, h in held.items()}
        active += [_shown(row, modality, quiet[row["sample_id"]]) for row in own.shown]
        easy, hard = _negatives(latent, feature, modality, firing, ids, config)
        negatives, contrast = _parted(easy, hard, config)
        silent += [View(name, modality) for name in contrast]
        if "detection" in config.score.tasks:
            yes = [Trial(View(r["sample_id"], modality, centre=r["position"]), True, False, r["quantile"]) for r in own.scored]
            no = [Trial(View(name, modality), False, is_hard) for name, is_hard in negatives]
            trials[modality, cast(Task, "detection")] = tuple(_mixed([*yes, *no], f"{config.seed}/{latent}"))
        if "fuzzing" in config.score.tasks:
            pairs = [_fuzzed(row, modality, quiet[row["sample_id"]], config) for row in own.scored]
            trials[modality, cast(Task, "fuzzing")] = tuple(_in_halves(pairs, f"{config.seed}/{latent}"))
        if modality == "image":
            found = [View(r["sample_id"], modality, _marks(r, modality)[0], (), quiet[r["sample_id"]]) for r in own.scored]
    rates: dict[Modality, float] = {m: float(feature[f"rate_{m}"]) for m in MODALITIES}
    return Case(latent, rates, Evidence(tuple(active), tuple(silent)), trials, tuple(found))


def _marks(row: Row, modality: Modality) -> tuple[tuple[Token, ...], tuple[float, ...]]:
    """The tokens of an example on which the latent fires, and how strongly; newlines of images are no place to point at."""
    if modality == "text":
        tokens = [Token(p) for p in row["positions"]]
    else:
        tokens = [Token(*t) for t in zip(row["positions"], row["tiles"], row["rows"], row["cols"], strict=True)]
    both = [
        (t, float(a)) for t, a in zip(tokens, row["activations"], strict=True) if a > 0 and (modality == "text" or t.is_patch)
    ]
    return tuple(t for t, _ in both), tuple(a for _, a in both)


def _shown(row: Row, modality: Modality, quiet: tuple[Token, ...]) -> View:
    marks, strengths = _marks(row, modality)
    return View(row["sample_id"], modality, marks, strengths, quiet, row["position"])


def _negatives(
    latent: Latent, feature: Row, modality: Modality, firing: Firing, ids: Sequence[str], config: InterpretConfig
) -> tuple[list[str], list[str]]:
    """Samples on which it is silent in a drawn order: easy ones, and those on which one of its neighbours fires."""
    hard = firing.hard(modality, latent.number, feature["neighbours"] or [])
    silent = firing.silent(modality, latent.number)
    salt = f"{config.seed}/{latent.sae}/{latent.number}"
    wanted = config.score.negatives + config.show.silent
    return _drawn(silent & ~hard, ids, salt, wanted), _drawn(hard, ids, salt, wanted)


def _drawn(among: np.ndarray, ids: Sequence[str], salt: str, n: int) -> list[str]:
    """Some samples, drawn by a hash: of many, hashes of a fair draw are enough."""
    at = np.flatnonzero(among)
    if len(at) > 50 * n:
        at = np.random.default_rng(int(unit_hash(salt) * 2**53)).choice(at, 50 * n, replace=False)
    return sorted((ids[i] for i in at.tolist()), key=lambda name: unit_hash(name, salt))[:n]


def _parted(easy: list[str], hard: list[str], config: InterpretConfig) -> tuple[list[tuple[str, bool]], list[str]]:
    """Negatives to score, each with whether it is hard, and others to show; scores come first where samples are few."""
    score: Scored = config.score
    n_hard = min(len(hard), round(score.hard * score.negatives))
    n_easy = min(len(easy), score.negatives - n_hard)
    n_hard = min(len(hard), score.negatives - n_easy)  # where easy ones are few
    scored = [(name, True) for name in hard[:n_hard]] + [(name, False) for name in easy[:n_easy]]
    shown_hard = hard[n_hard : n_hard + round(score.hard * config.show.silent)]
    shown = [*shown_hard, *easy[n_easy:]][: config.show.silent]
    return scored, shown


def _fuzzed(row: Row, modality: Modality, quiet: tuple[Token, ...], config: InterpretConfig) -> tuple[Trial, Trial] | None:
    """One sample marked where the latent fires, and marked at as many of its silent tokens; None where it has none of either."""
    marks, strengths = _marks(row, modality)
    middle = row["position"]
    if modality == "text":
        quiet = tuple(t for t in quiet if abs(t.position - middle) <= config.around)
    else:
        quiet = tuple(t for t in quiet if t.is_patch)
    n = min(len(marks), len(quiet))
    if not n:
        return None
    strongest = sorted(range(len(marks)), key=lambda i: -strengths[i])[:n]
    right = tuple(sorted(marks[i] for i in strongest))
    wrong = tuple(sorted(sorted(quiet, key=lambda t: unit_hash(f"{t}", f"{config.seed}/{row['sample_id']}"))[:n]))
    sample, quantile = row["sample_id"], row["quantile"]
    return (
        Trial(View(sample, modality, right, centre=middle), True, False, quantile),
        Trial(View(sample, modality, wrong, centre=middle), False, False, quantile),
    )


def _mixed(trials: list[Trial], salt: str) -> list[Trial]:
    return sorted(trials, key=lambda trial: unit_hash(trial.view.sample, f"{salt}/order"))


def _in_halves(pairs: list[tuple[Trial, Trial] | None], salt: str) -> list[Trial]:
    """Each sample once in either half, so that who judges a few in a row does not see it with both markings."""
    halves: tuple[list[Trial], list[Trial]] = ([], [])
    for pair in pairs:
        if pair is not None:
            first = int(unit_hash(pair[0].view.sample, f"{salt}/halves") < 0.5)
            halves[0].append(pair[first])
            halves[1].append(pair[1 - first])
    return [*_mixed(halves[0], salt), *_mixed(halves[1], salt)]
