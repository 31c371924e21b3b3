"""Probes on Ray: the moments of a layer's files are gathered by tasks anywhere, merged and solved by one task for each layer."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import ray
import torch

from linrep.cluster.harvest import or_error
from linrep.errors import LinrepError
from linrep.places import Place
from linrep.probe.artefact import UnitCommit, write_unit
from linrep.probe.moments import Moments
from linrep.probe.study import Study, Unit
from linrep.probe.unit import Part, bytes_of, gather_part, parts_of, probe_unit
from linrep.sae.formats import read as read_coder

UNITS_AHEAD = 2
"""Units under way for each CPU, at most: enough to keep all busy."""
STORE_SHARE = 0.5
"""Of the object store, for the moments of units under way."""


def probe_units(study: Study, units: Sequence[Unit], place: Place, gpus: float = 0.0) -> Iterator[UnitCommit]:
    """Probe some units on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        study: What to do; sent to each worker once.
        units: Those that are not committed yet.
        place: The artefact.
        gpus: Share of a GPU for each unit's fits.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    shared = ray.put(study)
    gather = ray.remote(num_cpus=1)(_gather)
    solve = ray.remote(num_cpus=1, num_gpus=gpus)(_solve)
    waiting, running = list(units), []
    there = ray.cluster_resources()
    room = STORE_SHARE * there.get("object_store_memory", 0) / max(bytes_of(study), 1)
    at_once = max(1, min(UNITS_AHEAD * int(there.get("CPU", 1)), int(room)))
    while waiting or running:
        while waiting and len(running) < at_once:
            unit = waiting.pop(0)
            parts = [gather.remote(shared, unit, part) for part in parts_of(study, unit)]
            running.append(solve.remote(shared, unit, place, time.time(), *parts))
        done, running = ray.wait(running)
        for outcome in ray.get(done):
            if isinstance(outcome, LinrepError):
                for left in running:
                    ray.cancel(left)
                raise outcome
            yield outcome


def probe_plainly(study: Study, units: Sequence[Unit], place: Place) -> Iterator[UnitCommit]:
    """The same in this process, without Ray."""
    for unit in units:
        parts = [_gather(study, unit, part) for part in parts_of(study, unit)]
        outcome = _solve(study, unit, place, time.time(), *parts)
        if isinstance(outcome, LinrepError):
            raise outcome
        yield outcome


def _gather(study: Study, unit: Unit, part: Part) -> list[Moments] | LinrepError:
    return or_error(lambda: gather_part(study, unit, part, _device()))


def _solve(study: Study, unit: Unit, place: Place, begun: float, *parts: list[Moments] | LinrepError) -> UnitCommit | LinrepError:
    gathered: list[list[Moments]] = []
    for part in parts:
        if isinstance(part, LinrepError):
            return part
        gathered.append(part)
    started = time.monotonic() - (time.time() - begun)
    work: Callable[[], UnitCommit] = partial(_solve_and_write, study, unit, place, gathered, started)
    return or_error(work)


def _solve_and_write(study: Study, unit: Unit, place: Place, gathered: list[list[Moments]], started: float) -> UnitCommit:
    sae = study.config.sae
    encoder = None if sae is None or sae.layer != unit.layer else read_coder(sae.path)
    result = probe_unit(study, unit, gathered, _device(), encoder)
    rows = sum(moments.n for part in gathered for moments in part)
    return write_unit(place, unit, result, rows, started)


def _device() -> torch.device:
    has_gpu = ray.is_initialized() and bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
    return torch.device("cuda" if has_gpu and torch.cuda.is_available() else "cpu")
