"""Probes on Ray: the moments of a layer's files are gathered by tasks anywhere, merged and solved by one task for each layer."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import ray

from linrep.artefact import Artefact
from linrep.cluster.actors import one_gpu, own_device, resources
from linrep.cluster.fan_out import fan_out, first_error, or_error, room, task
from linrep.errors import LinrepError
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.probe.artefact import ProbeAbout, write_unit
from linrep.probe.moments import Moments
from linrep.probe.study import Study, Unit
from linrep.probe.unit import Part, bytes_of, gather_part, parts_of, probe_unit
from linrep.sae.formats import read as read_sae

UNITS_AHEAD = 2
"""Units under way for each CPU, at most: enough to keep all busy."""

Probed = Artefact[ProbeAbout]


def probe_units(study: Study, units: Sequence[Unit], probes: Probed, pool: Pool) -> Iterator[UnitCommit]:
    """Probe some units on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        study: What to do; sent to each worker once.
        units: Those that are not committed yet.
        probes: The artefact.
        pool: Says which share of a GPU each unit's fits hold.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    shared, there = ray.put(study), resources()
    gather = task(_gather, num_cpus=1)
    solve = task(_solve, num_cpus=1, num_gpus=one_gpu(pool, there))

    def submit(unit: Unit) -> Any:
        parts = [gather.remote(shared, unit, part) for part in parts_of(study, unit)]
        return solve.remote(shared, unit, probes, time.time(), *parts)

    return fan_out(units, submit, min(UNITS_AHEAD * int(there.get("CPU", 1)), room(bytes_of(study))))


def probe_plainly(study: Study, units: Sequence[Unit], probes: Probed) -> Iterator[UnitCommit]:
    """The same in this process, without Ray."""
    for unit in units:
        parts = [_gather(study, unit, part) for part in parts_of(study, unit)]
        outcome = _solve(study, unit, probes, time.time(), *parts)
        if isinstance(outcome, LinrepError):
            raise outcome
        yield outcome


def _gather(study: Study, unit: Unit, part: Part) -> list[Moments] | LinrepError:
    return or_error(lambda: gather_part(study, unit, part, own_device()))


def _solve(study: Study, unit: Unit, probes: Probed, begun: float, *parts: Any) -> UnitCommit | LinrepError:
    wrong = first_error(parts)
    if wrong is not None:
        return wrong
    started = time.monotonic() - (time.time() - begun)
    work: Callable[[], UnitCommit] = partial(_solve_and_write, study, unit, probes, parts, started)
    return or_error(work)


def _solve_and_write(study: Study, unit: Unit, probes: Probed, gathered: Sequence[list[Moments]], started: float) -> UnitCommit:
    sae = study.config.sae
    encoder = None if sae is None or sae.layer != unit.layer else read_sae(sae.path)
    result = probe_unit(study, unit, gathered, own_device(), encoder)
    rows = sum(moments.n for part in gathered for moments in part)
    return write_unit(probes, unit, result, rows, started)
