"""The harvest on Ray: Ray Data streams chunks to a pool of model actors, tasks read their samples, and their commits come back.

A chunk is the unit of commit. Its samples come to its actor in parcels: an actor has a few parts of a chunk read ahead, each by a
task that ends by itself, whether somebody takes its parcels or not. So no reader holds up another one on a machine of few CPUs.
"""

import copy
import functools
import math
import os
import pickle
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from linrep.ahead import in_order
from linrep.cluster.actors import actor_counts, check_format, gpus_of, load_planned, outcomes, own_devices, resources
from linrep.cluster.fan_out import PAUSES, error_last, fetch, or_error, task
from linrep.cluster.session import quiet_data
from linrep.contents.sources import located
from linrep.corpora.index import Chunk
from linrep.errors import LinrepError, RecipeError
from linrep.harvest.artefact import Harvest
from linrep.harvest.batches import WINDOW_BYTES
from linrep.harvest.calibrate import Turns, calibrate, calibration_turns
from linrep.harvest.chunk import harvest_chunk
from linrep.harvest.clock import Clock
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.harvester import Harvester
from linrep.harvest.parcels import PARCEL_BYTES, PART_RECORDS, Parcel, parts_of, read_parcels
from linrep.harvest.plan import Job
from linrep.harvest.take import ChunkWork, OriginLost, take_chunk
from linrep.sample import Skipped
from linrep.store.commit import Commit, read_commit
from linrep.store.layout import NO_LAYER
from linrep.store.limits import Limits
from linrep.store.summary import size
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from schemas import vectors

Block = dict[str, np.ndarray]
"""A batch of Ray Data with one row: a chunk to do, or what became of it."""

CALLS_PER_ACTOR = 2
"""One chunk begins, or is written to its end, while another one runs; the model itself runs one micro-batch at a time."""

TAKEN_AT_ONCE = 16
"""Chunks that are taken from earlier harvests at once: object stores answer slowly."""

READER_PARCELS = 2
"""Parcels in a reader at once: one on its way to the object store, and one that grows."""

FEWEST_PARTS, MOST_PARTS = 2, 8
"""Parts of a chunk that are read at once, or wait to be taken, for each chunk that an actor works on."""


@dataclass(frozen=True)
class LostChunk:
    """A chunk that could not be taken from earlier harvests as planned: it is still to be computed.

    Attributes:
        number: Its number.
        why: What differs from the plan.
    """

    number: int
    why: str


@dataclass(frozen=True)
class Reading:
    """How the samples of an actor's chunks are read.

    Attributes:
        cpus: Logical CPUs of a task.
        memory: Bytes that it reserves; 0 for nothing to speak of.
        at_once: Parts of a chunk that are under way or wait to be taken.
    """

    cpus: float
    memory: int
    at_once: int


def read_part(job: Job, part: Chunk) -> Iterator[Parcel | LinrepError]:
    """The parcels of a part: a task for any node with a CPU. An error of ours is the last one."""
    preparer = or_error(lambda: _preparer(job.model, job.config))  # pyright: ignore[reportArgumentType]
    if isinstance(preparer, LinrepError):
        yield preparer
    else:
        yield from error_last(read_parcels(part, job.corpora, preparer, PAUSES))


@functools.lru_cache(maxsize=4)
def _preparer(model: ModelConfig, config: HarvestConfig) -> Preparer:
    """The preparer of a worker process, kept for its next chunk: loading a tokenizer takes as long as preparing one."""
    return Preparer.from_path(located(model), **config.preparation)


