"""Features on Ray: files are encoded and parts turned over; runs of latents are gathered by parts, merged and filled in."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from linrep.artefact import Artefact
from linrep.cluster.actors import one_gpu, own_device, resources
from linrep.cluster.fan_out import fan_out, first_error, memory, or_error, results, room, task
from linrep.cluster.handed import handed
from linrep.cluster.stage import Step
from linrep.encoder import on_device
from linrep.errors import LinrepError
from linrep.features.artefact import FeaturesAbout, codes_unit, write_codes
from linrep.features.codes import codes_file, encode_file
from linrep.features.columns import turn, turned
from linrep.features.examples import Chosen, choose, fill
from linrep.features.gather import LatentSums, bytes_per_latent, gather
from linrep.features.regions import ChosenRegions, Folds, overlap_folds
from linrep.features.study import PARTS, Part, Study, Unit
from linrep.features.tables import example_table, feature_table, label_scores, label_table, overlap_table, with_regions
from linrep.harvest.config import Pool
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.store.commit import WrittenFile
from linrep.store.layout import Modality
from linrep.vlm.unembed import Unembedding, read_unembedding
from schemas.features import FEATURE_OVERLAPS

ENCODE_BYTES = 2**30
"""Memory of a task that encodes: a block of rows, its dense activations, the codes of a file. The SAE is shared on a node."""
UNITS_AHEAD = 2
"""Units under way at once, at most: one gathers while another is filled in."""

Wanted = tuple[dict[Modality, Chosen], ChosenRegions | None]
"""What the second look at the codes fills in: examples, and overlaps with regions."""


def find_features(study: Study, todo: Sequence[str], here: Artefact[FeaturesAbout], pool: Pool) -> Iterator[UnitCommit | Step]:
    """Work through some units on the cluster that this process is connected to; commits come in no fixed order.

    Args:
        study: What to do; sent to each worker once.
        todo: Units that are not committed yet.
        here: The artefact.
        pool: Says which share of a GPU a task holds that encodes.

    Raises:
        LinrepError: Whatever a worker raised of its kind.
    """
    study = replace(study, latents=handed(study.latents))
    shared, sums = ray.put(study), bytes_of(study)
    encode = task(_encode, num_cpus=1, num_gpus=one_gpu(pool, resources()), memory=memory(ENCODE_BYTES))
    over, write = (task(work, num_cpus=1) for work in (_turn, _write))
    collect, show = (task(work, num_cpus=1, memory=memory(sums)) for work in (_gather, _fill))
    settle = task(_choose, num_cpus=1, num_returns=2, memory=memory(2 * sums))
    asked = UnitRequest.of(study, todo, here)

    def encoded(unit: Unit, part: Part) -> list[Any]:
        rows = [encode.remote(shared, unit, file, here.place) for file in part]
        return [*rows, over.remote(shared, unit, part, here.place, *rows)] if unit.folder in asked.turned else rows

    # Encoding comes first for every SAE: later passes read files, and wait for all of their SAE's.
    yield from asked.done(results([one for unit in asked.coded for part in study.parts(unit) for one in encoded(unit, part)]))

    def submit(unit: Unit) -> Any:
        begun, parts = time.time(), study.parts(unit)
        found = [collect.remote(shared, unit, part, here.place) for part in parts]
        rows, chosen = settle.remote(shared, unit, *found)
        shown = [show.remote(shared, unit, part, here.place, chosen) for part in parts]
        return write.remote(shared, unit, here, begun, rows, *shown)

    yield from fan_out(asked.units, submit, min(UNITS_AHEAD, room(PARTS * sums)))


def find_plainly(study: Study, todo: Sequence[str], here: Artefact[FeaturesAbout]) -> Iterator[UnitCommit | Step]:
    """The same in this process, without Ray."""
    asked = UnitRequest.of(study, todo, here)

    def encoded() -> Iterator[tuple[str, int]]:
        for unit in asked.coded:
            for part in study.parts(unit):
                rows = _raised([_encode(study, unit, file, here.place) for file in part])
                yield from rows
                yield from _raised([_turn(study, unit, part, here.place, *rows)] if unit.folder in asked.turned else [])

    yield from asked.done(encoded())
    for unit in asked.units:
        begun, parts = time.time(), study.parts(unit)
        # One part at a time: what each gathers is as large as the whole.
        rows, chosen = _raised(list(_settle(study, unit, (_gather(study, unit, part, here.place) for part in parts))))
        shown = _raised([_fill(study, unit, part, here.place, chosen) for part in parts])
        yield from _raised([_write(study, unit, here, begun, rows, *shown)])


@dataclass(frozen=True)
class UnitRequest:
    """What some units ask for.

    Attributes:
        study: The study.
        here: The artefact.
        units: Runs of latents to work through.
        coded: A unit of each SAE whose codes must be there.
        turned: Folders of SAEs whose codes must be there latent by latent.
        committing: Folders of SAEs whose codes are to be committed.
    """

    study: Study
    here: Artefact[FeaturesAbout]
    units: list[Unit]
    coded: list[Unit]
    turned: set[str]
    committing: set[str]

    @classmethod
    def of(cls, study: Study, todo: Sequence[str], here: Artefact[FeaturesAbout]) -> "UnitRequest":
        """What is to do."""
        units = [unit for unit in study.units if unit.name in todo]
        turned = {unit.folder for unit in units}
        committing = {unit.folder for unit in study.coded if codes_unit(unit) in todo}
        return cls(study, here, units, [u for u in study.coded if u.folder in turned | committing], turned, committing)

    @property
    def rows(self) -> int:
        """Rows of the store that are encoded."""
        return sum(rows_of(part) for unit in self.coded for part in self.study.parts(unit))

    def done(self, parts: Iterable[tuple[str, int]]) -> Iterator[UnitCommit | Step]:
        """Report encoded files and turned parts, folder and rows of each, and commit the codes of an SAE once they are whole."""
        left, started = {unit.folder: self._tasks(unit) for unit in self.coded}, time.monotonic()
        units = {unit.folder: unit for unit in self.coded}
        whole = [folder for folder, n in left.items() if n == 0]
        for folder, rows in parts:
            yield Step(rows)
            left[folder] -= 1
            whole += [folder] if left[folder] == 0 else []
            yield from self._commits(whole, units, started)
        yield from self._commits(whole, units, started)

    def _tasks(self, unit: Unit) -> int:
        """Files to encode, and parts to turn over."""
        parts = self.study.parts(unit)
        return sum(map(len, parts)) + (len(parts) if unit.folder in self.turned else 0)

    def _commits(self, whole: list[str], units: Mapping[str, Unit], started: float) -> Iterator[UnitCommit]:
        while whole:
            folder = whole.pop()
            if folder in self.committing:
                yield write_codes(self.here, self.study, units[folder], started)


def _raised(outcomes: list[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, LinrepError):
            raise outcome
    return outcomes


def _encode(study: Study, unit: Unit, file: tuple[Modality, WrittenFile], place: Place) -> tuple[str, int] | LinrepError:
    """Folder of codes and rows of a file, whose codes are there now."""

    def encode() -> tuple[str, int]:
        modality, own = file
        sae = on_device(study.of(unit).of(modality), own_device())
        encode_file(study.store, own, study.wanted[modality], sae, place / codes_file(unit.folder, modality, own))
        return unit.folder, own.rows

    return or_error(encode)


def _turn(
    study: Study, unit: Unit, part: Part, place: Place, *encoded: tuple[str, int] | LinrepError
) -> tuple[str, int] | LinrepError:
    """Turn the codes of a part over: they are there latent by latent now. No rows are counted again."""
    failed = first_error(encoded)
    if failed is not None:
        return failed

    def over() -> tuple[str, int]:
        turn(study.codes(unit, part, place), study.of(unit).sae.n_latents, study.turned(unit, part, place))
        return unit.folder, 0

    return or_error(over)


def bytes_of(study: Study) -> int:
    """Bytes of what one part gathers of the longest run of latents."""
    longest = max((unit.run[1] - unit.run[0] for unit in study.units), default=0)
    return longest * bytes_per_latent(study.known, study.config)


def rows_of(part: Part) -> int:
    """Rows of the store that a part holds."""
    return sum(file.rows for _, file in part)


def _gather(study: Study, unit: Unit, part: Part, place: Place) -> LatentSums | LinrepError:
    return or_error(lambda: gather(turned(study.turned(unit, part, place)), unit.run, study.known, study.config))


def _choose(study: Study, unit: Unit, *parts: LatentSums | LinrepError) -> tuple[Any, Any]:
    return _settle(study, unit, parts)


def _settle(study: Study, unit: Unit, parts: Iterable[LatentSums | LinrepError]) -> tuple[Any, Any]:
    """The tables of a run of latents without the examples, and which examples to fill in."""

    config, latents = study.config, study.of(unit)
    whole = LatentSums(unit.run[1] - unit.run[0], study.known, config)
    # Outside of what is tried again after a failed read: each part may be taken in only once.
    for part in parts:
        if isinstance(part, LinrepError):
            return part, part
        whole.merge(part)

    def settled() -> tuple[Any, Any]:
        layer, labels = study.layer(unit), label_scores(whole, study.known, config)
        tables = {
            "features": feature_table(whole, labels, study.known, latents, unit.run, layer, config, _words(study)),
            "labels": label_table(labels, study.known, latents, unit.run[0], layer),
        }
        tokens = {m: rates.tokens for m, rates in whole.rates.items()}
        chance = None if whole.alike is None else whole.alike.chance
        facts = study.known.regions
        regions = None if whole.overlaps is None or facts is None else whole.overlaps.choose(facts)
        return (tables, tokens, chance, regions), (choose(whole, study.known, config), regions)

    outcome = or_error(settled)
    return (outcome, outcome) if isinstance(outcome, LinrepError) else outcome


def _words(study: Study) -> Unembedding | None:
    if study.model is None or not study.config.words:
        return None
    return read_unembedding(study.model)


def _fill(study: Study, unit: Unit, part: Part, place: Place, chosen: Wanted | LinrepError) -> Any:
    if isinstance(chosen, LinrepError):
        return chosen

    def filled() -> Any:
        (examples, regions), facts, files = chosen, study.known.regions, turned(study.turned(unit, part, place))
        table = fill(files, unit.run, examples, study.ids, study.n_tokens, study.config)
        if regions is None or facts is None:
            return table, None
        return table, overlap_folds(files, unit.run, regions, facts, study.known.rank)

    return or_error(filled)


def _write(
    study: Study, unit: Unit, here: Artefact[FeaturesAbout], begun: float, rows: Any, *shown: Any
) -> UnitCommit | LinrepError:
    failed = first_error((rows, *shown))
    if failed is not None:
        return failed

    def write() -> UnitCommit:
        tables, tokens, chance, regions = rows
        latents, layer, facts = study.of(unit), study.layer(unit), study.known.regions
        overlaps = FEATURE_OVERLAPS.empty_table()
        if regions is not None and facts is not None:
            folds = Folds(regions, facts.n)
            for _, some in shown:
                folds.merge(some)
            overlaps = overlap_table(regions, folds, facts, latents, unit.run[0], layer)
        examples = example_table([table for table, _ in shown], latents, layer)
        features = with_regions(tables["features"], overlaps)
        own = {**tables, "features": features, "overlaps": overlaps, "examples": examples}
        cost = {"tokens": tokens, "chance": chance}
        return here.write(unit.name, own, time.time() - begun, unit.run[1] - unit.run[0], cost)

    return or_error(write)
