"""Which samples show what a latent does, and where in them it fires: chosen from what was kept, filled in from the codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, Int64

from linrep.features.codes import Coded, read_codes
from linrep.features.config import FeaturesConfig
from linrep.features.gather import Gathered, Known
from linrep.largest import of_draw, of_strength
from linrep.places import Place
from linrep.store.layout import MODALITIES, Modality
from schemas.features import FEATURE_EXAMPLES

KINDS = ("top", "quantile")
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

    def of(self, chosen: Bool[np.ndarray, " e"]) -> "Chosen":
        """Some of them."""
        return Chosen(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def choose(found: Gathered, known: Known, config: FeaturesConfig) -> dict[Modality, Chosen]:
    """The examples of each modality.

    The samples of a draw are sorted by activation and cut into equal parts, the quantiles; each gives those that were drawn
    first. The draw is all samples where the latent fires if these are few, and else a fair one, so the cuts are estimates.
    """
    return {m: _choose(found, m, known, config) for m in MODALITIES}


def _choose(found: Gathered, modality: Modality, known: Known, config: FeaturesConfig) -> Chosen:
    top = found.top[modality].entries()
    value, rank = of_strength(top.key)
    n = len(rank)
    best = Chosen(
        top.latent, np.zeros(n, np.int64), np.full(n, -1), _rank_within(top.latent), known.by_rank[rank], value, top.position
    )
    drawn = found.drawn[modality].entries()
    value, rank = of_draw(drawn.key)
    order = np.lexsort((rank, value, drawn.latent))
    latent, value, rank, position = drawn.latent[order], value[order], rank[order], drawn.position[order]
    place, size = _rank_within(latent), np.bincount(latent)[latent] if len(latent) else latent
    quantile = place * config.quantiles // np.maximum(size, 1)
    order = np.lexsort((rank, quantile, latent))
    latent, value, rank, position, quantile = latent[order], value[order], rank[order], position[order], quantile[order]
    nth = _rank_within(latent * config.quantiles + quantile)
    fair = Chosen(latent, np.ones(len(nth), np.int64), quantile, nth, known.by_rank[rank], value, position)
    fair = fair.of(nth < config.per_quantile)
    both = Chosen(*(np.concatenate([getattr(best, n), getattr(fair, n)]) for n in best.__dataclass_fields__))
    order = np.lexsort((both.rank, both.quantile, both.kind, both.latent))
    return Chosen(*(getattr(both, n)[order] for n in both.__dataclass_fields__))


def _rank_within(group: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Place of each entry among those of its group; groups stand together."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))


def fill(
    files: Sequence[tuple[Modality, Place]],
    run: tuple[int, int],
    chosen: dict[Modality, Chosen],
    ids: pa.Array,
    n_tokens: dict[Modality, Int64[np.ndarray, " s"]],
    config: FeaturesConfig,
) -> pa.Table:
    """The examples whose samples lie in some files, with the tokens where they fire; layer and dictionary are left open.

    Args:
        files: Files of codes.
        run: The latents.
        chosen: The examples of all files.
        ids: Names of the store's samples.
        n_tokens: Tokens that each sample has, by modality.
        config: How much to show.
    """
    tables = []
    for modality, file in files:
        coded = read_codes(file).within(*run)
        there = np.isin(chosen[modality].sample, np.unique(coded.sample))
        if there.any():
            tables.append(_fill(coded, chosen[modality].of(there), modality, run[0], ids, n_tokens[modality], config))
    open_schema = pa.schema([field for field in FEATURE_EXAMPLES if field.name not in ("layer", "dictionary")])
    return pa.concat_tables(tables) if tables else open_schema.empty_table()


def _fill(
    coded: Coded, own: Chosen, modality: Modality, first: int, ids: pa.Array, n_tokens: np.ndarray, config: FeaturesConfig
) -> pa.Table:
    f = int(max(own.latent.max(), coded.latents.max(initial=0))) + 1
    token = coded.token
    # By sample, then latent; the sort is stable, so a latent's tokens stay in the order of their positions.
    by_latent = np.argsort(coded.sample[token] * f + coded.latents, kind="stable")
    keys = (coded.sample[token] * f + coded.latents)[by_latent]
    asked = own.sample * f + own.latent
    left, right = np.searchsorted(keys, asked), np.searchsorted(keys, asked, side="right")
    begin, end = np.searchsorted(coded.sample, own.sample), np.searchsorted(coded.sample, own.sample, side="right")
    if modality == "image":
        of, at = _ragged(left, right)
        entry = by_latent[at]
        of, entry = _strongest(of, entry, coded.values[entry], config.patches)
        shown, values = token[entry], coded.values[entry]
    else:
        # Samples' tokens stand by position: a window of positions is a run of them.
        places = coded.sample * 2**32 + coded.position
        middle = own.sample * 2**32 + own.position
        of, shown = _ragged(
            np.maximum(np.searchsorted(places, middle - config.around), begin),
            np.minimum(np.searchsorted(places, middle + config.around, side="right"), end),
        )
        values = _values_at(coded, token, shown, own.latent[of], f)
    counts = np.bincount(of, minlength=len(asked))
    lists = {
        "positions": coded.position[shown], "activations": values, "token_ids": coded.token_id[shown],
        "tiles": coded.tile[shown], "rows": coded.row[shown], "cols": coded.col[shown],
    }  # fmt: skip
    ends = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    nowhere = np.zeros(len(asked) + 1, np.int32)
    columns = {
        "latent": pa.array((own.latent + first).astype(np.int32)),
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
    """No more than so many entries of each example, those of the largest values, in the order in which they stand."""
    if not len(of) or np.bincount(of).max() <= most:
        return of, entry
    order = np.lexsort((-values, of))
    kept = np.sort(order[_rank_within(of[order]) < most])
    return of[kept], entry[kept]


def _values_at(coded: Coded, token: np.ndarray, shown: np.ndarray, latent: np.ndarray, f: int) -> Float32[np.ndarray, " n"]:
    """Activations of given latents on given tokens, 0 where they are silent."""
    if not len(coded.latents):
        return np.zeros(len(shown), np.float32)
    keys, asked = token * f + coded.latents, shown * f + latent
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, coded.values[at], np.float32(0))