class ChunkHarvester:
    """Holds the model on its device: an actor of the pool.

    Args:
        job: What to harvest.
        pool: How to run it.
        begun_in: Number format that earlier chunks ran in, None where there are none.
        reading: How samples are read; None: by this process.

    Raises:
        ModelError: The model on this node is not the one that the harvest was planned with.
    """

    def __init__(self, job: Job, pool: Pool, begun_in: str | None, reading: Reading | None = None) -> None:
        self._job, self._at_once = job, 1 if reading is None else reading.at_once
        self._read: Callable[[Chunk], list[Any]] = lambda part: list(read_part(job, part))
        if reading is not None:
            # The parcels do not wait to be taken: a task that did would keep its CPU from the one that is waited for.
            remote = task(read_part, num_cpus=reading.cpus, memory=reading.memory or None, num_returns="streaming")
            self._read = lambda part: [fetch(reference) for reference in remote.remote(job, part)]
        self._harvester = or_error(lambda: _load(job, pool, begun_in))

    def __call__(self, block: Block) -> Block:
        """Run the chunk, write it and commit it; a chunk that a lost task had committed already is left as it is."""
        clock = Clock()
        outcome = or_error(lambda: self._harvest(pickle.loads(block["work"][0]), clock))
        timed = outcome if isinstance(outcome, LinrepError) else (outcome, clock.seconds)
        return {"outcome": np.array([pickle.dumps(timed)], dtype=object)}

    def _harvest(self, work: ChunkWork, clock: Clock) -> Commit | LostChunk:
        number = work.chunk.number
        done = read_commit(self._job.place, number)
        if done is not None:
            return done
        if isinstance(self._harvester, LinrepError):
            raise self._harvester
        harvester = self._harvester.narrowed(work.views, self._job.limits_of(work.chunk.source))
        with closing(self._samples(work.chunk, clock)) as samples:
            try:
                return harvest_chunk(harvester, samples, self._job.place, number, work.origins, clock)
            except OriginLost as lost:
                return LostChunk(number, str(lost))

    def _samples(self, chunk: Chunk, clock: Clock) -> Generator[Prepared | Skipped, None, None]:
        """A chunk's samples in its order. Parts are read ahead; a parcel leaves the object store once its samples are taken."""
        for parcels in in_order(self._read, parts_of(chunk), self._at_once):
            while parcels:
                parcel = parcels.pop(0)
                if isinstance(parcel, LinrepError):
                    raise parcel
                clock.take_in(parcel.seconds)
                # What came from the object store is a view on it.
                yield from map(copy.deepcopy, parcel.samples)


def _load(job: Job, pool: Pool, begun_in: str | None) -> Harvester:
    depth = max(0, *job.layers)
    if {"attention", "mlp"} & set(job.config.sites) and max(job.layers) != NO_LAYER:  # what the block at the deepest layer adds
        depth = min(depth + 1, describe(located(job.model)).n_layers)
    vlm = load_planned(job.model, job.model_digest, depth, pool, own_devices())
    harvester = Harvester(vlm, job.config, job.layers, pool.tokens_per_batch)
    check_format(harvester.precision, begun_in)
    return harvester


def usual_norms(job: Job, chunks: Sequence[Chunk], pool: Pool, begun_in: str | None = None) -> dict[str, Limits]:
    """The norms above which tokens of each source are kept apart, see `linrep.harvest.calibrate`: a task of its own.

    Args:
        job: What to harvest.
        chunks: All chunks of the sources that are measured.
        pool: How a model runs.
        begun_in: Number format that earlier chunks ran in, None where there are none.

    Raises:
        LinrepError: Whatever the worker raised of its kind.
    """
    gpus = gpus_of(pool, resources())
    # The process ends with its task: the model must be out of the way of the actors'.
    measure = task(_calibrate, num_cpus=pool.cpus, num_gpus=gpus, max_calls=1)
    found = fetch(measure.remote(job, calibration_turns(chunks), pool, begun_in))
    if isinstance(found, LinrepError):
        raise found
    return found


def _calibrate(job: Job, turns: Turns, pool: Pool, begun_in: str | None) -> dict[str, Limits] | LinrepError:
    def limits() -> dict[str, Limits]:
        return calibrate(_load(job, pool, begun_in), turns, job.corpora, _preparer(job.model, job.config))  # pyright: ignore[reportArgumentType]

    return or_error(limits)


