"""The SAEs that a recipe names, read and checked against a store, each with its control of random directions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from linrep.encoder import Latents
from linrep.errors import RecipeError, StoreError
from linrep.named_sae import NamedSae
from linrep.sae.controls import isotropic
from linrep.sae.formats import name_of
from linrep.sae.formats import read as read_sae
from linrep.sae.origin import check_origin
from linrep.sae.sae import Sae
from linrep.store.layout import MODALITIES, Modality
from linrep.store.read import Store
from linrep.store.selection import as_array, as_tensor, raw_kind

SAMPLE = 2048
"""Tokens of each modality that the random SAE's centre, and the number of its active latents, are taken from."""


@runtime_checkable
class SaeReference(Protocol):
    """A section of the recipe that names an SAE."""

    @property
    def path(self) -> str:
        """Where it lies."""
        ...

    @property
    def layer(self) -> int:
        """The layer that it is to be used on."""
        ...

    @property
    def insist(self) -> bool:
        """Whether to take it against what it says of itself."""
        ...


class GivenSae(NamedTuple):
    """An SAE that was given.

    Attributes:
        sae: The SAE.
        origin: What it says that it is of, and what was insisted on against it, as results keep it.
    """

    sae: Sae
    origin: dict[str, Any]


def read_sae_for(named: SaeReference, store: Store, field: str) -> GivenSae:
    """An SAE that is of the layer, the model and the width of a store, as every stage reads one that it is given.

    Args:
        named: Which.
        store: The activations that it will see.
        field: Field of the recipe that names it, for messages.

    Raises:
        RecipeError: It is of another layer, model or width.
        FormatError: There is no SAE where one should be.
    """
    sae, manifest = read_sae(named.path), store.manifest
    return GivenSae(sae, check_origin(sae, named.path, named.layer, manifest.width, manifest.model, field, named.insist))


def read_saes(saes: Sequence[NamedSae], store: Store, section: str) -> tuple[GivenSae, ...]:
    """The SAEs that a section names, read.

    Args:
        saes: Which.
        store: The activations that they will see.
        section: Section of the recipe, for messages.

    Raises:
        RecipeError: The store lacks an SAE's layer or tokens, or it is of another layer, model or width.
        FormatError: There is no SAE where one should be.
    """
    for named in saes:
        if named.layer not in store.manifest.layers or "tokens" not in store.manifest.views:
            raise RecipeError(f"{section}.saes: no tokens of layer {named.layer} in {store.place}, which {named.path} needs")
    return tuple(read_sae_for(named, store, f"{section}.saes.{i}") for i, named in enumerate(saes))


def with_control(named: NamedSae, sae: Sae, store: Store, seed: int) -> tuple[Latents, Latents]:
    """The SAE, and random directions about the mean of each modality, of which as many are active as of the SAE's latents."""
    rows: dict[Modality, Tensor] = {}
    for modality in MODALITIES:
        own: list[Tensor] = []
        selection = store.select("tokens", named.layer, modality, special=False)
        n = 0
        for batch in selection.batches(["vector"], SAMPLE):
            raw = as_array(batch["vector"].slice(0, SAMPLE - n), store.manifest.width, raw_kind(store.manifest.dtype)).copy()
            own.append(as_tensor(raw, store.manifest.dtype).float())
            n += len(raw)
            if n >= SAMPLE:
                break
        finite = torch.cat(own) if own else torch.zeros(0, store.manifest.width)
        finite = finite[finite.isfinite().all(1)]
        if len(finite):
            rows[modality] = finite
    if not rows:
        raise StoreError(
            f"layer {named.layer} of {store.place} holds no token rows of finite numbers: there is nothing to give an SAE"
        )
    n_active: dict[Modality, int] = {
        m: sae.rule.n_active or max(1, round(float((sae.encode(x) > 0).sum(1).float().mean()))) for m, x in rows.items()
    }
    control = isotropic(rows, sae.n_latents, n_active, seed)
    either = next(iter(control.values()))
    own_latents, other = undrawn(named, sae)
    return own_latents, replace(other, sae=control.get("image", either), decoder=either.decoder, of_texts=control.get("text"))


def undrawn(named: NamedSae, sae: Sae) -> tuple[Latents, Latents]:
    """The SAE, and in the place of its control the same latents under the control's name: for plans, which compute nothing."""
    name = name_of(named.path)
    return Latents(name, sae, sae.decoder), Latents(f"{name}/random", sae, sae.decoder)
