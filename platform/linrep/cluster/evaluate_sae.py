"""What finished SAEs are evaluated on: held-out rows, the model itself, known attributes, class directions."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

import numpy as np
import ray
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.cluster.actors import gpus_of, own_device, own_devices, precision, resources
from linrep.cluster.fan_out import memory, or_error, results, task
from linrep.contents.sources import located
from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.corpora.read import read as read_chunk
from linrep.directions import read_directions
from linrep.errors import LinrepError, RecipeError, StoreError
from linrep.harvest.config import HarvestConfig, Pool
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.sae.activity import highest
from linrep.sae.artefact import EVALUATIONS, Evaluations
from linrep.sae.formats import saelens
from linrep.sae.layer import layer_name
from linrep.sae.report import LayerSae, Report
from linrep.sae.sae import Sae
from linrep.sae.splice import Where, splice_each
from linrep.sae.stability import living, match
from linrep.sae.study import Evaluation as EvaluationConfig
from linrep.sample import Skipped
from linrep.store.groups import rows_of_samples
from linrep.store.layout import MODALITIES, Modality
from linrep.store.mixture import find_sources, held_out, to_tensor
from linrep.store.read import Store
from linrep.store.tables import table_of
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import VLM, load
from linrep.vlm.own_words import in_own_words
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared

Saes = Mapping[str, Mapping[str, Sae]]
"""SAEs of a layer by name, each as `linrep.sae.artefact.open_saes` gives it."""
MOST_SAID = 32
"""Tokens of a model's own description of an image, at most."""
ROOM_BYTES = 2 * 2**30
"""Besides weights and rows: the process itself, activations of some rows, captions as tiles."""


@dataclass(frozen=True)
class Attribute:
    """What is known of the samples: a value's number for each sample of the store, -1 where it has none."""

    name: str
    values: tuple[str, ...]
    codes: Int64[np.ndarray, " s"]


@dataclass(frozen=True)
class Truth:
    """Images whose attributes are known, some to choose latents on and others to score them on.

    Attributes:
        ids: Names of all samples of the store.
        choose: Indices of those to choose on, of the training split.
        score: Indices of those to score on, held out.
        attributes: What is known.
    """

    ids: tuple[str, ...]
    choose: tuple[int, ...]
    score: tuple[int, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True)
class EvaluationJob:
    """Everything that the evaluation of a layer needs; sent to each worker once.

    Attributes:
        artefact: What it makes.
        saes: Where SAEs that were trained here lie, which keep how often their latents fire; None for one from elsewhere.
        store: The harvest.
        config: How much is evaluated.
        model: The model, and what it was harvested with.
        harvest: Likewise.
        corpora: Where captions come from.
        chunks: Chunks of pairs, or of texts where there are no pairs.
        truth: Known attributes; None where there are none.
        directions: File of class directions; None where there are no probes.
        pool: How the model runs.
        seed: Of the draw of other samples, whose tokens ablations put in the place of a sample's own.
    """

    artefact: Evaluations
    saes: Place | None
    store: Store
    config: EvaluationConfig
    model: ModelConfig
    harvest: HarvestConfig
    corpora: Corpora
    chunks: tuple[Chunk, ...] = field(repr=False)
    truth: Truth | None = field(repr=False)
    directions: Place | None
    pool: Pool
    seed: int


