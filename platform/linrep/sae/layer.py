"""Train all SAEs of one layer on a store, or what is left of them: checkpointed, resumed, written and committed.

Knows no cluster: the workers of one are given as a `Reducer` and a way to gather what each has.
"""

import time
from collections.abc import Callable, Iterator
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
from linrep.sae.reduce import Alone, Reducer
from linrep.sae.sae import Sae
from linrep.sae.study import SaeConfig
from linrep.sae.train import Metrics, Rows, Trainer, fit
from linrep.store.layout import Modality
from linrep.store.mixture import Mixture, Proportion, Source, merge_counts
from linrep.store.stream import Share
from schemas.saes import TRAINING

SAMPLE_ROWS = 4096
"""Rows that the first weights are set by; they come from all row groups of a shuffle pool."""
HISTORY = "training"
"""Table of the reports of a layer's training."""
KEPT = 2
"""States of a run under way that are kept."""
ALONE = Share()

Gather = Callable[[Any], list[Any]]
"""What each worker has, in the order of their ranks; all call it together."""


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
    def checkpoint(self) -> Place:
        """Names the states of a run under way, newest first; it is written after them."""
        return self.place / "checkpoints" / f"{layer_name(self.layer)}.json"

    def state_at(self, step: int) -> Place:
        """Where the state after a step lies. A new name each time: a save that fails harms no other."""
        return self.place / "checkpoints" / f"{layer_name(self.layer)}-{step:09d}.pt"


LAYER_AGAIN = "delete it and run jobs/train_sae.py with the same recipe again: it trains this layer anew"


def layer_name(layer: int) -> str:
    """Its folder, and its name among commits."""
    return f"layer-{layer:03d}"


def train_layer(
    job: LayerJob,
    share: Share = ALONE,
    reducer: Reducer | None = None,
    device: str | torch.device = "cpu",
    gather: Gather = lambda mine: [mine],
) -> Iterator[Metrics | UnitCommit]:
    """Train from the last checkpoint, or from the start; the SAEs are written at the end by rank 0.

    Args:
        job: What to do.
        share: Which worker this is.
        reducer: The others.
        device: Where to train.
        gather: See `Gather`.

    Yields:
        Metrics as they come (on a resume, those since the checkpoint again), and from rank 0 the commit. Its cost holds the
        layer, the steps, the rows read and left out by modality over all workers, what image and text rows were multiplied by,
        the number format of dense products, and the sums of the files of each SAE.

    Raises:
        StoreError: A file cannot be read.
        TrainingFailed: A loss is not finite.
    """
    begun, config = time.monotonic(), job.config
    mixture = Mixture(job.sources, job.parts, config.seed, share, config.data.shuffle_rows)
    try:
        trainers = list(_begin(job, Alone() if reducer is None else reducer, device).values())
        history = _resume(job, trainers, mixture, share)
        saved = trainers[0].step
        for metrics in fit(_batches(mixture, device), trainers, config.report_every):
            history.append({"sae": metrics.trainer, "step": metrics.step, **metrics.values})
            yield metrics
            last = metrics.trainer == len(trainers) - 1  # all have reported: their windows are empty together
            if last and not trainers[0].done and metrics.step - saved >= config.checkpoint_every:
                _save(job, trainers, history, gather(mixture.state_dict()), share)
                saved = metrics.step
        rows = merge_counts(gather(mixture.state_dict()))
    finally:
        mixture.close()
    if share.rank == 0:
        commit = _write(job, trainers, history, rows, time.monotonic() - begun)
        _remove_states(job)
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


def _begin(job: LayerJob, reducer: Reducer, device: str | torch.device) -> dict[str, Trainer]:
    config = job.config
    sample = _sample(job).to(device)
    rest = {"reducer": reducer, "product": config.product}
    return {name: Trainer.begin(design, sample, config.steps, **rest) for name, design in config.designs().items()}


