"""Sharing on Ray: sums of a layer's files are gathered by tasks anywhere, added as they come, and measured by one task a unit."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from linrep.artefact import Artefact
from linrep.cluster.actors import one_gpu, own_device, resources
from linrep.cluster.fan_out import fan_out, first_error, memory, or_error, room, task
from linrep.cluster.handed import handed
from linrep.encoder import moved
from linrep.errors import LinrepError, StoreError
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.sharing.across import across
from linrep.sharing.artefact import STEERING, SharingAbout, across_rows, left_out_rows, lens_rows, rows_of, write_unit
from linrep.sharing.concepts import concepts
from linrep.sharing.fires import TOP, PassFires, add_fired, fire_part
from linrep.sharing.geometry import from_sums
from linrep.sharing.grouped import PARTS, Part, parts_of
from linrep.sharing.latent_lens import lens
from linrep.sharing.latents import check_tokens, latent_measures, latent_rows
from linrep.sharing.layers import LayerRows, add_layers, draw_layer, in_common
from linrep.sharing.lens_tokens import PER_SAMPLE, LensRows, add_lens, read_tokens
from linrep.sharing.pooled import PooledRows
from linrep.sharing.rows import from_rows
from linrep.sharing.study import TRAINED, AcrossUnit, Study, Unit
from linrep.sharing.sums import add_gathered, gather_part
from linrep.sharing.weights import compare
from linrep.vlm.unembed import read_unembedding

UNITS_AHEAD = 2
"""Units under way for each CPU, at most: enough to keep all busy."""

Results = Artefact[SharingAbout]
AnyUnit = Unit | AcrossUnit


def share_units(study: Study, units: Sequence[AnyUnit], results: Results, pool: Pool) -> Iterator[UnitCommit]:
    """Work through some units on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        study: What to do; sent to each worker once.
        units: Those that are not committed yet.
        results: The artefact.
        pool: Says which share of a GPU a task holds that encodes.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    study = replace(study, latents=handed(study.latents))
    shared, gpus = ray.put(study), one_gpu(pool, resources())
    measure = task(_measure, num_cpus=1, memory=memory(2 * bytes_of(study)))
    at_once, window = in_the_store(room(bytes_of(study)), int(ray.cluster_resources().get("CPU", 1)), len(units))

    def submit(unit: AnyUnit) -> Any:
        return measure.remote(
            shared,
            unit,
            results,
            time.time(),
            _summed(shared, study, unit, window, 0.0 if getattr(unit, "sae", None) is None else gpus),
        )

    return fan_out(units, submit, at_once)


def share_plainly(study: Study, units: Sequence[AnyUnit], results: Results) -> Iterator[UnitCommit]:
    """The same in this process, without Ray."""
    for unit in units:
        outcome = _measure(study, unit, results, time.time(), _summed_plainly(study, unit))
        if isinstance(outcome, LinrepError):
            raise outcome
        yield outcome


def _summed_plainly(study: Study, unit: AnyUnit) -> Any:
    # No name is left with a part when the next one is read: `functools.reduce` would keep it.
    total = None
    for part in parts_for(study, unit):
        total = _add(total, _gather(study, unit, part))
    return total


def bytes_of(study: Study) -> int:
    """Bytes of one part's sums of a unit."""
    d = max(store.manifest.width for store in study.stores.values())
    f = max((own.sae.n_latents for own, _ in study.latents), default=0)
    sums = 8 * study.config.groups * max(3 * d * d, 9 * f + 2 * d) + 2 * 2 * 12 * TOP * f
    lens = study.config.lens
    tokens = 0 if lens is None or not study.lenses else PER_SAMPLE * (lens.images + lens.texts)
    return max(sums, 4 * len(study.across) * max(2 * study.config.reservoir, tokens) * d)


