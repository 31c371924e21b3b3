"""Train all SAEs of one layer on a store, or what is left of them: checkpointed, resumed, written and committed.

Knows no cluster: the workers over which the latents lie are given. Each saves the state of its own latents, all at the same time;
a run may go on with another number of workers than it was begun with. See `linrep.sae.states`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from linrep.artefact import write_unit
from linrep.errors import StoreError
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.records import read_record
from linrep.sae.formats import saelens
from linrep.sae.formats.sums import sums_of
from linrep.sae.sae import Sae
from linrep.sae.states import Progress, States
from linrep.sae.study import SaeConfig
from linrep.sae.train import Metrics, Rows, Trainer, fit
from linrep.store.layout import Modality
from linrep.store.mixture import Mixture, Proportion, Source
from linrep.workers import ALONE, Workers
from schemas.saes import TRAINING

SAMPLE_ROWS = 4096
"""Rows that the first weights are set by; they come from all row groups of a shuffle pool."""
HISTORY = "training"
"""Table of the reports of a layer's training."""


@dataclass(frozen=True)
class LayerJob:
    """Everything that a worker must know to train the SAEs of a layer; small.

    Attributes:
        place: The artefact.
        layer: Layer k.
        config: The recipe's section.
        sources: Where rows come from.
        about: What the saved SAEs say of where they come from.
    """

    place: Place
    layer: int
    config: SaeConfig
    sources: dict[Modality, Source]
    parts: Proportion
    about: dict[str, Any]

    @property
    def folder(self) -> Place:
        """Where the layer's SAEs lie."""
        return self.place / layer_name(self.layer)

    @property
    def states(self) -> States:
        """States of a run under way."""
        return States(self.place / "checkpoints", layer_name(self.layer))


LAYER_AGAIN = "delete it and run jobs/train_sae.py with the same recipe again: it trains this layer anew"


def layer_name(layer: int) -> str:
    """Its folder, and its name among commits."""
    return f"layer-{layer:03d}"


def train_layer(job: LayerJob, workers: Workers = ALONE, device: str | torch.device = "cpu") -> Iterator[Metrics | UnitCommit]:
    """Train from the last checkpoint, or from the start; the SAEs are written at the end, by all workers into one file each.

    Args:
        job: What to do.
        workers: Over which the latents lie.
        device: Where to train.

    Yields:
        Metrics as they come (on a resume, those since the checkpoint again), and from rank 0 the commit. Its cost holds the
        layer, the steps, the numbers of workers that the run has had, the rows read and left out by modality, what image and
        text rows were multiplied by, the number format of dense products, and the sums of the files of each SAE.

    Raises:
        StoreError: A file cannot be read.
        TrainingFailed: A loss is not finite.
    """
    begun, config = time.monotonic(), job.config
    mixture = Mixture(job.sources, job.parts, config.seed, workers, config.data.shuffle_rows)
    try:
        trainers = list(_begin(job, workers, device).values())
        found = job.states.load(trainers, workers)
        history, had = ([], ()) if found is None else (found.history, found.workers)
        if found is not None:
            mixture.load_state_dict(found.position)
        if had[-1:] != (workers.n_workers,):
            had = (*had, workers.n_workers)
        saved = trainers[0].step
        for metrics in fit(_batches(mixture, device), trainers, config.report_every):
            history.append({"sae": metrics.trainer, "step": metrics.step, **metrics.values})
            yield metrics
            last = metrics.trainer == len(trainers) - 1  # all have reported: their windows are empty together
            if last and not trainers[0].done and metrics.step - saved >= config.checkpoint_every:
                job.states.save(trainers, Progress(mixture.state_dict(), history, had), workers)
                saved = metrics.step
    finally:
        mixture.close()
    sums = _write_saes(job, trainers, workers)
    if workers.rank == 0:
        about = {"workers": list(had), "rows": mixture.counts(), "sums": sums}
        commit = _commit(job, trainers, history, about, time.monotonic() - begun)
        job.states.remove()
        yield commit


