"""Every stage on stores that give it little or nothing to work on: a result, or one clear line."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import torch
from polars.testing import assert_frame_equal

from linrep import artefact
from linrep.cluster import run_evaluate
from linrep.cluster.evaluate_sae import Attribute, EvaluationJob, evaluate_layer, find_truth
from linrep.cluster.given_saes import with_control
from linrep.cluster.interpret import build_cases, counts
from linrep.cluster.probe import probe_plainly
from linrep.cluster.run_probe import metrics as probe_metrics
from linrep.cluster.run_sharing import metrics as sharing_metrics
from linrep.cluster.run_tune_sae import TuneStage
from linrep.cluster.sharing import share_plainly
from linrep.corpora.config import Corpora
from linrep.errors import LinrepError
from linrep.explorer import features as feature_lines
from linrep.explorer import interpret as interpret_lines
from linrep.explorer import probes as probe_lines
from linrep.explorer import sae_figures
from linrep.explorer import saes as sae_lines
from linrep.explorer import sharing as sharing_lines
from linrep.explorer.sharing_words import plain_words, sharing_headline
from linrep.features import artefact as features_artefact
from linrep.features.config import FeaturesConfig
from linrep.features.study import plan_study as plan_features
from linrep.harvest.config import HarvestConfig, Pool
from linrep.interpret.backends import Effort, Said
from linrep.interpret.config import InterpretConfig, Scored, Shown
from linrep.interpret.study import explain, explanation_row, partners, score
from linrep.interpret.views import Evidence, Task, View
from linrep.named_sae import NamedSae
from linrep.places import place
from linrep.probe.artefact import finish as finish_probes
from linrep.probe.artefact import plan_probes
from linrep.probe.config import ProbeConfig, Softmax
from linrep.probe.study import plan_study as plan_probe_study
from linrep.recipe import Recipe
from linrep.sae.architectures import Largest
from linrep.sae.artefact import EVALUATIONS, EvaluationAbout, open_saes, plan_saes
from linrep.sae.layer import layer_name, train_layer
from linrep.sae.rounds import search_plainly
from linrep.sae.sae import Sae
from linrep.sae.search import TuneConfig
from linrep.sae.study import SaeConfig
from linrep.sae.trials import read_trials
from linrep.sae.tuning import plan_tune
from linrep.sharing.artefact import plan_results
from linrep.sharing.config import SharingConfig
from linrep.sharing.study import plan_study as plan_sharing
from linrep.sharing.trends import trends
from linrep.store import Store
from linrep.store.layout import Modality
from linrep.store.samples import SPLITS, read_samples
from linrep.store.summary import apart_lines, statistics_lines
from linrep.store.tables import table_of
from linrep.vlm.config import ModelConfig
from schemas.interpret import ANSWERS, EXPLANATIONS, SCORES
from schemas.sharing import SHARING_TRENDS
from tests.degenerate import LAYER, WORLDS, D, write_world
from tests.features.planted import found_plainly

SAE = SaeConfig.model_validate({
    "layers": [LAYER], "rows": 256, "batch": 32, "data": {"shuffle_rows": 64},
    "design": {"expansion": 2, "activation": {"kind": "topk", "k": 2}},
    "evaluation": {"rows": 64, "texts": 0, "samples": 64, "vectors": 0},
})  # fmt: skip
TUNE = TuneConfig.model_validate({
    "space": {"layers": [LAYER], "architectures": [{"kind": "topk", "k": [2]}], "expansion": [2], "learning_rate": [1e-3, 1e-2]},
    "stop": {"kind": "none"}, "rows": 256, "held_out": 20, "pack": 2,
})  # fmt: skip
RECIPE = Recipe(
    name="t", corpora=Corpora.model_validate({"text": {"path": "x.jsonl"}}), model=ModelConfig(path="m"), sae=SAE, tune=TUNE
)


def identity() -> Sae:
    return Sae(torch.eye(D), torch.zeros(D), torch.eye(D), torch.zeros(D), Largest(2), False)


def probe(store: Store, folder: Path) -> list[pa.Table]:
    config = ProbeConfig(min_per_class=1, alphas=(1e-2, 1.0), shrinkages=(0.1,), sparse=(1,), curve=(2,), resamples=20,
                         softmax=Softmax(penalties=(0.1,), max_iterations=20))  # fmt: skip
    study = plan_probe_study(store, config)
    probes = plan_probes(place(folder), "t", study).begun()
    list(probe_plainly(study, study.units, probes))
    finish_probes(probes, study)
    probes = probes.closing()
    table = probes.table()
    lines = probe_lines.summary_lines(table, {})
    assert lines
    in_full(lines)
    assert probe_lines.probe_headline(table)
    in_full(probe_lines.probe_headline(table))
    probe_lines.layer_figures(table)
    finite(probe_metrics(probes))
    return [table, probes.table("classes")]


def sharing(store: Store, folder: Path) -> list[pa.Table]:
    config = SharingConfig(groups=4, reservoir=64, subspace=2, clusters=2, resamples=50, neighbours=2, min_per_class=1,
                           min_firings=1, saes=({"path": "x", "layer": LAYER},))  # fmt: skip  # pyright: ignore[reportArgumentType]
    latents = with_control(config.saes[0], identity(), store, 0)
    study = plan_sharing(store, config, None, (latents,))
    found = plan_results(place(folder), "t", study, ("a",)).begun()
    list(share_plainly(study, study.units, found))
    found.finish()
    table = found.table()
    both = table, table_of(trends(table.to_pylist(), [], None), SHARING_TRENDS)
    in_full(sharing_lines.summary_lines(*both))
    sharing_lines.layer_figures(*both)
    assert plain_words(*both)
    assert sharing_headline(*both)
    in_full([plain_words(*both), *sharing_headline(*both)])
    finite(sharing_metrics(found))
    return [table, found.table("latents")]


def features_of(store: Store, folder: Path) -> features_artefact.Features:
    config = FeaturesConfig(saes=(NamedSae(path="x", layer=LAYER),), top=2, quantiles=2, per_quantile=2, words=0,
                            neighbours=2, min_samples=1)  # fmt: skip
    latents = (with_control(config.saes[0], identity(), store, 0),)
    study = plan_features(store, config, latents=latents)
    return found_plainly(folder, study)


def features(store: Store, folder: Path) -> list[pa.Table]:
    found = features_of(store, folder)
    table = found.table()
    in_full(feature_lines.summary_lines(table, found.about.chance))
    feature_lines.feature_figures(table)
    in_full(feature_lines.features_headline(table))
    finite(feature_lines.feature_metrics(table))
    return [table, found.table("labels")]


def interpret(store: Store, folder: Path) -> list[pa.Table]:
    """What is asked of an interpreter; what it answers does not depend on the store."""
    found = features_of(store, folder)
    config = InterpretConfig(latents=4, show=Shown(top=2, spread=1, silent=2), score=Scored(positives=4, negatives=4))
    cases, judge = list(build_cases(found, store, config)), Agreeing()
    explanations = explain(cases, judge, {})
    chosen = partners(cases, explanations, judge, 0)
    scores, answers = score(cases, explanations, chosen, judge, config)
    tables = [
        table_of([explanation_row(case, explanations[case.latent], "p") for case in cases], EXPLANATIONS),
        table_of(scores, SCORES),
        table_of(answers, ANSWERS),
    ]
    assert interpret_lines.interpret_headline(tables[1])
    in_full(interpret_lines.interpret_headline(tables[1]))
    in_full(interpret_lines.summary_lines(tables[1], tables[0], *counts(found)))
    interpret_lines.score_figures(tables[1])
    finite(interpret_lines.score_metrics(tables[1]))
    return tables


class Agreeing:
    """An interpreter that says yes to everything."""

    source, parallel, batch, needs_images = "agreeing", 1, 5, False

    def check(self) -> None:
        pass

    def explain(self, evidence: Evidence) -> Said:
        return Said("anything")

    def judge(self, task: Task, explanation: str, views: Sequence[View]) -> list[bool | None]:
        return [True for _ in views]

    def alike(self, one: str, other: str, modality: Modality) -> bool:
        return False

    def refuse(self, explanation: str) -> str | None:
        return None

    def estimate(self, explained: Sequence[Evidence], asked: Sequence[Sequence[View]]) -> Effort:
        return Effort()

    def spent(self) -> Effort:
        return Effort()


def sae(store: Store, folder: Path) -> list[pa.Table]:
    plan = plan_saes(store, "t", SAE, place(folder))
    names = plan.artefact.about.names
    for job in plan.jobs:
        list(train_layer(job))
    table = store.samples()
    samples = read_samples(table)
    labels = table["label"].fill_null(-1).to_numpy().astype("int64")
    known = [Attribute("class", tuple(f"c{i}" for i in range(4)), labels)]
    evaluation = artefact.plan(
        EVALUATIONS,
        plan.artefact.place,
        "t",
        decisive={},
        parents={},
        config={},
        units=[layer_name(LAYER)],
        about=EvaluationAbout("", [LAYER], names),
    )
    job = EvaluationJob(
        artefact=evaluation, saes=None, store=store, config=SAE.evaluation, model=RECIPE.model, harvest=HarvestConfig(),
        corpora=RECIPE.corpora, chunks=(), directions=None, pool=Pool(threads=1), seed=SAE.seed,
        truth=find_truth(samples.ids, samples.role, (samples.split == SPLITS.index("train")).tolist(), known, 64),
    )  # fmt: skip
    own = {name: open_saes(plan.artefact.folder(layer_name(LAYER)), name) for name in names}
    evaluate_layer(job, LAYER, own)
    tables = {name: evaluation.part(layer_name(LAYER), name) for name in EVALUATIONS.tables}
    lines = sae_lines.summary_lines(tables, plan.artefact.about.reads)
    assert lines
    in_full(lines)
    in_full(sae_lines.sae_headline(tables["quality"]))
    sae_figures.figures(tables)
    for name in names:
        in_full([str(value) for value in sae_lines.card_lines(tables, LAYER, name).values()])
    finite(run_evaluate.metrics(tables["quality"]))
    return list(tables.values())


def tune(store: Store, folder: Path) -> list[pa.Table]:
    plan = plan_tune(store, "t", TUNE, SAE, place(folder))
    trials = {trial.name: trial for trial in search_plainly(plan)}
    assert trials == read_trials(plan.place)
    stage = TuneStage(plan, RECIPE)
    stage.finish()
    shown, records = stage.show(), stage.records()
    assert shown.headline
    in_full([*shown.headline, *shown.lines])
    finite(records.metrics)
    return [plan.artefact.table(name) for name in ("trials", "front")]


STAGES: dict[str, Callable[[Store, Path], list[pa.Table]]] = {
    "probe": probe, "sharing": sharing, "features": features, "interpret": interpret, "sae": sae, "tune": tune,
}  # fmt: skip


def in_full(lines: str | Sequence[str]) -> None:
    """No reader is shown a number that is none."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    assert not re.search(r"\b(nan|inf|None)\b", text), text


