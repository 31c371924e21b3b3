"""Candidates trained on one reading of the rows: stopped at rungs, scored on held-out rows, each ending in its own record."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.errors import StoreError, TrainingFailed
from linrep.sae.controls import isotropic
from linrep.sae.evaluate import evaluate
from linrep.sae.halving import Verdict
from linrep.sae.layer import SAMPLE_ROWS, LayerJob, unscaled
from linrep.sae.sae import Sae
from linrep.sae.search import Candidate
from linrep.sae.train import Rows, Trainer, fit
from linrep.stats.interval import NOTHING, of_mean
from linrep.store.layout import Modality
from linrep.store.mixture import Mixture, Source, held_out

FOLDS = 8
"""Parts of the held-out rows whose spread gives the interval. Neighbouring rows are of one sample, and stay in one part."""
BATCH = 2048
CHOICE = "fvu_choice"
"""FVU on the half of the held-out rows by which candidates are compared; what is reported is from the other half."""

Judge = Callable[[str, int, Mapping[str, float]], Verdict]
"""(bracket, step, FVU by name) -> what becomes of them, see `linrep.sae.halving.Board.judge`."""


@dataclass(frozen=True)
class Pack:
    """Candidates of one layer and one mixture of rows.

    Attributes:
        number: Names it in the search.
        candidates: Who is in it.
        job: Layer, rows and scales; its config is that of the first candidate.
        test: Where held-out rows come from.
        held_out: How many of each modality.
        rungs: Steps at which candidates may be stopped.
        begin: Rung that all of them have come to before, 0 for none.
    """

    number: int
    candidates: tuple[Candidate, ...]
    job: LayerJob
    test: dict[Modality, Source]
    held_out: int
    rungs: tuple[int, ...]
    begin: int = 0


@dataclass(frozen=True)
class Trial:
    """What became of a candidate, as it is committed.

    Attributes:
        name: Its name.
        status: finished: trained to its end; stopped: at a rung; failed; waiting: at a rung, for others of its bracket.
        reason: Why it was stopped, or failed.
        rows: Rows that it was trained on.
        values: `Candidate.values`, and `width`, its latents.
        bracket: What it was compared in.
        scores: At each rung and at the end: rows, and held-out measures by name (`fvu`, `fvu_image`, `l0_text` ...); `fvu`
            and `l0` are the means over the modalities. Every number is finite: an interval that is not known is left out.
        reports: Measures of training by rows, at most a hundred, without those that are not finite.
        control: The last measures of random directions with as many latents and the same L0.
        seconds: From the first step of its pack.
    """

    name: str
    status: str
    reason: str
    rows: int
    values: dict[str, Any]
    bracket: str = ""
    scores: tuple[dict[str, float], ...] = ()
    reports: tuple[dict[str, float], ...] = ()
    control: dict[str, float] | None = None
    seconds: float = 0.0

    @property
    def last(self) -> dict[str, float]:
        """The last held-out measures, empty where there are none."""
        return self.scores[-1] if self.scores else {}


@dataclass(frozen=True)
class CandidateEnd:
    """A candidate is done: its record, and the SAE of one that was trained to its end, by modality, for raw rows."""

    trial: Trial
    saes: dict[str, Sae]


@dataclass(frozen=True)
class Waits:
    """A candidate waits at a rung: its record so far, and all that its next step depends on; save the state at once."""

    trial: Trial
    state: dict[str, Any]


def train_pack(
    pack: Pack,
    judge: Judge,
    device: str | torch.device = "cpu",
    within: str = "sparsity",
    waited: Mapping[str, Waits] | None = None,
) -> Iterator[CandidateEnd | Waits | int]:
    """Train candidates over one pass of the rows; each takes the steps that it would take alone.

    Args:
        pack: Who, and on what.
        judge: Asked at each rung. A candidate that has failed is reported by its event, before anyone is judged again.
        device: Where to train.
        within: See `Halving.within`.
        waited: Those that have waited at the pack's first rung, all of them if it is not 0.

    Yields:
        Steps that all who are left have taken, now and then, and each candidate as it ends or has to wait. One whose loss or
        held-out FVU is not finite ends as failed, and the others go on.
    """
    job, begun, config = pack.job, time.monotonic(), pack.job.config
    mixture = Mixture(job.sources, job.parts, config.seed, shuffle_rows=config.data.shuffle_rows)
    try:
        held: dict[Modality, Tensor] = {m: x.to(device) for m, x in held_out(pack.test, pack.held_out).items()}
        _check_spread(held, job.layer)
        # The least of many losses is too small where it was chosen: one half of the rows chooses, the other reports.
        choosing: dict[Modality, Tensor] = {m: half(x, 0) for m, x in held.items()}
        tests: dict[Modality, Tensor] = {m: half(x, 1) for m, x in held.items()}
        sample = _sample(job).to(device)
        alive = {
            one.name: _Runner(one, Trainer.begin(one.design, sample, config.steps, product=config.product), job, within, begun)
            for one in pack.candidates
        }
        for name, one in (waited or {}).items():
            alive[name].resume(one)
            mixture.load_state_dict(one.state["position"])  # the same for all of them
        batches = _batches(mixture, device)
        for end in (step for step in (*pack.rungs, config.steps) if step > pack.begin):
            yield from _until(end, alive, batches, config.report_every)
            scores: dict[str, dict[str, float]] = {}
            for name, runner in list(alive.items()):
                found = measured(unscaled(runner.trainer.sae(), job.parts), choosing, tests)
                if {"fvu", CHOICE} <= found.keys():
                    scores[name] = runner.scored(found)
                else:  # between two reports of its loss
                    yield alive.pop(name).diverged(f"the FVU on held-out rows is not finite at step {end}")
            goes_on: set[str] = set()
            waits: set[str] = set()
            if end < config.steps:
                brackets: dict[str, dict[str, float]] = {}
                for name, values in scores.items():
                    brackets.setdefault(alive[name].candidate.bracket(within), {})[name] = choice(values)
                for bracket, values in brackets.items():
                    verdict = judge(bracket, end, values)
                    goes_on |= verdict.goes_on
                    waits |= verdict.waits
            for name in [name for name in alive if name not in goes_on]:
                runner = alive.pop(name)
                if name in waits:
                    yield Waits(
                        runner.trial("waiting"), {"trainer": runner.trainer.state_dict(), "position": mixture.state_dict()}
                    )
                elif end < config.steps:
                    yield CandidateEnd(stopped(runner.trial("waiting")), {})
                else:
                    yield runner.finished(choosing, tests)
    finally:
        mixture.close()


def stopped(trial: Trial) -> Trial:
    """The record of a candidate that does not go on from where it waits."""
    return replace(trial, status="stopped", reason=f"not among the best of {trial.bracket} after {trial.rows:,} rows")


def _until(end: int, alive: "dict[str, _Runner]", batches: Iterator[Rows], every: int) -> Iterator[CandidateEnd | int]:
    """Train all who are alive up to a step; those whose loss is not finite leave."""
    while alive and next(iter(alive.values())).trainer.step < end:
        names = list(alive)
        at = alive[names[0]].trainer.step
        reported = 0
        try:
            for metrics in fit(islice(batches, end - at), [alive[name].trainer for name in names], every):
                alive[names[metrics.trainer]].report(metrics.step, metrics.values)
                reported = (metrics.trainer + 1) % len(names)  # trainers report in their order, all in the same steps
                if not reported:
                    yield metrics.step
        except TrainingFailed as error:
            yield alive.pop(names[reported]).diverged(error)
            # The failure ended `fit` before the turn of those behind it.
            for name in names[reported + 1 :]:
                trainer = alive[name].trainer
                try:
                    alive[name].report(trainer.step, trainer.report())
                except TrainingFailed as too:
                    yield alive.pop(name).diverged(too)


def _check_spread(held: "Mapping[Modality, Float[Tensor, '_ d']]", layer: int) -> None:
    """Make sure that held-out rows differ: of rows that are all the same no variance is left to explain, and no SAE is better.

    Raises:
        StoreError: They do not.
    """
    for modality, x in held.items():
        finite = x[x.isfinite().all(1)]
        if not len(finite) or bool((finite == finite[0]).all()):
            raise StoreError(
                f"the {len(x)} held-out {modality} rows of layer {layer} are all the same, or none is finite: there is no "
                "variance to explain, so no SAE can be compared by it; search another layer, or harvest more samples"
            )


class _Runner:
    """A candidate under way."""

    def __init__(self, candidate: Candidate, trainer: Trainer, job: LayerJob, within: str, begun: float) -> None:
        self.candidate, self.trainer, self._job, self._begun = candidate, trainer, job, begun
        self._bracket = candidate.bracket(within)
        self._scores: list[dict[str, float]] = []
        self._reports: list[dict[str, float]] = []

    def resume(self, waited: Waits) -> None:
        self.trainer.load_state_dict(waited.state["trainer"])
        self._scores, self._reports = list(waited.trial.scores), list(waited.trial.reports)
        self._begun -= waited.trial.seconds

    def report(self, step: int, values: Mapping[str, float]) -> None:
        kept = {name.replace("/", "_"): value for name, value in values.items() if math.isfinite(value)}
        self._reports.append({"rows": float(step * self._job.config.batch), **kept})

    def scored(self, values: dict[str, float]) -> dict[str, float]:
        self._scores.append({"rows": float(self.trainer.step * self._job.config.batch), **values})
        return self._scores[-1]

    def diverged(self, why: object) -> CandidateEnd:
        return CandidateEnd(self.trial("failed", f"diverged: {why}"), {})

    def trial(self, status: str, reason: str = "", control: dict[str, float] | None = None) -> Trial:
        values = {**self.candidate.values(), "width": self.trainer.weights["decoder"].shape[0]}
        return Trial(
            self.candidate.name, status, reason, self.trainer.step * self._job.config.batch, values, self._bracket,
            tuple(self._scores), tuple(self._reports), control, round(time.monotonic() - self._begun, 3),
        )  # fmt: skip

    def finished(
        self, choosing: "Mapping[Modality, Float[Tensor, '_ d']]", tests: "Mapping[Modality, Float[Tensor, '_ d']]"
    ) -> CandidateEnd:
        """The candidate with its control: random directions about the mean of each modality's other held-out rows."""
        saes = unscaled(self.trainer.sae(), self._job.parts)
        known: dict[Modality, Tensor] = {m: x[x.isfinite().all(1)] for m, x in choosing.items()}
        n_active: dict[Modality, int] = {m: max(1, round(self._scores[-1][f"l0_{m}"])) for m in known}
        random = isotropic(known, len(self.trainer.since_fired), n_active, self.trainer.config.seed)
        control = {str(modality): one for modality, one in random.items()}
        about = {**self._job.about, "name": self.candidate.name, "config": self.trainer.config.model_dump(mode="json")}
        named = {m: replace(sae.to("cpu"), about={**about, **sae.about, "modality": m or "both"}) for m, sae in saes.items()}
        return CandidateEnd(self.trial("finished", "", score(control, tests)), named)


