"""From the features' tables and codes to what is asked about each latent: the only place that knows both stages."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from linrep.errors import LinrepError
from linrep.features.artefact import Features
from linrep.features.codes import read_codes
from linrep.interpret.config import InterpretConfig
from linrep.interpret.draw import Examples, Row, build_case, choose_latents, split_examples
from linrep.interpret.firing import Firing
from linrep.interpret.views import Case, Latent
from linrep.places import Place
from linrep.store.layout import MODALITIES, Modality
from linrep.store.read import Store

Key = tuple[int, str]
File = tuple[Modality, Place]
"""A file of codes."""
FILES_AT_ONCE = 8
"""Files of codes that a task reads."""
MANY_FILES = 1000
"""Files of codes from which on they are read on a cluster."""


def saes(features: Features) -> dict[Key, str]:
    """Layer and name of each SAE, and the folder of its codes."""
    return {(own.layer, own.name): own.folder for own in features.saes}


def check_codes(features: Features) -> None:
    """Make sure that the codes of every SAE are there: without them every latent would seem silent on every sample.

    Raises:
        StoreError: Some are gone; the message says how to have them again.
    """
    for sae in saes(features).values():
        for modality in MODALITIES:
            features.codes(sae, modality)


def chosen_latents(features: Features, config: InterpretConfig) -> dict[Key, list[int]]:
    """The latents that are asked about, of each SAE."""
    table = features.frame()
    return {key: choose_latents(_of(table, key), config.latents, config.seed) for key in saes(features)}


def counts(features: Features) -> tuple[dict[str, int], dict[str, int]]:
    """Latents that fire at all, and all latents, by layer/SAE."""
    table = features.frame()
    own = {f"{layer}/{name}": _of(table, (layer, name)) for layer, name in saes(features)}
    fires = pl.col("samples_image") + pl.col("samples_text") > 0
    return {key: len(rows.filter(fires)) for key, rows in own.items()}, {key: len(rows) for key, rows in own.items()}


def build_cases(
    features: Features,
    store: Store,
    config: InterpretConfig,
    chosen: Mapping[Key, Sequence[int]] | None = None,
    on_ray: bool = False,
) -> Iterator[Case]:
    """All that is asked, SAE by SAE; reads the codes of each once.

    Args:
        features: What is interpreted.
        store: Its activations.
        config: How much is asked.
        chosen: Latents of each SAE; None for those that are drawn.
        on_ray: Whether the codes are read by tasks on the cluster that this process is connected to.
    """
    table = features.frame()
    ids: list[str] = store.samples()["sample_id"].to_pylist()
    number = {name: i for i, name in enumerate(ids)}
    for key, latents in (chosen_latents(features, config) if chosen is None else chosen).items():
        rows = {row["latent"]: row for row in _of(table, key).filter(pl.col("latent").is_in(latents)).iter_rows(named=True)}
        examples = _examples(features, key, set(latents), config)
        asked: dict[Modality, set[int]] = {
            m: {number[row["sample_id"]] for own in examples.values() if m in own for row in (*own[m].shown, *own[m].scored)}
            for m in MODALITIES
        }
        near = {other for row in rows.values() for other in row["neighbours"] or []}
        firing = Firing({*latents, *near}, len(ids), {m: sorted(asked[m]) for m in MODALITIES})
        files: list[File] = [(m, file) for m in MODALITIES for file in features.codes(saes(features)[key], m)]
        _read_on_ray(files, firing) if on_ray else _read(files, firing)
        for latent in latents:
            yield build_case(Latent(*key, latent), rows[latent], examples.get(latent, {}), firing, number, ids, config)


def _of(table: pl.DataFrame, key: Key) -> pl.DataFrame:
    return table.filter((pl.col("layer") == key[0]) & (pl.col("sae") == key[1]))


def _examples(features: Features, key: Key, latents: set[int], config: InterpretConfig) -> dict[int, dict[Modality, Examples]]:
    """The examples of some latents, read a run of latents at a time."""
    found: dict[int, dict[Modality, Examples]] = {}
    for run in features.about.runs.values():
        own = sorted(latent for latent in latents if run.first <= latent < run.last)
        if (run.layer, run.sae) != key or not own:
            continue
        frame = pl.DataFrame(pl.from_arrow(features.examples(key[1], run.first, run.last, key[0])))
        frame = frame.filter(pl.col("latent").is_in(own))
        for (latent, modality), rows in frame.group_by(["latent", "modality"], maintain_order=True):
            some: list[Row] = list(rows.iter_rows(named=True))
            found.setdefault(int(str(latent)), {})[_modality(modality)] = split_examples(some, config)
    return found


def _modality(value: object) -> Modality:
    return "image" if value == "image" else "text"


def many(features: Features) -> bool:
    """Whether the codes are so many that a cluster reads them sooner than it starts."""
    return sum(sum(own.values()) for own in features.about.codes.values()) >= MANY_FILES


def _read(files: Sequence[File], firing: Firing) -> None:
    for modality, file in files:
        firing.add(modality, read_codes(file))


def _read_on_ray(files: Sequence[File], firing: Firing) -> None:
    """The same by tasks, a run of files each. What they find is merged bit by bit: their order is of no matter."""
    import ray

    from linrep.cluster.fan_out import fan_out, task

    read, empty = task(_found, num_cpus=1), ray.put(firing)
    runs = [files[i : i + FILES_AT_ONCE] for i in range(0, len(files), FILES_AT_ONCE)]
    for found in fan_out(runs, lambda run: read.remote(run, empty), 2 * int(ray.cluster_resources().get("CPU", 1))):
        firing.merge(found)


def _found(files: Sequence[File], empty: Firing) -> Firing | LinrepError:
    from linrep.cluster.fan_out import or_error

    def read() -> Firing:
        own = empty.blank()
        _read(files, own)
        return own

    return or_error(read)