def harvest_chunks(
    job: Job, works: Sequence[ChunkWork], pool: Pool, begun_in: str | None = None, clock: Clock | None = None
) -> Iterator[Commit | LostChunk]:
    """Harvest some chunks on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        job: What to harvest; the model is loaded as deep as its layers say.
        works: Chunks that are not committed yet, and what of them to compute.
        pool: Actors, GPUs and batch size.
        begun_in: Number format that earlier chunks ran in, None where there are none.
        clock: Counts where the time of readers and actors goes.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    quiet_data()
    there = resources()
    gpus = gpus_of(pool, there)
    fewest, most = actor_counts(pool, gpus, there.get("GPU", 0.0))
    joined = "RAY_ADDRESS" in os.environ
    reserved = reserve(pool, fewest, job.record_bytes, job.chunk_bytes, None if joined else there)
    reading = Reading(reserved.reader_cpus, reserved.reader_bytes, parts_at_once(pool, most, job.record_bytes, there, joined))
    rows = [{"work": pickle.dumps(work)} for work in works]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        ChunkHarvester,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(job, pool, begun_in, reading),
        batch_size=1,
        num_cpus=pool.cpus,
        num_gpus=gpus or None,
        memory=reserved.actor_bytes or None,
        compute=ActorPoolStrategy(
            min_size=fewest,
            max_size=most,
            initial_size=fewest,
            max_tasks_in_flight_per_actor=2 * CALLS_PER_ACTOR,
            max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
            enable_true_multi_threading=True,
        ),
    )
    for outcome, seconds in outcomes(done):
        if clock is not None:
            clock.take_in(seconds)
        yield outcome


def take_chunks(harvest: Harvest, works: Sequence[ChunkWork]) -> Iterator[Commit | LostChunk]:
    """Take whole chunks from earlier harvests, several at once; in their order.

    Raises:
        LinrepError: What cannot be read or written.
    """
    schema = vectors(harvest.manifest.width, harvest.manifest.dtype)

    def one(work: ChunkWork) -> Commit | LostChunk:
        outcome = or_error(lambda: take_chunk(harvest.place, work, schema))
        if isinstance(outcome, OriginLost):
            return LostChunk(work.chunk.number, str(outcome))
        if isinstance(outcome, LinrepError):
            raise outcome
        return outcome

    yield from in_order(one, works, TAKEN_AT_ONCE)


@dataclass(frozen=True)
class Reservation:
    """What Ray sets aside: logical CPUs, and bytes of ordinary memory, so that no node takes up more than it can hold.

    Attributes:
        reader_cpus: Of a task that reads a part of a chunk.
        reader_bytes: Likewise; 0 where there is nothing to speak of.
        actor_bytes: Of an actor, for the samples that wait to be packed; neither the model nor rows are in here.
    """

    reader_cpus: float
    reader_bytes: int
    actor_bytes: int


def reserve(pool: Pool, n_actors: int, record_bytes: int, chunk_bytes: int, there: Mapping[str, float] | None) -> Reservation:
    """What readers and actors need, however large a chunk is.

    Args:
        pool: Says what an actor takes.
        n_actors: Actors that must run at once.
        record_bytes: Most bytes of tiles in a record.
        chunk_bytes: Likewise in a chunk.
        there: What the cluster has; None for one that has, or gets, other nodes.

    Raises:
        RecipeError: They do not fit on this machine together, so that one would wait for the other for ever.
    """
    reader_bytes = min(READER_PARCELS * max(PARCEL_BYTES, record_bytes), chunk_bytes)
    actor_bytes = CALLS_PER_ACTOR * min(WINDOW_BYTES + record_bytes, chunk_bytes)
    if there is None:
        return Reservation(1.0, reader_bytes, actor_bytes)
    cpus = there.get("CPU", 0.0)
    reader_cpus = min(1.0, cpus - n_actors * pool.cpus)
    if reader_cpus <= 0:
        raise RecipeError(f"pool: {n_actors} actors of {pool.cpus} CPUs leave no CPU for reading, there are {cpus:g}")
    needed, memory = n_actors * actor_bytes + reader_bytes, there.get("memory", 0.0)
    if needed > memory:
        raise RecipeError(
            f"pool: {n_actors} actors and a reader need {size(needed)} of memory for samples on their way; "
            f"Ray has {size(memory)} here: lower pool.actors, or free memory on this machine"
        )
    return Reservation(reader_cpus, reader_bytes, actor_bytes)


def parts_at_once(pool: Pool, n_actors: int, record_bytes: int, there: Mapping[str, float], joined: bool) -> int:
    """Parts that are read at once for each chunk in work: enough for all CPUs, and no more than half the object store holds.

    Args:
        pool: Says what an actor takes.
        n_actors: Actors that may run at once.
        record_bytes: Most bytes of tiles in a record.
        there: What the cluster has or comes to have.
        joined: Whether it is somebody else's, where each node brings an object store of its own.
    """
    chunks = n_actors * CALLS_PER_ACTOR
    wanted = math.ceil((there.get("CPU", 0.0) - n_actors * pool.cpus) / chunks)
    room = there.get("object_store_memory", 0.0) / 2 / (chunks * PART_RECORDS * max(record_bytes, 1))
    return max(FEWEST_PARTS, min(MOST_PARTS, wanted, MOST_PARTS if joined else int(room)))