def evaluate_on_ray(
    job: EvaluationJob, layers: Mapping[int, Callable[[], Saes]], pool: Pool, n_bytes: int
) -> Iterator[UnitCommit]:
    """Evaluate the SAEs of some layers, a task for each layer.

    Args:
        job: What on.
        layers: By layer, what opens its SAEs; called where they are evaluated.
        pool: GPUs and CPUs of a task.
        n_bytes: Memory that a task takes, see `bytes_needed`.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    gpus = gpus_of(pool, resources())
    run = task(_evaluate_or_error, num_cpus=1, num_gpus=gpus, memory=memory(n_bytes))
    shared = ray.put(job)
    yield from results([run.remote(shared, layer, saes) for layer, saes in layers.items()])


def bytes_needed(d_model: int, n_latents: Sequence[int], config: EvaluationConfig) -> int:
    """Memory of a layer's task: its SAEs and as many controls, held-out rows twice over, and room.

    Args:
        d_model: Width of the residual stream.
        n_latents: Of each SAE of the layer.
        config: How much is evaluated.
    """
    weights = sum(2 * 2 * f * d_model * 4 for f in n_latents)
    return weights + 2 * 2 * config.rows * d_model * 4 + ROOM_BYTES


def _evaluate_or_error(job: EvaluationJob, layer: int, saes: Callable[[], Saes]) -> UnitCommit | LinrepError:
    return or_error(lambda: evaluate_layer(job, layer, saes(), own_device().type))


def evaluate_layer(job: EvaluationJob, layer: int, saes: Saes, device: str = "cpu") -> UnitCommit:
    """Evaluate the SAEs of a layer, write the results and commit them.

    Raises:
        StoreError: No validation row is of finite numbers.
    """
    begun, report, rates = time.monotonic(), Report(), {}
    rows = held_out(find_sources(job.store, layer, "val"), job.config.rows)
    if not any(len(x) for x in rows.values()):
        raise StoreError(
            f"layer {layer} of {job.store.place} holds no rows of finite numbers in the validation split, so no SAE can be "
            "evaluated: harvest it again in a wider dtype, or raise corpora.splits.val"
        )
    rows: dict[Modality, Float[Tensor, "_ d"]] = {m: x.to(device) for m, x in rows.items()}
    both = [LayerSae.of(layer, name, {m: s.to(device) for m, s in by.items()}) for name, by in saes.items()]
    directions = _directions(job, layer)
    pairs: list[tuple[LayerSae, LayerSae]] = []
    for one in both:
        found = one.evaluate(rows)
        control = one.random(rows, found)
        report.add_quality(one, found, control.evaluate(rows))
        rates[one.name] = found.rates["both" if "both" in found.rates else next(iter(found.rates))].cpu().float()
        report.add_moved(one, rates[one.name])
        pairs.append((one, control))
        if directions is not None and job.config.vectors:
            report.add_rebuilt(one, control, directions.to(device), job.config.most_latents)
    if job.truth is not None:
        _known(report, job, pairs, job.truth, device)
    if job.config.texts:
        _spliced(report, job, pairs, device)
    _stability(report, pairs, rates)
    if job.saes is not None:
        _keep_rates(job.saes / layer_name(layer), rates)  # before the commit: without it, the layer is evaluated again
    found = {name: table_of(getattr(report, name), schema) for name, schema in EVALUATIONS.tables.items()}
    n_rows = sum(len(x) for x in rows.values())
    return job.artefact.write(layer_name(layer), found, time.monotonic() - begun, n_rows)


def _keep_rates(folder: Place, rates: Mapping[str, Float[Tensor, " f"]]) -> None:
    """How often each latent fires, beside the SAEs that were trained here."""
    for name, own in rates.items():
        for where in (folder / name, *(folder / f"{name}-{modality}" for modality in MODALITIES)):
            if (where / saelens.CONFIG).is_file():
                saelens.write_firing(where, own)


def _stability(report: Report, pairs: Sequence[tuple[LayerSae, LayerSae]], rates: Mapping[str, Float[Tensor, " f"]]) -> None:
    """SAEs that differ in their seed alone, each against the first of them: their living latents."""
    first: dict[str, LayerSae] = {}
    for one, control in pairs:
        stem = "-".join(part for part in one.name.split("-") if not (part[0] == "s" and part[1:].isdigit()))
        if stem not in first:
            first[stem] = one
            continue
        other = first[stem]
        fewer, more = sorted((living(d.image.decoder.cpu(), rates[d.name]) for d in (one, other)), key=len)
        if len(fewer):
            # As many random directions as the longer one has latents: the more there are, the nearer the nearest is.
            beside = control.image.decoder.cpu()[: len(more)]
            report.add_stability(one, other, match(fewer, more)[0], match(fewer, beside)[0])


@lru_cache(maxsize=1)
def _model(config: ModelConfig, device: str, dtype: torch.dtype) -> VLM:
    """The whole model, kept for the next layer that this process evaluates."""
    return load(located(config), None, own_devices() if device == "cuda" else device, dtype)


def _spliced(report: Report, job: EvaluationJob, pairs: Sequence[tuple[LayerSae, LayerSae]], device: str) -> None:
    """What the model loses with each SAE of the layer in the place of its stream, on held-out captions."""
    captions = _captions(job)
    if not captions or not pairs:
        return
    vlm = _model(job.model, device, precision(job.pool, torch.device(device)))  # pyright: ignore[reportArgumentType]
    with_images = captions[0].pixels is not None
    if with_images and job.config.wording == "model":
        captions = _in_own_words(vlm, captions, job)
    wheres: tuple[Where, ...] = ("image", "text", "both") if with_images else ("text",)
    saes = {f"{role} {one.name}": d.replacing() for one, control in pairs for role, d in (("own", one), ("control", control))}
    layer = pairs[0][0].layer
    limits = {m: job.store.limit("tokens", layer, m) for m in MODALITIES}
    train = held_out(find_sources(job.store, layer, "train"), job.config.rows)
    means = {m: x[x.isfinite().all(1)].mean(0).to(device) for m, x in train.items()}
    found = splice_each(vlm, captions, layer, saes, wheres, means, limits, job.seed, job.pool.tokens_per_batch)
    for one, _ in pairs:
        for where in wheres:
            own, control = (found[f"{role} {one.name}", where].spliced() for role in ("own", "control"))
            report.add_spliced(one, own, control)


def _in_own_words(vlm: VLM, captions: Sequence[Prepared], job: EvaluationJob) -> list[Prepared]:
    """What the model says of the captions' images."""
    try:
        said = in_own_words(vlm, captions, MOST_SAID, job.pool.tokens_per_batch)
    except ValueError as error:
        raise RecipeError(f"sae.evaluation.wording model needs a prompt whose {{text}} follows the image: {error}") from None
    if not said:
        prompt = job.config.prompt or job.harvest.pair_prompt
        raise RecipeError(f"the model says nothing after {prompt!r}: set sae.evaluation.prompt, or wording corpus")
    return said


