"""Features on Ray: parts are encoded and turned over anywhere; runs of latents are gathered by parts, merged and filled in."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray

from linrep.cluster.fan_out import or_error
from linrep.errors import LinrepError
from linrep.features.codes import codes_file, encode_file
from linrep.features.columns import turn, turned
from linrep.features.examples import Chosen, choose, fill
from linrep.features.gather import Gathered, gather
from linrep.features.study import PARTS, Part, Study, Unit
from linrep.features.tables import example_table, feature_table, label_table, telling
from linrep.features.units import UnitCommit, write_unit
from linrep.places import Place
from linrep.store.layout import Modality
from linrep.vlm.unembed import Unembedding, read_unembedding

UNITS_AHEAD = 2
"""Units under way at once, at most: one gathers while another is filled in."""
STORE_SHARE = 0.5
"""Of the object store, for what the parts of units under way gather."""

Examples = dict[Modality, Chosen]
Watch = Callable[[int], None]


def find_features(
    study: Study, units: Sequence[Unit], place: Place, encoded: Watch = lambda n: None, coded: Sequence[Unit] = ()
) -> Iterator[UnitCommit]:
    """Work through some units on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        study: What to do; sent to each worker once.
        units: Those that are not committed yet.
        place: The artefact.
        encoded: Told the rows of each part, once it is encoded.
        coded: Further units, committed or not, of whose dictionaries the codes must be there too.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    shared = ray.put(study)
    tasks: list[Any] = [ray.remote(num_cpus=1)(task) for task in (_encode, _turn, _gather, _choose, _fill, _write)]
    encode, over, collect, settle, show, write = tasks
    settle = settle.options(num_returns=2)
    # Encoding comes first for every dictionary: later passes read files, and wait for all of their dictionary's.
    coders = {unit.coder: unit for unit in (*units, *coded)}
    ready = {coder: [encode.remote(shared, unit, part, place) for part in study.parts(unit)] for coder, unit in coders.items()}
    for coder, unit in {unit.coder: unit for unit in units}.items():
        done = zip(study.parts(unit), ready[coder], strict=True)
        ready[coder] = [over.remote(shared, unit, part, place, rows) for part, rows in done]
    room = STORE_SHARE * ray.cluster_resources().get("object_store_memory", 0) / (PARTS * study.config.memory_gb * 1e9)
    at_once = max(1, min(UNITS_AHEAD, int(room)))
    waiting, running = list(units), []
    while waiting or running:
        while waiting and len(running) < at_once:
            unit, begun = waiting.pop(0), time.time()
            for done in _results(ready.pop(unit.coder, [])):
                encoded(done)
            parts = study.parts(unit)
            found = [collect.remote(shared, unit, part, place) for part in parts]
            rows, chosen = settle.remote(shared, unit, *found)
            shown = [show.remote(shared, unit, part, place, chosen) for part in parts]
            running.append(write.remote(shared, unit, place, begun, rows, *shown))
        done, running = ray.wait(running)
        yield from _results(done, running)
    for left in ready.values():
        for done in _results(left):
            encoded(done)


def _results(done: Sequence[Any], others: Sequence[Any] = ()) -> Iterator[Any]:
    left = list(done)
    while left:
        ready, left = ray.wait(left)
        for outcome in ray.get(ready):
            if isinstance(outcome, LinrepError):
                for task in (*left, *others):
                    ray.cancel(task)
                raise outcome
            yield outcome


def find_plainly(study: Study, units: Sequence[Unit], place: Place, encoded: Watch = lambda n: None) -> Iterator[UnitCommit]:
    """The same in this process, without Ray."""
    for unit in {unit.coder: unit for unit in units}.values():
        for part in study.parts(unit):
            rows = _encode(study, unit, part, place)
            encoded(*_raised([_turn(study, unit, part, place, rows)]))
    for unit in units:
        begun, parts = time.time(), study.parts(unit)
        # One part at a time: what each gathers is as large as the whole.
        rows, chosen = _raised(list(_settle(study, unit, (_gather(study, unit, part, place) for part in parts))))
        shown = _raised([_fill(study, unit, part, place, chosen) for part in parts])
        yield from _raised([_write(study, unit, place, begun, rows, *shown)])