def unscaled(sae: Sae, parts: Proportion) -> dict[str, Sae]:
    """A trained SAE as it takes raw activations: one for both modalities, or one for each where they are scaled apart."""
    if parts.scale_image == parts.scale_text or not (parts.n_image and parts.n_text):
        return {"": sae.unscaled(parts.scale_image if parts.n_image else parts.scale_text)}
    return {"image": sae.unscaled(parts.scale_image), "text": sae.unscaled(parts.scale_text)}


def read_commit(place: Place, layer: int) -> UnitCommit | None:
    """The commit of a layer, None where it has none."""
    file = place / "commits" / f"{layer_name(layer)}.json"
    if not file.is_file():
        return None
    commit = read_record(file, UnitCommit, LAYER_AGAIN)
    if commit.unit != layer_name(layer):
        raise StoreError(f"{file} is damaged (it is the commit of {commit.unit:.40}): {LAYER_AGAIN}")
    return commit


def _begin(job: LayerJob, workers: Workers, device: str | torch.device) -> dict[str, Trainer]:
    config = job.config
    sample = _sample(job, workers).to(device)
    rest = {"workers": workers, "product": config.product}
    return {name: Trainer.begin(design, sample, config.steps, **rest) for name, design in config.designs().items()}


def _sample(job: LayerJob, workers: Workers) -> torch.Tensor:
    """Rows to set the first weights by, the same on all workers; where a checkpoint replaces those, any row will do."""
    if workers.tell(job.states.index.is_file(), 0):
        return torch.zeros(1, next(iter(job.sources.values())).selection.width)
    n = job.parts.n_image + job.parts.n_text
    ahead = Mixture(job.sources, job.parts, job.config.seed + 1, workers, job.config.data.shuffle_rows)
    try:
        return torch.cat([ahead.next_batch()[0] for _ in range(-(-SAMPLE_ROWS // n))])
    finally:
        ahead.close()


def _batches(mixture: Mixture, device: str | torch.device) -> Iterator[Rows]:
    on_gpu = torch.device(device).type == "cuda"
    while True:
        x, is_text = mixture.next_batch()
        if on_gpu:
            x, is_text = (part.pin_memory().to(device, non_blocking=True) for part in (x, is_text))
        yield Rows(x, is_text)


def _write_saes(job: LayerJob, trainers: list[Trainer], workers: Workers) -> dict[str, str]:
    """Write the SAEs; returns the sums of their files, on rank 0."""
    sums = {}
    for name, trainer in zip(job.config.designs(), trainers, strict=True):
        for modality, sae in unscaled(trainer.sae().to("cpu"), job.parts).items():
            scale = job.parts.scale_text if modality == "text" else job.parts.scale_image
            about = {**job.about, **sae.about, "name": name, "config": trainer.config.model_dump(mode="json")}
            about |= {"input_scale": scale, "modality": modality or "both", "product": trainer.product}
            folder = job.folder / (f"{name}-{modality}" if modality else name)
            saelens.write(folder, replace(sae, about=about), workers=workers)
            if workers.rank == 0:
                sums |= sums_of(folder, saelens.FILES)
    return sums


def _commit(job: LayerJob, trainers: list[Trainer], history: list[dict], about: dict[str, Any], seconds: float) -> UnitCommit:
    names = list(job.config.designs())
    rows = [
        {"layer": job.layer, "sae": names[row["sae"]], "step": row["step"], "measure": measure, "value": float(value)}
        for row in history
        for measure, value in row.items()
        if measure not in ("sae", "step")
    ]
    table = pa.Table.from_pylist(rows, schema=TRAINING)
    cost = {
        "layer": job.layer,
        "steps": job.config.steps,
        "scales": {"image": job.parts.scale_image, "text": job.parts.scale_text},
        "product": trainers[0].product,
        **about,
    }
    work = job.config.steps * job.config.batch
    return write_unit(job.place, job.folder, layer_name(job.layer), {HISTORY: table}, seconds, work, cost)
