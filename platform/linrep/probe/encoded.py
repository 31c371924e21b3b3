"""Probes that read an autoencoder's latents in place of the residual stream: a few of each class, and those that fire most."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.encoder import Encoder
from linrep.errors import RecipeError
from linrep.probe.fit import Trial
from linrep.probe.latents import LatentProbe, Weighed, bytes_of_fit, fit_latents, survey
from linrep.probe.moments import Gatherer, Moments
from linrep.probe.report import Scored
from linrep.probe.rows import LatentRows, Rows, StreamRows
from linrep.probe.score import SPREAD, Tally
from linrep.probe.study import Study, Task, Unit
from linrep.probe.work import Clusters, Work
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, Modality
from linrep.store.samples import SPLITS

INPUT = "latents_"
"""Stands before the kind of a probe that sees the most active latents."""
ROOM_GB = 32.0
"""What the sums of all label columns may take."""

Columns = Mapping[str, Mapping[Modality, Int64[np.ndarray, " s"]]]
"""Class number of each sample by modality, for each label column of each task; a key names both."""


def check_latents(study: Study, encoder: Encoder) -> None:
    """Make sure that latents can be probed as the recipe asks.

    Raises:
        RecipeError: The autoencoder is of another width, single tokens are missing, or the sums would not fit into memory.
    """
    config, manifest = study.config, study.store.manifest
    assert config.sae is not None
    if encoder.d_model != manifest.width:
        raise RecipeError(f"probe.sae: the SAE is {encoder.d_model} wide, the harvest {manifest.width}: {config.sae.path}")
    if any(unit.view == "pooled" for unit in study.units) and "tokens" not in manifest.views:
        raise RecipeError(
            f"probe.sae: pooled rows need the latents of single tokens, and {study.store.place} has no view tokens: harvest it "
            "with harvest.views, or probe other views"
        )
    sizes = [len(task.names) for task in _tasks(study) for _ in (task.column, task.control, task.control_task)]
    k = max(config.sparse, default=0)
    needed = bytes_of_fit(sizes, encoder.n_latents, k) / 1e9
    if needed > ROOM_GB:
        raise RecipeError(
            f"probe.sparse: {k} latents of each of {sum(sizes):,} classes, controls included, take {needed:,.0f} GB, at most "
            f"{ROOM_GB:g} fit: lower the largest number"
        )


def probe_latents(
    study: Study, unit: Unit, stream: Rows, encoder: Encoder, device: torch.device, clusters: Clusters
) -> list[Scored]:
    """Every probe of latents with what it scored: few latents of all, and every kind on those that fire most.

    Args:
        study: What to do.
        unit: View and layer.
        stream: The unit's rows of the residual stream.
        encoder: The autoencoder.
        device: Where softmax regression and scoring run.
        clusters: What the bootstrap draws.
    """
    tasks = _tasks(study)
    pooled = unit.view == "pooled"
    if pooled:
        files: Mapping[Modality, Sequence[WrittenFile]] = {
            m: study.store.select("tokens", unit.layer, m).files for m in MODALITIES
        }
        stream = StreamRows(study.store, "tokens", files)
    rows = LatentRows(stream, encoder, mean=pooled)
    labels = {task: _columns(study, unit, task) for task in tasks}
    columns: Columns = {
        f"{task.source} {column}": {m: study.codes[m][column] for m in task.modalities}
        for task, own in labels.items()
        for column in own
    }
    sizes = {f"{task.source} {column}": len(task.names) for task, own in labels.items() for column in own}

    def training() -> Iterator[Weighed]:
        return _weighed(study, rows, columns, "train")

    found = survey(training, encoder.n_latents, sizes)
    few = fit_latents(training, found, [k for k in study.config.sparse if k <= encoder.n_latents])
    scored = _score_few(study, rows, columns, tasks, few, clusters)
    most = found.most_active(study.config.sae.most if study.config.sae is not None else encoder.n_latents)
    if len(most):
        active = rows.of(most)
        without = replace(study, config=study.config.model_copy(update={"sparse": ()}))
        work = Work(without, unit, tasks, active, _moments(study, active, tasks), device, clusters, row_types=False)
        scored += [replace(s, input=INPUT) for s in work.scored()]
    return scored


def _tasks(study: Study) -> list[Task]:
    """All but the sample-efficiency curve."""
    return [task for task in study.tasks if task.n_per_class is None]


def _columns(study: Study, unit: Unit, task: Task) -> tuple[str, ...]:
    """Label columns of a task; that of the control task only where it is of samples."""
    by_row = any(study.control_tasks.row_columns(unit.view, m) for m in task.modalities)
    has = not by_row and all(task.control_task in study.codes[m] for m in task.modalities)
    return (task.column, task.control, *((task.control_task,) if has else ()))


def _weighed(study: Study, rows: LatentRows, columns: Columns, split: str) -> Iterator[Weighed]:
    inside = study.samples.split == SPLITS.index(split)
    for group, m in enumerate(MODALITIES):
        own = {name: codes[m] for name, codes in columns.items() if m in codes}
        if own:
            anyone = inside & np.any([codes >= 0 for codes in own.values()], axis=0)
            for block in rows.blocks(m, anyone):
                yield Weighed(block.x, {name: codes[block.sample] for name, codes in own.items()}, group)


def _moments(study: Study, rows: LatentRows, tasks: list[Task]) -> dict[tuple[Modality, str], Moments]:
    wanted = {column for task in tasks for column in (task.column, task.control, task.control_task)}
    found: dict[tuple[Modality, str], Moments] = {}
    for m in MODALITIES:
        families = [family for family in study.families(m) if wanted & family.columns.keys()]
        gatherers = [Gatherer(family.n_classes, rows.width) for family in families]
        anyone = np.any([family.members for family in families], axis=0) if families else study.samples.split < 0
        for block in rows.blocks(m, anyone):
            for family, gatherer in zip(families, gatherers, strict=True):
                own = block.of(family.members[block.sample])
                if len(own.sample):
                    gatherer.add(own.x, {name: codes[own.sample] for name, codes in family.columns.items()})
        for family, gatherer in zip(families, gatherers, strict=True):
            whole = gatherer.moments
            found |= {(m, column): whole for column in family.columns if whole.n}
    return found


def _score_few(
    study: Study,
    rows: LatentRows,
    columns: Columns,
    tasks: list[Task],
    few: Mapping[str, list[LatentProbe]],
    clusters: Clusters,
) -> list[Scored]:
    trials = {
        name: [Trial(p.probe, columns[name], Tally(p.probe.n_classes, clusters.n("test"), _score_range(p))) for p in probes]
        for name, probes in few.items()
    }
    cluster = clusters.of("test")
    inside = study.samples.split == SPLITS.index("test")
    for m in MODALITIES:
        own = {name: columns[name][m] for name in few if m in columns[name]}
        anyone = inside & np.any([codes >= 0 for codes in own.values()], axis=0) if own else inside & False
        for block in rows.blocks(m, anyone):
            for name, codes in own.items():
                mine = block.of(codes[block.sample] >= 0)
                for probe, trial in zip(few[name], trials[name], strict=True):
                    if len(mine.sample):
                        trial.tally.add(probe.scores(mine.x).float(), codes[mine.sample], cluster[mine.sample])
    for trial in (trial for own in trials.values() for trial in own if len(trial.codes) > 1):
        trial.tally.level(clusters.modality("test"))
    scored = []
    for task in tasks:
        name, control, of_types = (f"{task.source} {column}" for column in (task.column, task.control, task.control_task))
        probes, third = few.get(name, ()), trials.get(of_types, [None] * len(few.get(name, ())))
        for probe, trial, other, typed in zip(probes, trials.get(name, ()), trials.get(control, ()), third, strict=True):
            scored.append(Scored(task, task.source, task.names, trial, probe.n, other, typed))
    return scored


def _score_range(p: LatentProbe) -> Float[Tensor, "2 c"]:
    spread = SPREAD * p.spread.clamp(min=1e-12)
    return torch.stack([p.probe.bias - spread, p.probe.bias + spread]).float()
