"""Recording and editing the residual stream at any layer, on prefill and in cached generation, leaving no hook behind.

Hooks on one layer run in the order in which their context managers were entered: `with edit(...), record(...)` records the
edited stream, `with record(...), edit(...)` records what the edit was given. Layers after the edited one feel it either way.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.vlm.batch import Batch
from linrep.vlm.load import VLM
from linrep.vlm.sites import entered
from linrep.vlm.taps import before, called

Edit = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]
RowEdit = Callable[[Float[Tensor, "n d"], Int[Tensor, " n"]], Float[Tensor, "n d"]]


@torch.inference_mode()
def forward(vlm: VLM, batch: Batch) -> None:
    """Run the model as deep as it was loaded, without logits and without a cache; what you want of it, `record`."""
    vlm.inner(**batch.inputs(), use_cache=False)


@contextmanager
def record(
    vlm: VLM, layers: Iterable[int], take: Callable[[int, Float[Tensor, "b t d"]], Any] | None = None
) -> Iterator[dict[int, Any]]:
    """The residual stream at some layers, for each forward pass inside the context.

    Args:
        vlm: The model.
        layers: Layers 0..reach of the loaded model, see `linrep.vlm.sites`.
        take: Called inside the pass as take(layer, stream), padded positions included; what it returns is kept instead
            of the stream, so that only reductions stay in memory. The stream is the model's own tensor: leave it unchanged.

    Yields:
        A mapping from layer to what was taken (the stream itself without `take`) in the latest forward pass.

    Raises:
        ValueError: The loaded model does not reach a layer.
    """
    taken: dict[int, Any] = {}

    def watch(layer: int) -> Callable[[Tensor], None]:
        def hook(h: Tensor) -> None:
            taken[layer] = h.detach() if take is None else take(layer, h)

        return hook

    with ExitStack() as stack:
        for layer in sorted(set(layers)):
            stack.enter_context(before(entered(vlm.model, layer), watch(layer)))
        yield taken


@contextmanager
def edit(vlm: VLM, edits: Mapping[int, Edit], mask: Bool[Tensor, "b t"], generated: bool = False) -> Iterator[None]:
    """Change the residual stream at exactly the masked positions, in every forward pass inside the context.

    Works for a plain forward pass and for `generate`, with or without a cache.

    Args:
        vlm: The model.
        edits: For each layer a function from the stream at the masked positions, in the order of `mask.nonzero()`, to what it
            shall be there.
        mask: Positions of the prompt to edit, padding included in its shape.
        generated: Edit also every position after the prompt, in all rows.

    Raises:
        ValueError: The loaded model does not reach a layer; or, from the pass, the mask has another number of rows or is longer
            than the prompt.
    """
    with edit_rows(vlm, {layer: _ignoring_rows(change) for layer, change in edits.items()}, mask, generated):
        yield


@contextmanager
def edit_rows(vlm: VLM, edits: Mapping[int, RowEdit], mask: Bool[Tensor, "b t"], generated: bool = False) -> Iterator[None]:
    """As `edit`, with functions that also get the row of the batch each vector belongs to, so that rows can differ."""
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be a boolean [batch, positions] tensor, got {mask.dtype} of shape {tuple(mask.shape)}")
    chosen = _Chosen(mask.to(vlm.device), generated)

    def change(apply: RowEdit) -> Callable[[Tensor], Tensor | None]:
        def hook(h: Tensor) -> Tensor | None:
            rows, positions = chosen.here(h)
            if len(rows) == 0:
                return None
            edited = h.clone()  # the unedited tensor may be held by the recorder or by the graph
            at = rows.to(h.device), positions.to(h.device)  # a model may lie on several devices; what edits it, on the first
            edited[at] = apply(h[at].to(vlm.device), rows).to(h)
            return edited

        return hook

    with ExitStack() as stack:
        stack.enter_context(called(vlm.text, chosen.start))
        for layer, apply in edits.items():
            stack.enter_context(before(entered(vlm.model, layer), change(apply)))
        yield


class _Chosen:
    """Which rows and positions of the current pass are to be edited; finds them once a pass, not once a layer."""

    def __init__(self, mask: Bool[Tensor, "b t"], generated: bool) -> None:
        self.mask, self.generated, self.past = mask, generated, 0
        self._key: tuple[int, int] | None = None
        self._found: tuple[Tensor, Tensor] | None = None

    def start(self, kwargs: dict[str, Any]) -> None:
        """Note how many positions the cache already holds: they come before the ones in this pass."""
        cache = kwargs.get("past_key_values")
        self.past = 0 if cache is None else int(cache.get_seq_length())

    def here(self, h: Float[Tensor, "b t d"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Rows and positions, the latter counted within this pass."""
        (b, t), (b_mask, t_mask) = h.shape[:2], self.mask.shape
        if b != b_mask:
            raise ValueError(
                f"the mask has {b_mask} rows, the forward pass {b}; expand the mask to one row a sequence (beams too)"
            )
        if self.past == 0 and t < t_mask:
            raise ValueError(f"the mask covers {t_mask} positions, the forward pass only {t}")
        if self._key != (self.past, t) or self._found is None:
            sel = self.mask[:, self.past : self.past + t]
            if sel.shape[1] < t:
                new = torch.full((b, t - sel.shape[1]), self.generated, dtype=torch.bool, device=sel.device)
                sel = torch.cat([sel, new], dim=1)
            rows, positions = sel.nonzero(as_tuple=True)
            self._key, self._found = (self.past, t), (rows, positions)
        return self._found


def _ignoring_rows(change: Edit) -> RowEdit:
    return lambda h, rows: change(h)
