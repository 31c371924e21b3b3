"""Run micro-batches through the model and reduce every layer to what the views and the statistics need."""

import copy
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from linrep.errors import ModelError
from linrep.harvest.batches import micro_batches
from linrep.harvest.clock import Clock, DeviceTurns, Turn
from linrep.harvest.config import HarvestConfig
from linrep.harvest.select import Choice, choose, choose_patches
from linrep.harvest.sums import CountedPositions, LayerLimits, LayerReduction, layer_sums
from linrep.store.layout import GROUPS, NO_LAYER, TOWER, Folder, Modality, StoredSite, View, folder_of, site_group, view_and_site
from linrep.store.limits import Limits
from linrep.store.statistics import Sums
from linrep.vlm.batch import collate
from linrep.vlm.hooks import forward
from linrep.vlm.load import VLM
from linrep.vlm.patches import Patches, patches_of
from linrep.vlm.prepared import Prepared
from linrep.vlm.recorder import record_sites
from linrep.vlm.sites import Site
from schemas.activations import vectors_of

STORED = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Rows:
    """What a micro-batch adds to the store.

    Attributes:
        tables: Rows by view of a site, layer and modality.
        sums: Sums by layer and group, see `linrep.store.layout.site_group`.
        n_tokens: Positions, padding not counted.
    """

    tables: dict[tuple[Folder, int, Modality], pa.Table]
    sums: dict[tuple[int, str], Sums]
    n_tokens: int


class At(NamedTuple):
    """Where in the model: a site at a layer, `NO_LAYER` where it has none."""

    site: StoredSite
    layer: int

    @property
    def kind(self) -> str:
        """What its rows are chosen from: the positions of the stream, or the patches of the tower."""
        return TOWER if self.site == TOWER else "stream"

    @property
    def in_model(self) -> Site:
        """The site as a model has it."""
        return Site(self.site, None if self.layer == NO_LAYER else self.layer)


