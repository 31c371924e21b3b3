"""Which positions of a micro-batch each view keeps, and the columns that describe them; the same for every layer.

Of the vision tower a patch stands for a position: the choice is made of the samples that show images, padded to the most patches.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, Int64

from linrep.harvest.config import HarvestConfig
from linrep.store.layout import GROUPS, MODALITIES, Modality, View
from linrep.store.write import vector_column
from linrep.vlm.patches import Patches
from linrep.vlm.prepared import Prepared, Role

GROUP_OF_ROLE = np.array([GROUPS.index("special"), GROUPS.index("text"), GROUPS.index("image"), GROUPS.index("image")])
"""Statistics group of each `Role`."""

GroupIndex = Int64[np.ndarray, "b t"]
NO_GROUP = -1
"""Group of padding."""


@dataclass(frozen=True)
class ViewRows:
    """The rows that one view keeps of a micro-batch for one modality.

    Attributes:
        sample: Row of the micro-batch that each came from.
        position: Position in the sequence, or among the patches; for means the group's number among `GROUPS`.
        columns: The columns of the store that do not depend on the layer.
    """

    sample: Int64[np.ndarray, " n"]
    position: Int64[np.ndarray, " n"]
    columns: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.sample)

    def table(
        self,
        schema: pa.Schema,
        vectors: np.ndarray,
        norms: Float32[np.ndarray, " n"],
        counts: Mapping[str, Int32[np.ndarray, " n"]] | None = None,
    ) -> pa.Table:
        """The rows with a layer's vectors, norms, and what was counted there."""
        counted = {name: pa.array(values) for name, values in (counts or {}).items()}
        columns = {**self.columns, **counted, "norm": pa.array(norms, pa.float32()), "vector": vector_column(vectors)}
        arrays = [columns.get(f.name, pa.nulls(len(self), f.type)) for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)


@dataclass(frozen=True)
class Choice:
    """What a micro-batch of b sequences, padded to t positions (or patches of the tower), contributes.

    Attributes:
        group: Group of each position as an index into `GROUPS`, `NO_GROUP` for padding.
        counts: Positions of each group per sequence.
        views: The rows of each view and modality, empty ones left out.
    """

    group: GroupIndex
    counts: Int64[np.ndarray, "b groups"]
    views: dict[tuple[View, Modality], ViewRows]

    def of(self, views: Collection[View]) -> "Choice":
        """The same with the rows of some views alone."""
        return replace(self, views={key: rows for key, rows in self.views.items() if key[0] in views})


def choose(batch: Sequence[Prepared], config: HarvestConfig) -> Choice:
    """Decide what to keep of a micro-batch.

    Args:
        batch: Sequences in the order of the model's batch, padded on the right.
        config: Views, and how many tokens the tokens view draws.
    """
    length = max(map(len, batch))
    group = np.full((len(batch), length), NO_GROUP)
    for i, prepared in enumerate(batch):
        group[i, : len(prepared)] = GROUP_OF_ROLE[prepared.role]
    counts = np.stack([(group == g).sum(1) for g in range(len(GROUPS))], axis=1)
    views: dict[tuple[View, Modality], ViewRows] = {}
    for m, modality in enumerate(MODALITIES):
        if "pooled" in config.views:
            views["pooled", modality] = _pooled(batch, counts, m)
        if "tokens" in config.views:
            views["tokens", modality] = _tokens(batch, modality, config)
        if "last" in config.views:
            views["last", modality] = _last(batch, modality)
    return Choice(group, counts, {key: kept for key, kept in views.items() if len(kept)})


def choose_patches(batch: Sequence[Prepared], patches: Sequence[Patches], config: HarvestConfig) -> Choice:
    """Decide what to keep of the vision tower's patches.

    Means are over all patches but those of padding. Single ones are kept all, or, where tokens are drawn, those that are a part
    of a drawn image token.

    Args:
        batch: Samples that show images, in the order of the model's batch.
        patches: The patches of each.
        config: Views, and how many tokens the tokens view draws.
    """
    group = np.full((len(batch), max(map(len, patches))), NO_GROUP)
    for own, some in zip(group, patches, strict=True):
        own[: len(some)] = np.where(some.padding, GROUPS.index("special"), GROUPS.index("image"))
    counts = np.stack([(group == g).sum(1) for g in range(len(GROUPS))], axis=1)
    views: dict[tuple[View, Modality], ViewRows] = {}
    if "pooled" in config.views:
        views["pooled", "image"] = _pooled(batch, counts, GROUPS.index("image"))
    if "tokens" in config.views:
        views["tokens", "image"] = _patches(batch, patches, config)
    return Choice(group, counts, {key: kept for key, kept in views.items() if len(kept)})


