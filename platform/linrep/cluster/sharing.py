"""Sharing on Ray: sums of a layer's files are gathered by tasks anywhere, merged and measured by one task for each unit."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import ray

from linrep.cluster.harvest import or_error
from linrep.errors import LinrepError
from linrep.places import Place
from linrep.sharing.artefact import UnitCommit, rows_of, write_unit
from linrep.sharing.concepts import concepts
from linrep.sharing.geometry import from_sums
from linrep.sharing.grouped import Part, parts_of
from linrep.sharing.latents import fire_part, latent_measures, latent_rows, merge_fired
from linrep.sharing.rows import from_rows
from linrep.sharing.study import Study, Unit
from linrep.sharing.sums import gather_part, merge

UNITS_AHEAD = 2
"""Units under way for each CPU, at most: enough to keep all busy."""
STORE_SHARE = 0.5
"""Of the object store, for the sums of units under way."""

Parents = dict[str, str]


def share_units(study: Study, units: Sequence[Unit], place: Place, parents: Parents) -> Iterator[UnitCommit]:
    """Work through some units on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        study: What to do; sent to each worker once.
        units: Those that are not committed yet.
        place: The artefact.
        parents: Digests that rows name.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    shared = ray.put(study)
    gather = ray.remote(num_cpus=1)(_gather)
    measure = ray.remote(num_cpus=1)(_measure)
    waiting, running = list(units), []
    there = ray.cluster_resources()
    room = STORE_SHARE * there.get("object_store_memory", 0) / max(bytes_of(study), 1)
    at_once = max(1, min(UNITS_AHEAD * int(there.get("CPU", 1)), int(room)))
    while waiting or running:
        while waiting and len(running) < at_once:
            unit = waiting.pop(0)
            parts = [gather.remote(shared, unit, part) for part in parts_for(study, unit)]
            running.append(measure.remote(shared, unit, place, parents, time.time(), *parts))
        done, running = ray.wait(running)
        for outcome in ray.get(done):
            if isinstance(outcome, LinrepError):
                for left in running:
                    ray.cancel(left)
                raise outcome
            yield outcome


def share_plainly(study: Study, units: Sequence[Unit], place: Place, parents: Parents) -> Iterator[UnitCommit]:
    """The same in this process, without Ray."""
    for unit in units:
        parts = [_gather(study, unit, part) for part in parts_for(study, unit)]
        outcome = _measure(study, unit, place, parents, time.time(), *parts)
        if isinstance(outcome, LinrepError):
            raise outcome
        yield outcome


def bytes_of(study: Study) -> int:
    """Bytes of all sums of a unit before they are merged."""
    d = max(store.manifest.width for store in study.stores.values())
    f = max((own.coder.n_latents for own, _ in study.latents), default=0)
    return 8 * 8 * study.config.groups * max(3 * d * d, 9 * f)


def parts_for(study: Study, unit: Unit) -> list[Part]:
    """The parts that a unit is gathered in."""
    store = study.stores[unit.model]
    return parts_of(store, "pooled" if unit.dictionary is None else "tokens", unit.layer)


def _gather(study: Study, unit: Unit, part: Part) -> Any:
    return or_error(partial(_gather_part, study, unit, part))


def _gather_part(study: Study, unit: Unit, part: Part) -> Any:
    store, pairs = study.stores[unit.model], study.pairs[unit.model]
    if unit.dictionary is None:
        return gather_part(store, unit.layer, pairs, part, study.config)
    return fire_part(store, pairs, part, study.latents[unit.dictionary][unit.control], study.config)


def _measure(study: Study, unit: Unit, place: Place, parents: Parents, begun: float, *parts: Any) -> UnitCommit | LinrepError:
    for part in parts:
        if isinstance(part, LinrepError):
            return part
    return or_error(partial(_measure_and_write, study, unit, place, parents, begun, list(parts)))


def _measure_and_write(study: Study, unit: Unit, place: Place, parents: Parents, begun: float, parts: list[Any]) -> UnitCommit:
    pairs, config = study.pairs[unit.model], study.config
    if unit.dictionary is None:
        found = merge(parts)
        rows = rows_of(study, unit, "geometry", [*from_sums(found, config), *from_rows(found, pairs, config)], parents)
        rows += rows_of(study, unit, "concept", concepts(found, pairs, config), parents)
        return write_unit(place, unit, rows, [], found.n, time.time() - begun)
    latents = study.latents[unit.dictionary][unit.control]
    fired = merge_fired(parts)
    rows = rows_of(study, unit, "latent", latent_measures(fired, latents, config), parents)
    each = [{"model": unit.model, "layer": unit.layer, "dictionary": latents.name, **row} for row in latent_rows(fired, latents)]
    return write_unit(place, unit, rows, each, len(pairs), time.time() - begun)
