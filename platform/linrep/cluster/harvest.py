"""The harvest on Ray Data: chunks stream through readers and a pool of model actors, and their commits come back."""

import functools
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from linrep.ahead import in_order
from linrep.cluster.actors import actor_counts, check_format, gpus_of, load_planned, outcomes, own_devices, resources
from linrep.cluster.fan_out import fetch, or_error, task
from linrep.cluster.session import quiet_data
from linrep.contents.sources import located
from linrep.corpora.index import Chunk
from linrep.errors import LinrepError, RecipeError
from linrep.harvest.artefact import Harvest
from linrep.harvest.calibrate import Turns, calibrate, calibration_turns
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import Job
from linrep.harvest.take import ChunkWork, OriginLost, take_chunk
from linrep.sample import Skipped
from linrep.store.commit import Commit, read_commit
from linrep.store.limits import Limits
from linrep.store.summary import size
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from schemas import vectors

Block = dict[str, np.ndarray]
"""A batch of Ray Data with one row: a chunk on its way."""

CALLS_PER_ACTOR = 2
"""One chunk is unpacked, or written to its end, while another one runs; the model itself runs one micro-batch at a time."""

TAKEN_AT_ONCE = 16
"""Chunks that are taken from earlier harvests at once: object stores answer slowly."""

READER_COPIES, ACTOR_COPIES = 3, 2
"""How often a chunk is in a process at once: as samples, as bytes and as Ray's row; as bytes and as samples."""


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
class ChunkReader:
    """Reads and prepares a chunk: a task for any node with a CPU."""

    job: Job

    def __call__(self, block: Block) -> Block:
        """The chunk's samples, prepared. They travel as bytes: Ray Data may divide rows between blocks, but not a row."""
        work: ChunkWork = pickle.loads(block["work"][0])
        preparer = functools.partial(_preparer, self.job.model, self.job.config)  # pyright: ignore[reportArgumentType]
        samples = or_error(lambda: prepare_chunk(work.chunk, self.job.corpora, preparer()))
        return {"work": block["work"], "samples": np.array([pickle.dumps(samples, protocol=5)], dtype=object)}


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

    Raises:
        ModelError: The model on this node is not the one that the harvest was planned with.
    """

    def __init__(self, job: Job, pool: Pool, begun_in: str | None) -> None:
        self._job = job
        self._harvester = or_error(lambda: _load(job, pool, begun_in))

    def __call__(self, block: Block) -> Block:
        """Run the chunk, write it and commit it; a chunk that a lost task had committed already is left as it is."""
        outcome = or_error(lambda: self._harvest(pickle.loads(block["work"][0]), pickle.loads(block["samples"][0])))
        return {"outcome": np.array([pickle.dumps(outcome)], dtype=object)}

    def _harvest(self, work: ChunkWork, samples: list[Prepared | Skipped] | LinrepError) -> Commit | LostChunk:
        number = work.chunk.number
        done = read_commit(self._job.place, number)
        if done is not None:
            return done
        if isinstance(self._harvester, LinrepError):
            raise self._harvester
        if isinstance(samples, LinrepError):
            raise samples
        harvester = self._harvester.narrowed(work.views, self._job.limits_of(work.chunk.source))
        try:
            return harvest_chunk(harvester, samples, self._job.place, number, work.origins)
        except OriginLost as lost:
            return LostChunk(number, str(lost))


def _load(job: Job, pool: Pool, begun_in: str | None) -> Harvester:
    depth = max(job.layers)
    if job.config.sites:  # what the block at the deepest layer adds
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


def harvest_chunks(job: Job, works: Sequence[ChunkWork], pool: Pool, begun_in: str | None = None) -> Iterator[Commit | LostChunk]:
    """Harvest some chunks on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        job: What to harvest; the model is loaded as deep as its layers say.
        works: Chunks that are not committed yet, and what of them to compute.
        pool: Actors, GPUs and batch size.
        begun_in: Number format that earlier chunks ran in, None where there are none.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    quiet_data()
    there = resources()
    gpus = gpus_of(pool, there)
    fewest, most = actor_counts(pool, gpus, there.get("GPU", 0.0))
    reserved = reserve(pool, fewest, job.chunk_bytes, None if "RAY_ADDRESS" in os.environ else there)
    rows = [{"work": pickle.dumps(work)} for work in works]
    read = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        ChunkReader(job),  # pyright: ignore[reportArgumentType]
        batch_size=1,
        num_cpus=reserved.reader_cpus,
        memory=reserved.reader_bytes or None,
    )
    done = read.map_batches(
        ChunkHarvester,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(job, pool, begun_in),
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
    yield from outcomes(done)


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
    """What Ray sets aside: logical CPUs, and bytes of ordinary memory, so that no node takes up more chunks than it can hold.

    Attributes:
        reader_cpus: Of a task that reads a chunk.
        reader_bytes: Likewise; 0 where there is nothing to speak of.
        actor_bytes: Of an actor, for the chunks that it works on; the model itself is not in here.
    """

    reader_cpus: float
    reader_bytes: int
    actor_bytes: int


def reserve(pool: Pool, n_actors: int, chunk_bytes: int, there: Mapping[str, float] | None) -> Reservation:
    """What readers and actors need.

    Args:
        pool: Says what an actor takes.
        n_actors: Actors that must run at once.
        chunk_bytes: Most bytes of tiles in a chunk.
        there: What the cluster has; None for one that has, or gets, other nodes.

    Raises:
        RecipeError: They do not fit on this machine together, so that one would wait for the other for ever.
    """
    reader_bytes, actor_bytes = READER_COPIES * chunk_bytes, CALLS_PER_ACTOR * ACTOR_COPIES * chunk_bytes
    if there is None:
        return Reservation(1.0, reader_bytes, actor_bytes)
    cpus = there.get("CPU", 0.0)
    reader_cpus = min(1.0, cpus - n_actors * pool.cpus)
    if reader_cpus <= 0:
        raise RecipeError(f"pool: {n_actors} actors of {pool.cpus} CPUs leave no CPU for reading, there are {cpus:g}")
    needed, memory = n_actors * actor_bytes + reader_bytes, there.get("memory", 0.0)
    if needed > memory:
        raise RecipeError(
            f"a chunk takes up to {size(chunk_bytes)}, so {n_actors} actors and a reader need {size(needed)} of memory; "
            f"Ray has {size(memory)} here: lower harvest.chunk_size"
        )
    return Reservation(reader_cpus, reader_bytes, actor_bytes)
