"""Steering on Ray Data: chunks of cells stream through actors that hold the whole model, and their commits come back."""

import pickle
from collections.abc import Iterator, Sequence

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy

from linrep.cluster.actors import actor_counts, check_format, check_same, gpus_of, load_planned, outcomes, own_devices, resources
from linrep.cluster.fan_out import or_error
from linrep.cluster.harvest import Block
from linrep.cluster.session import quiet_data
from linrep.directions import read_directions
from linrep.errors import LinrepError
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.sae.formats import read as read_sae
from linrep.steer.chunk import steer_chunk
from linrep.steer.config import INTERCHANGE
from linrep.steer.donors import Donors, read_donors
from linrep.steer.job import SteerChunk, SteerJob
from linrep.steer.latents import SaeLike
from linrep.steer.plan import latent_views
from linrep.steer.prompts import answer_ids, bare_prompt, first_token_row
from linrep.steer.steerer import Steerer
from linrep.steer.token_latents import TokenLatents, read_token_latents
from linrep.steer.vectors import Vectors
from linrep.store.read import read_store
from linrep.vlm.decode import next_tokens
from linrep.vlm.load import VLM


class ChunkSteerer:
    """Holds the model on its device: an actor of the pool.

    Args:
        job: What to do.
        pool: How to run it.
        begun_in: Number format that earlier chunks ran in, None where there are none.
    """

    def __init__(self, job: SteerJob, pool: Pool, begun_in: str | None) -> None:
        self._job = job
        self._steerer = or_error(lambda: load_steerer(job, pool, begun_in))

    def __call__(self, block: Block) -> Block:
        """Run the chunk, write it and commit it; a chunk that a lost task had committed already is left as it is."""
        chunk: SteerChunk = pickle.loads(block["chunk"][0])
        outcome = or_error(lambda: self._steer(chunk))
        return {"outcome": np.array([pickle.dumps(outcome)], dtype=object)}

    def _steer(self, chunk: SteerChunk) -> UnitCommit:
        if (self._job.artefact.place / "commits" / f"{chunk.unit}.json").is_file():
            return self._job.artefact.commit(chunk.unit)
        if isinstance(self._steerer, LinrepError):
            raise self._steerer
        return steer_chunk(self._steerer, chunk, self._job)


def load_steerer(job: SteerJob, pool: Pool, begun_in: str | None = None, device: str | None = None) -> Steerer:
    """The model with its head, and the directions, on a worker.

    Args:
        job: What to do.
        pool: How to run it.
        begun_in: Number format that earlier chunks ran in.
        device: Where; None for the GPUs that Ray gave this worker, if any.

    Raises:
        ModelError: The model or the SAE on this node is not the one of the plan, or a GPU is not to be seen.
        RecipeError: The artefact was begun in another number format.
    """
    devices = own_devices() if device is None else (torch.device(device),)
    vlm = load_planned(job.model, job.model_digest, None, pool, devices)
    config = job.config
    sae = None if config.sae is None else read_sae(config.sae.path)
    if config.sae is not None and sae is not None:
        check_same(config.sae.path, sae.digest, job.sae_digest)
    vectors = Vectors(
        directions=read_directions(job.directions),
        dose=config.dose,
        seed=config.seed,
        unembedding=first_token_row(vlm, config.ask),
        saes=None if config.sae is None or sae is None else {config.sae.layer: sae},
        k=20 if config.sae is None else config.sae.k,
        one_prompt=job.one_prompt,
        latents={} if sae is None else _token_latents(job, sae),
        donors=_donors(job, vlm) if INTERCHANGE in config.edits else None,
    )
    steerer = Steerer(vlm, config, job.layers, vectors, pool.tokens_per_batch, job.image_size, job.max_text_tokens, job.limits)
    check_format(steerer.precision, begun_in)
    return steerer


def _token_latents(job: SteerJob, sae: SaeLike) -> dict[tuple[int, str], TokenLatents]:
    views = latent_views(job.config)
    if job.config.sae is None or not views:
        return {}
    store, layer = read_store(job.harvest), job.config.sae.layer
    return {(layer, view): read_token_latents(store, sae, layer, view, job.classes) for view in views}


def _donors(job: SteerJob, vlm: VLM) -> Donors:
    """Streams of other runs, of those that the model itself names rightly."""
    asking, tokenizer = job.config.ask, vlm.processor.tokenizer
    right = {name: answer_ids(tokenizer, bare_prompt(asking), asking.answer, name)[0] for name in job.classes}
    return read_donors(read_store(job.harvest), job.layers, job.classes, right, lambda h: next_tokens(vlm, h))


def steer_chunks(job: SteerJob, chunks: Sequence[SteerChunk], pool: Pool, begun_in: str | None = None) -> Iterator[UnitCommit]:
    """Run some chunks on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        job: What to do.
        chunks: Those that are not committed yet.
        pool: Actors, GPUs and batch size.
        begun_in: Number format that earlier chunks ran in, None where there are none.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    quiet_data()
    there = resources()
    gpus = gpus_of(pool, there)
    fewest, most = actor_counts(pool, gpus, there.get("GPU", 0.0))
    rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        ChunkSteerer,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(job, pool, begun_in),
        batch_size=1,
        num_cpus=pool.cpus,
        num_gpus=gpus or None,
        compute=ActorPoolStrategy(min_size=fewest, max_size=most, initial_size=fewest, max_tasks_in_flight_per_actor=2),
    )
    yield from outcomes(done)