def _captions(job: EvaluationJob) -> list[Prepared]:
    """Held-out captions under their images, or texts alone; nothing where there are none."""
    preparer = Preparer.from_path(
        located(job.model),
        **{**job.harvest.preparation, "pair_prompt": job.config.prompt or job.harvest.pair_prompt},
    )
    # Of a pair, the caption under its image and not the one that is also read alone.
    samples = (
        sample for chunk in job.chunks for sample in read_chunk(chunk, job.corpora)
        if not isinstance(sample, Skipped) and sample.split != "train" and (sample.modality == "pair" or chunk.corpus == "text")
    )  # fmt: skip
    prepared = (ready for ready in map(preparer, samples) if isinstance(ready, Prepared))
    return list(islice(prepared, job.config.texts))


def _directions(job: EvaluationJob, layer: int) -> Float[Tensor, "v d"] | None:
    """Differences of class means, as the probes found them: a ring over the classes, so that each takes part twice."""
    if job.directions is None:
        return None
    entries = [
        e for e in read_directions(job.directions).entries
        if (e.kind, e.layer, e.modality, e.attribute) == ("class_mean", layer, "image", "class")
    ]  # fmt: skip
    if not entries:
        return None
    chosen = next((e for e in entries if e.view == "tokens"), entries[0]).vectors
    differences = (chosen.roll(-1, 0) - chosen)[: job.config.vectors]
    return differences[differences.norm(dim=1) > 0]


def _rows_of_truth(
    job: EvaluationJob, layer: int, truth: Truth, device: str
) -> Iterator[tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]]:
    """Image rows of the samples whose attributes are known, file by file, and the place of each row's sample in `truth`."""
    number = {truth.ids[i]: place for place, i in enumerate((*truth.choose, *truth.score))}
    selection = job.store.select("tokens", layer, "image")
    for file in selection.files:
        vectors, owners = rows_of_samples(replace(selection, files=(file,)), number)
        x, owner = to_tensor(vectors, selection.dtype), torch.from_numpy(owners)
        finite = x.isfinite().all(1)
        yield x[finite].to(device), owner[finite]


def _known(report: Report, job: EvaluationJob, pairs: Sequence[tuple[LayerSae, LayerSae]], truth: Truth, device: str) -> None:
    """Known attributes beside the latents of all SAEs of a layer and their controls: its rows are read once."""
    if not pairs:
        return
    samples = torch.tensor([*truth.choose, *truth.score])
    there = torch.zeros(len(samples), dtype=torch.bool)

    def rows() -> Iterator[tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]]:
        for x, owner in _rows_of_truth(job, pairs[0][0].layer, truth, device):
            there[owner] = True
            yield x, owner

    found = highest([own.image for pair in pairs for own in pair], rows(), len(samples))
    # A sample without a row of finite numbers says nothing; it is not one on which no latent fires.
    n = len(truth.choose)
    choose, score = there[:n].nonzero()[:, 0], n + there[n:].nonzero()[:, 0]
    if not len(choose) or not len(score):
        return
    for i, (one, _) in enumerate(pairs):
        halves = {name: (z.only(choose), z.only(score)) for name, z in zip(("own", "control"), found[2 * i :], strict=False)}
        for attribute in truth.attributes:
            codes = torch.from_numpy(attribute.codes)
            report.add_truth(one, halves, attribute.name, attribute.values, codes[samples[choose]], codes[samples[score]])


def find_truth(
    ids: Sequence[str], role: Sequence[str], is_train: Sequence[bool], attributes: Sequence[Attribute], most: int
) -> Truth | None:
    """Images with a known attribute, spread over the store: at most `most` to choose on and as many to score on."""
    known = np.zeros(len(ids), bool)
    for attribute in attributes:
        known |= attribute.codes >= 0
    images = known & (np.array(role) == "image")
    train = np.array(is_train, bool)
    choose, score = (np.flatnonzero(images & part) for part in (train, ~train))
    choose, score = (_spread(part, most) for part in (choose, score))
    if not len(choose) or not len(score):
        return None
    return Truth(tuple(ids), tuple(choose.tolist()), tuple(score.tolist()), tuple(attributes))


def _spread(indices: Int64[np.ndarray, " n"], most: int) -> Int64[np.ndarray, " _"]:
    return indices if len(indices) <= most else indices[np.linspace(0, len(indices) - 1, most).astype(np.int64)]
