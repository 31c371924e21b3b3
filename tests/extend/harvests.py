"""Harvests in this process: the real stage and workers, without a cluster and without MLflow, with a count of the work."""

import contextlib
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from linrep.cluster import harvest, run_harvest
from linrep.cluster import stage as stages
from linrep.corpora import Corpora
from linrep.errors import LinrepError
from linrep.harvest.calibrate import calibration_turns
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.harvester import Harvester
from linrep.places import place
from linrep.recipe import Recipe
from linrep.store.layout import View
from linrep.store.read import Store
from linrep.vlm.config import ModelConfig
from tests.cluster.test_stage import UNTRACKED
from tests.stores import files_in

POOL = Pool(tokens_per_batch=400, threads=1, max_skipped=0.5)
CONFIG = HarvestConfig(layers=(0, 2), tokens_per_sample=7, chunk_size=4)
IMAGES, TEXTS, PAIRS = 10, 5, 6
"""Samples of each corpus; a pair is one with its image and one alone."""


def changed(**fields: object) -> HarvestConfig:
    """The section with other values."""
    return HarvestConfig.model_validate({**CONFIG.model_dump(), **fields})


def without(corpora: Corpora, *names: str) -> Corpora:
    """The corpora that are left."""
    return corpora.model_copy(update=dict.fromkeys(names))


@dataclass
class Work:
    """What the model did.

    Attributes:
        samples: Samples that ran through it for the store, by the depth that it was loaded to.
        measured: Corpora and layers whose usual norms were measured.
        rows: Rows computed, by layer and view.
        clusters: Clusters started.
    """

    samples: Counter[int] = field(default_factory=Counter)
    measured: set[tuple[str, int]] = field(default_factory=set)
    rows: Counter[tuple[int, View]] = field(default_factory=Counter)
    clusters: int = 0

    def forget(self) -> None:
        """Count from here on."""
        self.samples, self.measured, self.rows, self.clusters = Counter(), set(), Counter(), 0


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Harvests run in this process, and count."""
    done = Work()
    load, models = harvest.load_planned, {}

    def loaded(model, digest, reach, pool, device):
        key = model, reach, pool.precision
        if key not in models:
            models[key] = load(model, digest, reach, pool, device)
        return models[key]

    def harvest_chunks(job, works, pool, begun_in=None, clock=None) -> Iterator[object]:
        actor = harvest.ChunkHarvester(job, pool, begun_in)
        for one in works:
            out = actor({"work": np.array([pickle.dumps(one)], dtype=object)})
            timed = pickle.loads(out["outcome"][0])
            if isinstance(timed, LinrepError):
                raise timed
            outcome, _ = timed
            if not isinstance(outcome, harvest.LostChunk):
                done.samples[actor._harvester.vlm.depth] += outcome.n_samples
            yield outcome

    def usual_norms(job, chunks, pool, begun_in=None):
        turns = calibration_turns(chunks)
        done.measured |= {(corpus, layer) for corpus in turns for layer in job.layers}
        counted = Counter(done.rows)
        found = harvest._calibrate(job, turns, pool, begun_in)
        done.rows = counted
        if isinstance(found, LinrepError):
            raise found
        return found

    class Counting(Harvester):
        def _finish(self, pending):
            rows = super()._finish(pending)
            done.rows.update({(layer, view): len(table) for (view, layer, _), table in rows.tables.items()})
            return rows

    @contextlib.contextmanager
    def cluster():
        done.clusters += 1
        yield

    monkeypatch.setattr(harvest, "load_planned", loaded)
    monkeypatch.setattr(harvest, "harvest_chunks", harvest_chunks)
    monkeypatch.setattr(harvest, "usual_norms", usual_norms)
    monkeypatch.setattr(harvest, "Harvester", Counting)
    monkeypatch.setattr(harvest, "TAKEN_AT_ONCE", 1)
    monkeypatch.setattr(stages.tracking, "run", lambda *args: contextlib.nullcontext(UNTRACKED))
    monkeypatch.setattr(stages.tracking.Run, "reads", lambda *args: None)
    monkeypatch.setattr(stages.tracking, "uri_of", lambda workspace, thing: UNTRACKED.uri)
    monkeypatch.setattr(stages, "check_services", lambda *args: None)
    monkeypatch.setattr(run_harvest, "check_services", lambda *args: None)
    monkeypatch.setattr(stages, "cluster", cluster)
    monkeypatch.setattr(run_harvest, "cluster", contextlib.nullcontext)
    return done


def run(
    workspace: Path | str, corpora: Corpora, model: ModelConfig, config: HarvestConfig, name: str = "t", pool: Pool = POOL
) -> Store:
    """The complete harvest of a recipe."""
    recipe = Recipe(name=name, corpora=corpora, model=model, harvest=config, pool=pool)
    return run_harvest.run_harvest(recipe, place(workspace)).artefact.store


def contents(store: Store, but: Sequence[str] = ()) -> dict[str, bytes]:
    """The bytes of all tables of a store, by path; commits and manifest hold dates and times."""
    folder = Path(store.place.path)
    return {name: (folder / name).read_bytes() for name in files_in(folder) if name.endswith(".parquet") and name not in but}


def state(store: Store) -> dict[str, tuple[bytes, int]]:
    """Every file of a store: its bytes, and when it was changed."""
    folder = Path(store.place.path)
    return {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in files_in(folder)}