def finite(numbers: dict) -> None:
    for name, value in numbers.items():
        for own in value.values() if isinstance(value, dict) else (value,):
            assert math.isfinite(own), name


def not_numbers(table: pa.Table) -> Iterator[str]:
    """Columns that hold NaN or infinity where they should hold null."""
    frame = pl.DataFrame(pl.from_arrow(table))
    for name, kind in frame.schema.items():
        values = frame[name].explode() if isinstance(kind, pl.List) else frame[name]
        if values.dtype.is_float() and not values.drop_nulls().is_finite().all():
            yield name


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_result_or_one_clear_line(stage: str, world: str, tmp_path: Path):
    store, tables, said = write_world(tmp_path / "store", WORLDS[world]), [], None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            tables = STAGES[stage](store, tmp_path / "w")
        except LinrepError as error:
            said = str(error)
    if said is not None:
        print(f"{stage} on {world}: {said}")
        assert world != "plain", said
        assert "\n" not in said
        assert len(said) > 20
    for table in tables:
        assert not list(not_numbers(table))


ALIKE = {"probe": ("n_train", "n_test", "n_test_samples", "chance", "validation", "top1", "top5", "balanced", "auroc"),
         "sharing": ("n",)}  # fmt: skip
"""What draws do not decide, of the stages whose controls, halves and groups are drawn among all samples."""
SUMS = ("hub", "cka_debiased", "cosine_matched_centred", "neighbourhood_overlap", "pair_retrieval_image_to_text", "overlap_0.01")
"""Measures of sharing that are over all pairs, without groups."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_damaged_sample_counts_for_nothing(stage: str, tmp_path: Path):
    """A third of the samples is not finite: the results are those of a harvest that skipped them."""
    damaged, skipped = (
        [
            pl.DataFrame(pl.from_arrow(table))
            for table in STAGES[stage](write_world(tmp_path / name, WORLDS[name]), tmp_path / "w" / name)
        ]
        for name in ("third nan", "third skipped")
    )
    assert len(damaged[0])
    for one, other in zip(damaged, skipped, strict=True):
        columns = [name for name in one.columns if name != "seconds"]
        if stage in ALIKE:
            columns = [name for name in columns if name in ALIKE[stage]]
            drawn = pl.col("n_per_class").is_null() if "n_per_class" in one.columns else pl.lit(True)
            one, other = one.filter(drawn), other.filter(drawn)
        assert_frame_equal(one.select(columns), other.select(columns))
    if stage == "sharing":
        one, other = (
            {(r["metric"], r["sae"]): r["value"] for r in found[0].iter_rows(named=True) if r["metric"] in SUMS}
            for found in (damaged, skipped)
        )
        assert {metric for metric, _ in one} == set(SUMS)
        assert one == pytest.approx(other, abs=1e-9)


def test_what_is_damaged_or_skipped_is_counted(tmp_path: Path):
    """14 of 40 pairs are: 70 of the 200 tokens of a modality, 28 of the 80 samples."""
    damaged, skipped, plain = (
        apart_lines(write_world(tmp_path / name, WORLDS[name]).manifest, [LAYER])
        for name in ("third nan", "third skipped", "plain")
    )
    assert "not finite" in damaged[0]
    assert [line.split(" of ")[0].split() for line in damaged[1:]] == [["image", "tokens", "70"], ["text", "tokens", "70"]]
    assert all("70 of 200 at layer 1" in line for line in damaged[1:])
    assert skipped == ["  skipped by the harvest, and in no number: 28 of 80 samples"]
    assert plain == []


@pytest.mark.parametrize("world", WORLDS)
def test_the_lines_of_a_store_have_no_number_that_is_none(world: str, tmp_path: Path):
    manifest = write_world(tmp_path, WORLDS[world]).manifest
    in_full([*apart_lines(manifest), *statistics_lines(manifest)])