def _patches(batch: Sequence[Prepared], patches: Sequence[Patches], config: HarvestConfig) -> ViewRows:
    kept = []
    for prepared, own in zip(batch, patches, strict=True):
        tokens = prepared.role >= Role.IMAGE
        drawn = _draw(prepared, tokens, config)
        kept.append(np.arange(len(own)) if len(drawn) == tokens.sum() else np.flatnonzero(np.isin(own.position, drawn)))
    sample = np.repeat(np.arange(len(batch)), [len(k) for k in kept])

    def gather(name: str) -> np.ndarray:
        return np.concatenate([getattr(own, name)[k] for own, k in zip(patches, kept, strict=True)])

    patch, position = np.concatenate(kept), gather("position")
    columns = {
        **_of_samples(batch, sample),
        "patch": pa.array(patch.astype(np.int32)),
        "position": pa.array(position.astype(np.int32), mask=position < 0),
        **{name: pa.array(gather(name)) for name in ("tile", "row", "col", "image")},
        "is_special": pa.array(gather("padding")),
    }
    return ViewRows(sample, patch, columns)


def _pooled(batch: Sequence[Prepared], counts: Int64[np.ndarray, "b groups"], group: int) -> ViewRows:
    sample = np.flatnonzero(counts[:, group])
    return ViewRows(sample, np.full_like(sample, group), _of_samples(batch, sample))


def _tokens(batch: Sequence[Prepared], modality: Modality, config: HarvestConfig) -> ViewRows:
    kept = [_draw(p, (p.role >= Role.IMAGE) == (modality == "image"), config) for p in batch]
    sample = np.repeat(np.arange(len(batch)), [len(k) for k in kept])
    position = np.concatenate(kept).astype(np.int64)
    return ViewRows(sample, position, _of_positions(batch, sample, kept))


def _last(batch: Sequence[Prepared], modality: Modality) -> ViewRows:
    chosen = [i for i, p in enumerate(batch) if (p.pixels is not None) == (modality == "image")]
    kept = [np.array([len(p) - 1]) if i in set(chosen) else np.empty(0, np.int64) for i, p in enumerate(batch)]
    sample = np.array(chosen, np.int64)
    return ViewRows(sample, np.array([len(batch[i]) - 1 for i in chosen], np.int64), _of_positions(batch, sample, kept))


def _draw(prepared: Prepared, eligible: Bool[np.ndarray, " t"], config: HarvestConfig) -> Int64[np.ndarray, " n"]:
    """The eligible positions, or as many of them as asked for, the same draw for the same sample on every machine."""
    positions = np.flatnonzero(eligible)
    if config.tokens_per_sample is None or len(positions) <= config.tokens_per_sample:
        return positions
    seed = hashlib.sha256(f"{config.seed}\0{prepared.sample.id}".encode()).digest()
    draw = np.random.default_rng(np.frombuffer(seed, np.uint32)).choice(positions, config.tokens_per_sample, replace=False)
    return np.sort(draw)


def _of_samples(batch: Sequence[Prepared], sample: Int64[np.ndarray, " n"]) -> dict[str, pa.Array]:
    samples = [p.sample for p in batch]
    columns = {
        "sample_id": pa.array([s.id for s in samples], pa.string()),
        "label": pa.array([s.label for s in samples], pa.int32()),
        "split": pa.array([s.split for s in samples], pa.string()),
    }
    index = pa.array(sample)
    return {name: column.take(index) for name, column in columns.items()}


def _of_positions(
    batch: Sequence[Prepared], sample: Int64[np.ndarray, " n"], kept: list[Int64[np.ndarray, " _"]]
) -> dict[str, pa.Array]:
    def gather(name: str) -> np.ndarray:
        return np.concatenate([getattr(p, name)[k] for p, k in zip(batch, kept, strict=True)])

    role = gather("role")
    return {
        **_of_samples(batch, sample),
        "position": pa.array(np.concatenate(kept).astype(np.int32)),
        "token_id": pa.array(gather("input_ids").astype(np.int32)),
        **{name: _or_null(gather(name)) for name in ("tile", "row", "col", "image")},
        "is_newline": pa.array(role == Role.NEWLINE),
        "is_special": pa.array(role == Role.TEMPLATE),
    }


def _or_null(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.int16), mask=values < 0)
