"""Which samples show what a latent does, and where in them it fires: chosen from what was kept, filled in from the codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, Int64

from linrep.features.columns import Columns
from linrep.features.config import FeaturesConfig
from linrep.features.gather import LatentSums, SampleFacts
from linrep.largest import of_draw, of_strength
from linrep.store.layout import MODALITIES, Modality
from schemas.features import FEATURE_EXAMPLES

KINDS = ("top", "quantile")
_PLACES = 2**32
"""More than there are positions."""
_LISTS = ("positions", "activations", "token_ids", "tiles", "rows", "cols")


@dataclass(frozen=True)
class Chosen:
    """The examples of a run of latents in one modality, by latent, kind, quantile and rank.

    Attributes:
        latent: The latent, numbered from 0 in its run.
        kind: Number of the kind.
        quantile: The quantile, -1 for the top.
        rank: Place within latent, kind and quantile.
        sample: The sample.
        activation: The largest on it.
        position: Where that is.
    """

    latent: Int64[np.ndarray, " e"]
    kind: Int64[np.ndarray, " e"]
    quantile: Int64[np.ndarray, " e"]
    rank: Int64[np.ndarray, " e"]
    sample: Int64[np.ndarray, " e"]
    activation: Float32[np.ndarray, " e"]
    position: Int32[np.ndarray, " e"]

    def of(self, chosen: Bool[np.ndarray, " e"] | Int64[np.ndarray, " c"]) -> "Chosen":
        """Some of them."""
        return Chosen(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def choose(found: LatentSums, known: SampleFacts, config: FeaturesConfig) -> dict[Modality, Chosen]:
    """The examples of each modality.

    The samples of a draw are sorted by activation and cut into equal parts, the quantiles; each gives those that were drawn
    first. The draw is all samples where the latent fires if these are few, and else a fair one, so the cuts are estimates.
    """
    return {m: _choose(found, m, known, config) for m in MODALITIES}


def _choose(found: LatentSums, modality: Modality, known: SampleFacts, config: FeaturesConfig) -> Chosen:
    top = found.top[modality].entries()
    value, rank = of_strength(top.key)
    n = len(rank)
    best = Chosen(
        top.latent, np.zeros(n, np.int64), np.full(n, -1), _rank_within(top.latent), known.by_rank[rank], value, top.position
    )
    drawn = found.drawn[modality].entries()
    value, rank = of_draw(drawn.key)
    # One number a key: a sort of numbers is many times faster than one of several columns.
    order = np.argsort(drawn.latent << 32 | value.view(np.uint32), kind="stable")  # those of one latent come by rank
    latent, value, rank, position = drawn.latent[order], value[order], rank[order], drawn.position[order]
    place, size = _rank_within(latent), np.bincount(latent)[latent] if len(latent) else latent
    quantile = place * config.quantiles // np.maximum(size, 1)
    order = np.argsort((latent * config.quantiles + quantile) << 32 | rank)
    latent, value, rank, position, quantile = latent[order], value[order], rank[order], position[order], quantile[order]
    nth = _rank_within(latent * config.quantiles + quantile)
    fair = Chosen(latent, np.ones(len(nth), np.int64), quantile, nth, known.by_rank[rank], value, position)
    fair = fair.of(nth < config.per_quantile)
    both = Chosen(*(np.concatenate([getattr(best, n), getattr(fair, n)]) for n in best.__dataclass_fields__))
    order = np.argsort(both.latent, kind="stable")  # the top of each before its draw, as they stand in both
    return both.of(order)


def _rank_within(group: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Place of each entry among those of its group; groups stand together."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))


def fill(
    columns: Sequence[Columns],
    run: tuple[int, int],
    chosen: dict[Modality, Chosen],
    ids: pa.Array,
    n_tokens: dict[Modality, Int64[np.ndarray, " s"]],
    config: FeaturesConfig,
) -> pa.Table:
    """The examples whose samples lie in some files, with the tokens where they fire; layer and SAE are left open.

    Args:
        columns: Files of turned codes.
        run: The latents.
        chosen: The examples of all files.
        ids: Names of the store's samples.
        n_tokens: Tokens that each sample has, by modality.
        config: How much to show.
    """
    by_sample = {m: own.of(np.argsort(own.sample, kind="stable")) for m, own in chosen.items()}
    tables = []
    for one in columns:
        own = by_sample[one.shape.modality]
        # The files of a modality are runs of samples: what lies between a file's first and last is in it.
        here = np.arange(*np.searchsorted(own.sample, [one.shape.first, one.shape.last + 1]))
        if len(here):
            tables.append(_fill(one, run, own.of(here), ids, n_tokens[one.shape.modality], config))
    open_schema = pa.schema([field for field in FEATURE_EXAMPLES if field.name not in ("layer", "sae")])
    return pa.concat_tables(tables) if tables else open_schema.empty_table()


def _fill(
    one: Columns, run: tuple[int, int], own: Chosen, ids: pa.Array, n_tokens: np.ndarray, config: FeaturesConfig
) -> pa.Table:
    fired, held, modality = one.fired(run), one.token_rows(), one.shape.modality
    m = len(held.samples)
    which, sample = (np.searchsorted(held.samples, samples) for samples in (fired.sample, own.sample))
    begin, end = held.ends[sample], held.ends[sample + 1]
    # Entries stand by latent, sample and position, tokens by sample and position: what is looked for is a run of either.
    keys, asked = fired.latent * m + which, own.latent * m + sample
    left, right = np.searchsorted(keys, asked), np.searchsorted(keys, asked, side="right")
    of, entry = _ragged(left, right)
    places = np.repeat(np.arange(m), np.diff(held.ends)) * _PLACES + held.position
    if modality == "image":
        of, entry = _strongest(of, entry, fired.value[entry], config.patches)
        values = fired.value[entry]
        shown = np.searchsorted(places, sample[of] * _PLACES + fired.position[entry])
    else:
        fires, active = of * _PLACES + fired.position[entry], fired.value[entry]
        middle = sample * _PLACES + own.position
        of, shown = _ragged(
            np.maximum(np.searchsorted(places, middle - config.around), begin),
            np.minimum(np.searchsorted(places, middle + config.around, side="right"), end),
        )
        values = _values_at(fires, active, of * _PLACES + held.position[shown])
    counts = np.bincount(of, minlength=len(asked))
    lists = {
        "positions": held.position[shown], "activations": values, "token_ids": held.token_id[shown],
        "tiles": held.tile[shown], "rows": held.row[shown], "cols": held.col[shown],
    }  # fmt: skip
    ends = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    nowhere = np.zeros(len(asked) + 1, np.int32)
    columns = {
        "latent": pa.array((own.latent + run[0]).astype(np.int32)),
        "modality": pa.array([modality] * len(asked)),
        "kind": pa.array(np.array(KINDS, object)[own.kind], pa.string()),
        "quantile": pa.array(own.quantile.astype(np.int32), mask=own.quantile < 0),
        "rank": pa.array(own.rank.astype(np.int32)),
        "sample_id": ids.take(pa.array(own.sample)),
        "activation": pa.array(own.activation),
        "position": pa.array(own.position),
        "n_active": pa.array((right - left).astype(np.int32)),
        "n_held": pa.array((end - begin).astype(np.int32)),
        "n_tokens": pa.array(n_tokens[own.sample].astype(np.int32)),
    }
    for name in _LISTS:
        patch = name in ("tiles", "rows", "cols")
        here = modality == "image" or not patch
        columns[name] = pa.ListArray.from_arrays(
            pa.array(ends if here else nowhere), pa.array(lists[name] if here else lists[name][:0])
        )
    schema = pa.schema([FEATURE_EXAMPLES.field(name) for name in columns])
    return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)


def _ragged(left: Int64[np.ndarray, " e"], right: Int64[np.ndarray, " e"]) -> tuple[np.ndarray, np.ndarray]:
    """All numbers from left to right of each example, and the example that each is of."""
    counts = np.maximum(right - left, 0)
    of = np.repeat(np.arange(len(left)), counts)
    ends = counts.cumsum()
    return of, np.arange(len(of)) - np.repeat(ends - counts, counts) + left[of]


def _strongest(of: np.ndarray, entry: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` entries of each example, those of the largest values, in the order in which they stand."""
    if not len(of) or np.bincount(of).max() <= most:
        return of, entry
    order = np.lexsort((-values, of))
    kept = np.sort(order[_rank_within(of[order]) < most])
    return of[kept], entry[kept]


def _values_at(keys: Int64[np.ndarray, " s"], values: Float32[np.ndarray, " s"], asked: Int64[np.ndarray, " n"]) -> np.ndarray:
    """The value at each key that is asked for, 0 where it is not among the keys, which rise."""
    if not len(keys):
        return np.zeros(len(asked), np.float32)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, values[at], np.float32(0))