class Harvester:
    """Turns prepared samples into rows. Several threads may use it at once: the model runs one micro-batch at a time.

    Args:
        vlm: The model, loaded at least as deep as the deepest layer asked for; one block more where other sites are.
        config: What to keep.
        layers: Layers to record; the vision tower is recorded beside them where the config names it.
        tokens_per_batch: Most positions in a micro-batch, padding included.
        limits: Norms above which tokens are kept apart, see `linrep.harvest.calibrate`; None looks for none.

    Attributes:
        vlm: The model.
        config: What to keep.
        tokens_per_batch: Most positions in a micro-batch.
        schema: Of the rows, but for those of the vision tower.
        views: Views to keep of each site and layer.
        limits: Norms of each of them above which positions are kept apart.
    """

    def __init__(
        self, vlm: VLM, config: HarvestConfig, layers: Sequence[int], tokens_per_batch: int, limits: Limits | None = None
    ) -> None:
        self.vlm, self.config, self.tokens_per_batch = vlm, config.stored_as(vlm.family.storage), tokens_per_batch
        self.schema = vectors_of("residual", vlm.card.width, self.config.stored)
        self._model_in_use, self._turns = threading.Lock(), DeviceTurns(vlm.devices)
        layers = [layer for layer in layers if layer != NO_LAYER]
        there = [At("residual", layer) for layer in layers]
        there += [At(site, layer) for site in config.sites if site != TOWER for layer in layers if layer < vlm.card.n_layers]
        views: dict[At, Collection[View]] = dict.fromkeys(there, config.views)
        if TOWER in config.sites:
            views[At(TOWER, NO_LAYER)] = tuple(view for view in config.views if view != "last")
        self._want(views, limits)

    def _want(self, views: Mapping[At, Collection[View]], limits: Limits | None) -> None:
        self.views = {at: frozenset(own) for at, own in views.items()}
        self.limits = {at: LayerLimits.of(limits, at.layer, at.site) for at in views}
        tokens = {at: torch.from_numpy(own.tokens) for at, own in self.limits.items()}
        self._limits_on = {device: {at: _move(one, device) for at, one in tokens.items()} for device in self.vlm.devices}

    def narrowed(self, folders: Mapping[int, Collection[Folder]], limits: Limits | None = None) -> "Harvester":
        """One that keeps less, or looks for other norms, with the same model and one at a time with this one.

        Args:
            folders: Views of sites to keep of each layer; others are not recorded.
            limits: Norms above which tokens are kept apart.
        """
        views: dict[At, set[View]] = {}
        for layer, own in folders.items():
            for view, site in map(view_and_site, own):
                views.setdefault(At(site, layer), set()).add(view)
        return self._narrowed(views, limits)

    def of_last(self) -> "Harvester":
        """One that keeps last positions alone, if this one does, with the same sums of all."""
        return self._narrowed({at: own & {"last"} for at, own in self.views.items()}, None)

    def _narrowed(self, views: Mapping[At, Collection[View]], limits: Limits | None) -> "Harvester":
        some = copy.copy(self)  # with the lock on the model
        kept = tuple(view for view in self.config.views if any(view in own for own in views.values()))
        some.config = self.config.model_copy(update={"views": kept})
        some._want(views, limits)
        return some

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers to record."""
        return tuple(dict.fromkeys(at.layer for at in self.views))

    @property
    def precision(self) -> str:
        """Number format that the model runs in: float32, bfloat16 or float16."""
        return str(self.vlm.dtype).removeprefix("torch.")

    def __call__(self, prepared: Iterable[Prepared], clock: Clock | None = None) -> Iterator[Rows]:
        """The rows of some samples, a micro-batch at a time.

        The copy of one micro-batch to the host overlaps the next one's forward pass: its rows come out one turn late.

        Args:
            prepared: The samples, taken as there is room, see `micro_batches`.
            clock: Counts where the time goes.
        """
        waiting: _Pending | None = None
        clock = Clock() if clock is None else clock
        for batch in micro_batches(prepared, self.tokens_per_batch):
            started = self._start(batch, clock)
            if waiting is not None:
                yield self._finish(waiting)
            waiting = started
        if waiting is not None:
            yield self._finish(waiting)

    @torch.inference_mode()
    def _start(self, batch: list[Prepared], clock: Clock) -> "_Pending":
        with clock.measure("copy"):
            choices, patches = {"stream": choose(batch, self.config)}, self._patches(batch)
            if patches:
                choices[TOWER] = choose_patches([one for one in batch if one.pixels is not None], patches, self.config)
            on_device = {(kind, device): _to_device(own, device) for kind, own in choices.items() for device in self.vlm.devices}
            inputs = collate(batch, self.vlm)
        wanted = {at: choices[at.kind].of(views) for at, views in self.views.items() if at.kind in choices}
        reduced: dict[At, LayerReduction] = {}

        def take(at: At, h: Float[Tensor, "_ _ _"]) -> None:
            limits, own = self._limits_on[h.device][at], on_device[at.kind, h.device]
            x = h if at.site != TOWER else self._by_sample(h, [len(some) for some in patches])
            reduced[at] = _to_host(reduce(x, wanted[at], own, STORED[self.config.stored], limits))

        sites = {at.in_model: at for at in self.views}
        with (
            self._model_in_use,
            record_sites(self.vlm, sites, lambda site, h: take(sites[site], h)),
            self._turns.turn() as turn,
        ):
            forward(self.vlm, inputs)
        return _Pending(choices, reduced, sum(map(len, batch)), turn, clock)

    def _patches(self, batch: Sequence[Prepared]) -> list[Patches]:
        """The vision tower's patches of each sample that shows images, where they are asked for."""
        if At(TOWER, NO_LAYER) not in self.views:
            return []
        return [patches_of(one, self.vlm.card) for one in batch if one.pixels is not None]

    def _by_sample(self, h: Float[Tensor, "tiles n w"], counts: Sequence[int]) -> Float[Tensor, "b p w"]:
        """The tower's patches of each sample that shows images, padded to the most.

        Raises:
            ModelError: They are not as many, or not as wide, as the family says.
        """
        found, width = h.flatten(0, 1), self.vlm.family.tower_width(self.vlm.inner.config)
        if found.shape != (sum(counts), width):
            raise ModelError(
                f"the vision tower of this {self.vlm.family.title} gives {len(found):,} patches of width {found.shape[1]}, its "
                f"family says {sum(counts):,} of width {width}: leave tower out of harvest.sites, or mend tower_tokens there"
            )
        return pad_sequence(list(found.split(list(counts))), batch_first=True)

    def _finish(self, pending: "_Pending") -> Rows:
        pending.turn.settle(pending.clock)
        with pending.clock.measure("copy"):
            return self._rows(pending)

    def _rows(self, pending: "_Pending") -> Rows:
        tables, sums = {}, {}
        for at, reduced in pending.reduced.items():
            choice = pending.choices[at.kind]
            counted = CountedPositions.of(choice, reduced, self.limits[at])
            for key, (stored, norms) in reduced.rows.items():
                kept = choice.views[key]
                counts = counted.columns(kept) if key[0] == "pooled" else None
                schema = vectors_of(at.site, stored.shape[1], self.config.stored)
                table = kept.table(schema, _bytes_of(_settled(stored)), _settled(norms).numpy(), counts)
                if counts is not None and not counts["n_tokens"].all():  # no mean where no token counts
                    table = table.filter(pa.array(counts["n_tokens"] > 0))
                tables[folder_of(key[0], at.site), at.layer, key[1]] = table
            found = layer_sums(choice, reduced, counted)
            sums |= {(at.layer, site_group(group, at.site)): own for group, own in found.items()}
        return Rows(tables, sums, pending.n_tokens)