def in_the_store(room: int, cpus: int, units: int) -> tuple[int, int]:
    """Units under way at once, and parts of each: a part waits until there is room for its sums.

    A unit's sums so far, those of its parts under way and what an addition gives lie in the object store together.

    Args:
        room: Number of parts whose sums fit.
        cpus: Of the cluster.
        units: Still to do.
    """
    at_once = max(1, min(UNITS_AHEAD * cpus, units, room // 3))
    return at_once, max(1, min(max(PARTS, cpus), room // at_once - 2))


def _summed(shared: Any, study: Study, unit: AnyUnit, window: int, gpus: float) -> Any:
    """A reference to the sums of all parts, added in their order; of those not added yet no more than the window exist."""
    sums = bytes_of(study)
    gather = task(_gather_after, num_cpus=1, num_gpus=gpus, num_returns=2, memory=memory(sums))
    add = task(_add_and_tell, num_cpus=1, num_returns=2, memory=memory(3 * sums))
    total, added = None, []
    for i, part in enumerate(parts_for(study, unit)):
        own, there = gather.remote(shared, unit, part, added[i - window] if i >= window else None)
        total, there = (own, there) if total is None else add.remote(total, own)
        added.append(there)
    return total


def parts_for(study: Study, unit: AnyUnit) -> Sequence[Part | int]:
    """The parts that a unit is gathered in: runs of chunks of a layer, or one layer after the other."""
    if isinstance(unit, AcrossUnit):
        return study.across
    return parts_of(study.stores[unit.model], "tokens", unit.layer) if unit.sae is not None else _rows(study, unit).parts()


def _rows(study: Study, unit: AnyUnit, layer: int | None = None) -> PooledRows:
    layer = unit.layer if isinstance(unit, Unit) else layer
    assert layer is not None
    return PooledRows(study.stores[unit.model], layer, study.pairs[unit.model], unit.pooling, study.objects)


def _gather(study: Study, unit: AnyUnit, part: Any) -> Any:
    return or_error(partial(_gather_part, study, unit, part))


def _gather_after(study: Study, unit: AnyUnit, part: Any, added: None) -> tuple[Any, None]:
    """The sums of a part, begun only when there is room for them."""
    return _gather(study, unit, part), None


def _add_and_tell(total: Any, own: Any) -> tuple[Any, None]:
    return _add(total, own), None


def _add(total: Any, own: Any) -> Any:
    """The sums of both, or the error that one of them is."""
    if total is None:
        return own
    wrong = first_error((total, own))
    if wrong is not None:
        return wrong
    of_kind: Any = {LayerRows: add_layers, LensRows: add_lens, PassFires: add_fired}.get(type(total), add_gathered)
    return of_kind(total, own)


def _gather_part(study: Study, unit: AnyUnit, part: Any) -> Any:
    store, pairs = study.stores[unit.model], study.pairs[unit.model]
    if isinstance(unit, AcrossUnit) and unit.lens:
        assert study.config.lens is not None
        return LensRows({part: read_tokens(store, part, pairs, study.lenses[unit.model].words, study.config.lens)})
    if isinstance(unit, AcrossUnit):
        return draw_layer(_rows(study, unit, part))
    if unit.sae is None:
        return gather_part(_rows(study, unit), part, study.config)
    return fire_part(store, pairs, part, moved(study.latents[unit.sae][unit.control], own_device()), study.config)


def _measure(study: Study, unit: AnyUnit, results: Results, begun: float, found: Any) -> UnitCommit | LinrepError:
    return found if isinstance(found, LinrepError) else or_error(partial(_write, study, unit, results, begun, found))


def _write(study: Study, unit: AnyUnit, results: Results, begun: float, found: Any) -> UnitCommit:
    pairs, config, parents = study.pairs[unit.model], study.config, results.manifest.parents
    if isinstance(unit, AcrossUnit) and unit.lens:
        assert config.lens is not None
        own = study.lenses[unit.model]
        unembedding = None if own.model is None else read_unembedding(own.model)
        rows = lens_rows(study, unit, lens(found.layers, pairs, config.lens, own.words, unembedding))
        return write_unit(results, unit, [], [], [], config.lens.images, time.time() - begun, lens=rows)
    if isinstance(unit, AcrossUnit):
        common = in_common(found)
        rows = across_rows(study, unit, across(common, pairs, config, unit.pooling))
        return write_unit(results, unit, [], [], [], len(common.pair), time.time() - begun, rows)
    if unit.sae is None:
        if found.n < 2:
            raise StoreError(
                f"layer {unit.layer} of {study.stores[unit.model].place}: {found.n} of {len(pairs)} pairs have vectors of finite "
                "numbers in both modalities, which is too few to compare"
            )
        pooling = unit.pooling
        levels = {
            "geometry": [*from_sums(found, config, pooling), *from_rows(found, pairs, config, pooling)],
            "concept": concepts(found, pairs, config, pooling),
        }
        rows = [row for level, measures in levels.items() for row in rows_of(study, unit, level, measures, parents)]
        left_out = [row for level, measures in levels.items() for row in left_out_rows(study, unit, level, measures)]
        if unit.model == TRAINED and pooling == "mean" and unit.layer in study.steered:
            rows += rows_of(study, unit, "concept", study.steered[unit.layer], parents, (STEERING,))
        return write_unit(results, unit, rows, [], left_out, found.n, time.time() - begun)
    latents = study.latents[unit.sae][unit.control]
    weights = compare(study.stores[unit.model], unit.layer, pairs, check_tokens(found), latents)
    measures = latent_measures(found, weights, latents, pairs, config)
    rows, left_out = rows_of(study, unit, "latent", measures, parents), left_out_rows(study, unit, "latent", measures)
    named = {"model": unit.model, "layer": unit.layer, "sae": latents.name}
    each = [{**named, **row} for row in latent_rows(found, weights, latents)]
    return write_unit(results, unit, rows, each, left_out, len(pairs), time.time() - begun)