def choice(scores: Mapping[str, float], ending: str = "") -> float:
    """The FVU that a candidate is compared by; of a record without it what it reports.

    Args:
        scores: Held-out measures, see `measured`.
        ending: "" for the mean over the modalities, _image or _text.
    """
    return scores[f"{CHOICE}{ending}"] if f"{CHOICE}{ending}" in scores else scores[f"fvu{ending}"]


def half(x: Float[Tensor, "n d"], which: int) -> Float[Tensor, "m d"]:
    """One half of the rows; neighbours, which are of one sample, stay together. A single row is in both."""
    return x.chunk(2)[which] if len(x) > 1 else x


def measured(
    saes: Mapping[str, Sae],
    choosing: "Mapping[Modality, Float[Tensor, '_ d']]",
    tests: "Mapping[Modality, Float[Tensor, '_ d']]",
) -> dict[str, float]:
    """The measures of `score` on some rows, beside them `fvu_choice` (`_image`, `_text`) on others, by which one is chosen."""
    chosen = score(saes, choosing)
    return score(saes, tests) | {
        name.replace("fvu", CHOICE, 1): chosen[name] for name in ("fvu", *(f"fvu_{m}" for m in choosing)) if name in chosen
    }


def score(saes: Mapping[str, Sae], tests: "Mapping[Modality, Float[Tensor, '_ d']]") -> dict[str, float]:
    """Held-out measures of an SAE: by modality, and their means over the modalities.

    Args:
        saes: By the modality whose raw rows it takes; "" for both.
        tests: Raw rows by modality.

    Returns:
        `fvu_image`, its 95% interval `fvu_image_low` and `fvu_image_high` from the spread over parts of the rows, `l0_image`,
        `alive_image`, `dense_image`, likewise of text, and `fvu` and `l0`. What is not finite is left out: the interval of
        fewer than two rows a part, everything of an SAE that has diverged.
    """
    found: dict[str, float] = {}
    for modality, x in tests.items():
        sae = saes[modality] if modality in saes else saes[""]
        text = modality == "text"
        whole = evaluate(sae, _pieces(x, BATCH, text)).quality[modality]
        parts = [evaluate(sae, _pieces(part, BATCH, text)).quality[modality].fvu for part in x.chunk(FOLDS) if len(part) > 1]
        spread = of_mean(np.array(parts)) if np.isfinite(parts).all() else NOTHING
        half = (spread.high - spread.low) / 2
        found |= {f"fvu_{modality}": whole.fvu, f"fvu_{modality}_low": whole.fvu - half, f"fvu_{modality}_high": whole.fvu + half}
        found |= {f"{name}_{modality}": getattr(whole, name) for name in ("l0", "alive", "dense")}
    for name in ("fvu", "l0"):
        found[name] = sum(found[f"{name}_{modality}"] for modality in tests) / len(tests)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _pieces(x: Float[Tensor, "n d"], size: int, text: bool) -> Iterator[Rows]:
    for piece in x.split(size):
        yield Rows(piece, torch.full((len(piece),), text, device=x.device))