@dataclass(frozen=True)
class _Pending:
    choices: dict[str, Choice]
    reduced: dict[At, LayerReduction]
    n_tokens: int
    turn: Turn
    clock: Clock


@dataclass(frozen=True)
class _OnDevice:
    """The choice as tensors: the group of each position, a 0-1 weight per group and position, the flat index of each kept row."""

    group: Int[Tensor, "b t"]
    weights: Float[Tensor, "b groups t"]
    flat: dict[tuple[View, Modality], Tensor]


def _to_device(choice: Choice, device: torch.device) -> _OnDevice:
    group = torch.from_numpy(choice.group)
    weights = torch.stack([group == g for g in range(len(GROUPS))], dim=1).float()
    flat = {}
    for (view, modality), kept in choice.views.items():
        stride = len(GROUPS) if view == "pooled" else choice.group.shape[1]
        flat[view, modality] = _move(torch.from_numpy(kept.sample * stride + kept.position), device)
    return _OnDevice(_move(group, device), _move(weights, device), flat)


def _move(x: Tensor, device: torch.device) -> Tensor:
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


def reduce(
    h: Float[Tensor, "b t d"], choice: Choice, on_device: _OnDevice, stored: torch.dtype, limits: Float32[Tensor, " groups_1"]
) -> LayerReduction:
    """Everything that is kept of one layer; runs on the model's device inside the forward pass.

    Args:
        h: The residual stream, or what another site holds, padding included.
        choice: What to keep.
        on_device: The same as tensors.
        stored: Number format of the store.
        limits: Norm above which a position of each group is kept apart; the last one is for padding.
    """
    x = h.float()
    squared = x * x
    norms = squared.sum(-1).sqrt()
    # A position that the stored format cannot hold is counted, and left out of the sums: 0 times inf would spoil every group's.
    # The largest magnitude decides: cheaper than casting the whole layer. One of high norm is left out by its weight.
    finite = (x.abs().amax(-1) <= torch.finfo(stored).max) & norms.isfinite()
    weights = on_device.weights * (finite & (norms <= limits[on_device.group])).unsqueeze(1)
    total, squares = (weights @ torch.where(finite.unsqueeze(-1), own, 0) for own in (x, squared))
    means = (total / weights.sum(-1, keepdim=True).clamp(min=1)).flatten(0, 1)
    positions = h.flatten(0, 1)
    rows = {}
    for key in choice.views:
        index = on_device.flat[key]
        if key[0] == "pooled":
            kept = means.index_select(0, index)
            rows[key] = kept.to(stored), kept.norm(dim=-1)
        else:
            rows[key] = positions.index_select(0, index).to(stored), norms.flatten().index_select(0, index)
    return LayerReduction(rows, norms, total, squares, ~finite)


def _to_host(reduced: LayerReduction) -> LayerReduction:
    """Start the copies to pinned memory; on the CPU nothing moves."""

    def move(x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return x
        host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        return host.copy_(x, non_blocking=True)

    rows = {key: (move(stored), move(norms)) for key, (stored, norms) in reduced.rows.items()}
    return LayerReduction(rows, move(reduced.norms), move(reduced.total), move(reduced.squares), move(reduced.nonfinite))


def _settled(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The tensor in ordinary memory.

    Rows wait until a row group is full, a group for every file. In pinned memory, which a GPU's copies landed in, they would hold
    gigabytes of what the system cannot swap: they move, and the next micro-batch uses the pinned memory again.
    """
    return x.clone() if x.is_pinned() else x


def _bytes_of(x: Shaped[Tensor, "n d"]) -> Shaped[np.ndarray, "n d"]:
    """The tensor's memory as an array; bfloat16, which numpy lacks, as 16-bit words."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
