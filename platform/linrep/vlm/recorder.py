"""Recording at any site of a model, as `linrep.vlm.hooks.record` does for the residual stream, leaving no hook behind."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.vlm.load import VLM
from linrep.vlm.sites import Site, block, entered
from linrep.vlm.taps import after, before, called, result_of


@contextmanager
def record_sites(vlm: VLM, sites: Iterable[Site], take: Callable[[Site, Tensor], Any] | None = None) -> Iterator[dict[Site, Any]]:
    """What is at some sites, for each forward pass inside the context.

    Sites of the language model have a vector at each position, float[b, t, d], padded ones included. `projector` has one for
    each image token of the batch, float[i, d], row by row, so that they lie as in `batch.image_mask`. `tower` has those of each
    tile of each image, float[tiles, n, w], see `Family.tower_tokens`. A pass without an image has neither.

    Args:
        vlm: The model.
        sites: Where, see `linrep.vlm.sites`.
        take: Called inside the pass as take(site, vectors); what it returns is kept instead of the vectors. They are the model's
            own tensor: leave it unchanged.

    Yields:
        A mapping from site to what was taken (the vectors themselves without `take`) in the latest forward pass.

    Raises:
        ValueError: The loaded model does not reach a layer.
        ModelError: It is not known what a block of this model adds.
    """
    taken: dict[Site, Any] = {}

    def see(site: Site, h: Tensor) -> None:
        taken[site] = h.detach() if take is None else take(site, h)

    with ExitStack() as stack:
        stack.enter_context(called(vlm.inner, lambda _: taken.clear()))
        for site in dict.fromkeys(sites):
            stack.enter_context(_tap(vlm, site, partial(see, site)))
        yield taken


def _tap(vlm: VLM, site: Site, see: Callable[[Tensor], None]) -> AbstractContextManager[None]:
    family, model = vlm.family, vlm.inner
    if site.name == "projector":
        return result_of(model, "get_image_features", lambda found: see(_rows(found.pooler_output)))
    if site.name == "tower":
        return after(family.tower(model), lambda *call: see(family.tower_patches(model, *call)))
    assert site.layer is not None
    if site.name == "residual":
        return before(entered(vlm.model, site.layer), see)
    attention, mlp = family.adding(block(vlm.model, site.layer))
    # Attention also gives its weights; so does an MLP of experts that of their choice.
    return after(
        attention if site.name == "attention" else mlp,
        lambda args, kwargs, output: see(output[0] if isinstance(output, tuple) else output),
    )


def _rows(features: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Float[Tensor, "i d"]:
    """The features of a batch's images, one after the other; families give a list of images, or all in one tensor."""
    parts = [features] if isinstance(features, Tensor) else features
    return torch.cat([part.flatten(0, -2) for part in parts])