def _sample(job: LayerJob) -> Float[Tensor, "n d"]:
    """The rows by which the first weights are set, the same as for an SAE that is trained in full."""
    n = job.parts.n_image + job.parts.n_text
    ahead = Mixture(job.sources, job.parts, job.config.seed + 1, shuffle_rows=job.config.data.shuffle_rows)
    try:
        return torch.cat([ahead.next_batch()[0] for _ in range(-(-SAMPLE_ROWS // n))])
    finally:
        ahead.close()


def _batches(mixture: Mixture, device: str | torch.device) -> Iterator[Rows]:
    while True:
        x, is_text = mixture.next_batch()
        yield Rows(x.to(device), is_text.to(device))


def packs_of(candidates: Sequence[Candidate], size: int, within: str) -> list[list[Candidate]]:
    """Candidates in packs: those of one layer and mixture, brackets kept together where they fit, at most `size` in each.

    A bracket that lies in one pack is judged without waiting.
    """
    grouped: dict[tuple[int, float | None], dict[str, list[Candidate]]] = {}
    for one in candidates:
        grouped.setdefault((one.layer, one.text_share), {}).setdefault(one.bracket(within), []).append(one)
    found: list[list[Candidate]] = []
    for brackets in grouped.values():
        open_: list[Candidate] = []
        for members in brackets.values():
            if open_ and len(open_) + len(members) > size:
                found.append(open_)
                open_ = []
            open_ = [*open_, *members]
            while len(open_) > size:
                found.append(open_[:size])
                open_ = open_[size:]
        if open_:
            found.append(open_)
    return found