def _raised(outcomes: list[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, LinrepError):
            raise outcome
    return outcomes


def _encode(study: Study, unit: Unit, part: Part, place: Place) -> int | LinrepError:
    """Rows of a part, whose codes are there now."""

    def encode() -> int:
        coder = study.of(unit).coder
        for m, file in part:
            encode_file(study.store, file, study.wanted[m], coder, place / codes_file(unit.coder, m, file))
        return rows_of(part)

    return or_error(encode)


def _turn(study: Study, unit: Unit, part: Part, place: Place, rows: int | LinrepError) -> int | LinrepError:
    """The same rows, whose codes are there latent by latent now."""
    if isinstance(rows, LinrepError):
        return rows

    def over() -> int:
        turn(study.codes(unit, part, place), study.of(unit).coder.n_latents, study.turned(unit, part, place))
        return rows

    return or_error(over)


def rows_of(part: Part) -> int:
    """Rows of the store that a part holds."""
    return sum(file.rows for _, file in part)


def _gather(study: Study, unit: Unit, part: Part, place: Place) -> Gathered | LinrepError:
    return or_error(lambda: gather(turned(study.turned(unit, part, place)), unit.run, study.known, study.config))


def _choose(study: Study, unit: Unit, *parts: Gathered | LinrepError) -> tuple[Any, Any]:
    return _settle(study, unit, parts)


def _settle(study: Study, unit: Unit, parts: Iterable[Gathered | LinrepError]) -> tuple[Any, Any]:
    """The tables of a run of latents without the examples, and which examples to fill in."""

    config, latents = study.config, study.of(unit)
    whole = Gathered(unit.run[1] - unit.run[0], study.known, config)
    # Outside of what is tried again after a failed read: each part may be taken in only once.
    for part in parts:
        if isinstance(part, LinrepError):
            return part, part
        whole.merge(part)

    def settled() -> tuple[Any, Any]:
        layer, told = config.dictionaries[unit.dictionary].layer, telling(whole, study.known, config)
        tables = {
            "features": feature_table(whole, told, study.known, latents, unit.run, layer, config, _words(study)),
            "labels": label_table(told, study.known, latents, unit.run[0], layer),
        }
        tokens = {m: rates.tokens for m, rates in whole.rates.items()}
        chance = None if whole.alike is None else whole.alike.chance
        return (tables, tokens, chance), choose(whole, study.known, config)

    outcome = or_error(settled)
    return (outcome, outcome) if isinstance(outcome, LinrepError) else outcome


def _words(study: Study) -> Unembedding | None:
    if study.model is None or not study.config.words:
        return None
    return read_unembedding(study.model)


def _fill(study: Study, unit: Unit, part: Part, place: Place, chosen: Examples | LinrepError) -> Any:
    if isinstance(chosen, LinrepError):
        return chosen

    def filled() -> Any:
        return fill(turned(study.turned(unit, part, place)), unit.run, chosen, study.ids, study.n_tokens, study.config)

    return or_error(filled)


def _write(study: Study, unit: Unit, place: Place, begun: float, rows: Any, *shown: Any) -> UnitCommit | LinrepError:
    failed = next((part for part in (rows, *shown) if isinstance(part, LinrepError)), None)
    if failed is not None:
        return failed

    def write() -> UnitCommit:
        tables, tokens, chance = rows
        layer = study.config.dictionaries[unit.dictionary].layer
        own = {**tables, "examples": example_table(shown, study.of(unit), layer)}
        commit = UnitCommit(unit.name, unit.run[1] - unit.run[0], tokens, chance, round(time.time() - begun, 3))
        return write_unit(place, unit, own, commit)

    return or_error(write)