def _sample(job: LayerJob) -> torch.Tensor:
    """Rows to set the first weights by, the same on all workers; where a checkpoint replaces those, any row will do."""
    if job.checkpoint.is_file():
        return torch.zeros(1, next(iter(job.sources.values())).selection.width)
    n = job.parts.n_image + job.parts.n_text
    ahead = Mixture(job.sources, job.parts, job.config.seed + 1, Share(), job.config.data.shuffle_rows)
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


def _save(job: LayerJob, trainers: list[Trainer], history: list[dict], positions: list[Any], share: Share) -> None:
    """The state under a name of its own, then the list that names it and the one before, then older ones go."""
    if share.rank != 0:
        return
    step, before = trainers[0].step, _saved_steps(job)
    state = {"trainers": [trainer.state_dict() for trainer in trainers], "positions": positions, "history": history}
    with job.state_at(step).writing() as stream:
        torch.save(state, stream)
    kept = [step, *(s for s in before if s != step)][:KEPT]
    job.checkpoint.write_json({"steps": kept})
    for old in before:
        if old not in kept and job.state_at(old).is_file():
            job.checkpoint.files.delete_file(job.state_at(old).path)


def _saved_steps(job: LayerJob) -> list[int]:
    """Steps whose states are kept, newest first."""
    if not job.checkpoint.is_file():
        return []
    try:
        steps = job.checkpoint.read_json()["steps"]
        if not steps or not all(type(step) is int for step in steps):
            raise ValueError("names no steps")
        return steps
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{job.checkpoint} is damaged: delete it to train the layer from its start") from None


def _resume(job: LayerJob, trainers: list[Trainer], mixture: Mixture, share: Share) -> list[dict[str, Any]]:
    """Load the newest state that can be read, if there is one; returns the reports until then."""
    steps = _saved_steps(job)
    if not steps:
        return []
    state, said = None, ""
    for step in steps:
        try:
            with job.state_at(step).open() as stream:
                state = torch.load(stream, map_location="cpu", weights_only=True)
            break
        except Exception as error:  # an unpickler raises anything for bytes that are none of its own
            if job.state_at(step).may_pass(error):
                raise  # workers must not choose differently because a store did not answer one of them
            said = said or f"{job.state_at(step).name}: " + " ".join(str(error).split())[:200]
    if state is None:
        raise StoreError(f"{job.checkpoint} is damaged ({said}): delete it to train the layer from its start")
    for trainer, saved in zip(trainers, state["trainers"], strict=True):
        trainer.load_state_dict(saved)
    mixture.load_state_dict(state["positions"][share.rank])
    return state["history"]


def _remove_states(job: LayerJob) -> None:
    """Delete what the committed layer no longer needs; states of saves that were killed before they were named, too."""
    folder = job.checkpoint.parent
    for name in folder.names():
        if name == job.checkpoint.name or (name.startswith(f"{layer_name(job.layer)}-") and name.endswith(".pt")):
            folder.files.delete_file((folder / name).path)


def _write(job: LayerJob, trainers: list[Trainer], history: list[dict], rows_read: dict[str, Any], seconds: float) -> UnitCommit:
    names, sums = list(job.config.designs()), {}
    for name, trainer in zip(names, trainers, strict=True):
        for modality, sae in unscaled(trainer.sae().to("cpu"), job.parts).items():
            scale = job.parts.scale_text if modality == "text" else job.parts.scale_image
            about = {**job.about, **sae.about, "name": name, "config": trainer.config.model_dump(mode="json")}
            about |= {"input_scale": scale, "modality": modality or "both", "product": trainer.product}
            folder = job.folder / (f"{name}-{modality}" if modality else name)
            saelens.write(folder, replace(sae, about=about))
            sums |= sums_of(folder, saelens.FILES)
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
        "rows": rows_read,
        "scales": {"image": job.parts.scale_image, "text": job.parts.scale_text},
        "product": trainers[0].product,
        "sums": sums,
    }
    work = job.config.steps * job.config.batch
    return write_unit(job.place, job.folder, layer_name(job.layer), {HISTORY: table}, seconds, work, cost)
