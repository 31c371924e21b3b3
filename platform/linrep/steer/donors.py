"""Streams at the last token of the prompt, taken from one run and put into another: of images, and of texts in their place.

What answers a question is read from the last token. If a text's stream there serves an image's run as another image's
does, the two modalities say it in the same way: sharing that acts, whatever directions look like.

Source: Geiger et al., "Causal Abstractions of Neural Networks", NeurIPS 2021 (interchange interventions).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.errors import RecipeError
from linrep.sample import unit_hash
from linrep.steer.config import INTERCHANGE, SteerConfig
from linrep.store.blocks import blocks
from linrep.store.layout import Modality
from linrep.store.read import Store
from linrep.store.samples import class_values, read_samples
from linrep.vlm.prompts import filled_in

DONORS = 16
"""Test samples of each class and modality whose streams are kept, at most."""
VIEW = "last"
"""View of the store that donors' streams are read from."""

Says = Callable[[Float[Tensor, "n d"]], Int64[Tensor, " n"]]
"""First token of the answer that follows a stream after the last block."""


@dataclass(frozen=True)
class Donors:
    """Streams at the last token under the question that images are asked.

    Attributes:
        names: The samples, by modality and class.
        streams: Their streams, by sample and layer; one above the harvest's norm limit is missing.
    """

    names: Mapping[tuple[Modality, str], tuple[str, ...]]
    streams: Mapping[tuple[str, int], Float[Tensor, " d"]]

    def stream(self, modality: Modality, name: str, layer: int, recipient: str, drawn_by: str) -> Float[Tensor, " d"]:
        """The stream that a run is given: of the same donor at all layers, and never of the recipient itself.

        Args:
            modality: Of the donor.
            name: Its class.
            layer: Layer k.
            recipient: The sample whose run it is put into.
            drawn_by: What else decides which donor it is.

        Raises:
            LookupError: There is no donor; the message says what is missing.
        """
        others = [donor for donor in self.names.get((modality, name), ()) if donor != recipient]
        if not others:
            raise LookupError(f"no test {modality} of {name} whose own answer names it could give its stream")
        donor = others[int(unit_hash(f"{drawn_by}\0{recipient}", "donor") * len(others))]
        if (donor, layer) not in self.streams:
            raise LookupError(f"the harvest holds no stream of {donor} in the view {VIEW} at layer {layer}")
        return self.streams[donor, layer]


def read_donors(
    store: Store, layers: Sequence[int], names: Sequence[str], right: Mapping[str, int], says: Says | None = None
) -> Donors:
    """The streams of some test samples of some classes: of each class and modality `DONORS`, drawn by a hash.

    A donor that the model itself calls something else would count as a stream that did not act. So those are kept whose own
    stream after the last block begins the answer with the class's name.

    Args:
        store: The activations, with the view last.
        layers: Layers at which streams are put into other runs.
        names: The classes.
        right: First token of each class's name as an answer.
        says: What answer follows a stream after the last block; None keeps all donors, as where that layer is not stored.
    """
    table = store.samples()
    samples, top = read_samples(table), store.manifest.model["n_layers"]
    classes, held = class_values(table, samples), store.manifest.layers
    kept: dict[tuple[Modality, str], tuple[str, ...]] = {}
    streams: dict[tuple[str, int], Tensor] = {}
    modalities: tuple[Modality, ...] = ("image", "text")
    for modality in modalities:
        test = samples.of(modality, "test")
        own = np.flatnonzero(test)
        drawn = {name: _drawn(samples.ids, own[[classes[i] == name for i in own]]) for name in names}
        wanted = np.isin(np.arange(len(classes)), np.concatenate([*drawn.values(), np.empty(0, np.int64)]))
        if not wanted.any():
            continue
        for layer in sorted({*layers, top} & {*held}):
            for block in blocks(store, store.select(VIEW, layer, modality).files, VIEW, wanted):
                streams |= {(samples.ids[i], layer): x for i, x in zip(block.sample, block.x.float(), strict=True)}
        for name, own in drawn.items():
            kept[modality, name] = tuple(samples.ids[i] for i in own)
            if says is not None and top in held and len(own):
                kept[modality, name] = _right(kept[modality, name], streams, top, right[name], says)
    return Donors(kept, streams)


def check_donors(config: SteerConfig, store: Store) -> None:
    """Refuse interchanges of streams that the store does not have, or has under other prompts than images are asked under.

    Raises:
        RecipeError: Names the view or the question that is missing.
    """
    if INTERCHANGE not in config.edits:
        return
    if VIEW not in store.manifest.views:
        raise RecipeError(
            f"steer.edits: {INTERCHANGE} takes streams of the view {VIEW}, and {store.place} has none: harvest it with "
            f"harvest.views, or leave {INTERCHANGE} out"
        )
    found = str(filled_in(store.manifest.harvest)["image_prompt"])
    if found not in [question.prompt for question in config.ask.questions if question.about == "class"]:
        raise RecipeError(
            f"steer.edits: {INTERCHANGE} takes streams that were harvested under {found!r}, and no question about the class is "
            "that: ask it in steer.ask.questions"
        )


def donor_notes(config: SteerConfig, store: Store) -> list[str]:
    """What limits interchanges without forbidding them."""
    top = store.manifest.model["n_layers"]
    if INTERCHANGE not in config.edits or top in store.manifest.layers:
        return []
    return [f"{INTERCHANGE}: the harvest holds no layer {top}, so donors are kept that the model itself calls something else"]


def _drawn(ids: Sequence[str], own: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " n"]:
    return np.array(sorted(own, key=lambda i: unit_hash(ids[int(i)], "donor"))[:DONORS], np.int64)


def _right(donors: Sequence[str], streams: Mapping[tuple[str, int], Tensor], top: int, first: int, says: Says) -> tuple[str, ...]:
    """Those whose stream after the last block begins the answer with a token."""
    there = [donor for donor in donors if (donor, top) in streams]
    if not there:
        return ()
    first_tokens = says(torch.stack([streams[donor, top] for donor in there]))
    return tuple(donor for donor, token in zip(there, first_tokens.tolist(), strict=True) if token == first)
