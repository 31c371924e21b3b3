"""What the panel of SAEs reads of a workspace: tokens and attribute values of images, and the SAEs that were trained on them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from linrep.artefact import all_in
from linrep.cluster.inputs import HarvestInput, attributes
from linrep.errors import RecipeError
from linrep.places import Place, place
from linrep.recipe import Recipe
from linrep.repository.address import is_address
from linrep.sae.artefact import SAES, open_saes
from linrep.sae.controls import Activations
from linrep.sae.formats import name_of
from linrep.sae.formats import read as read_sae
from linrep.sae.layer import layer_name
from linrep.sae.origin import check_origin
from linrep.sae.panel.data import PanelData, TokenRows, Values
from linrep.sae.sae import Sae
from linrep.sample import unit_hash
from linrep.store.blocks import blocks
from linrep.store.layout import Modality
from linrep.store.read import Store
from linrep.store.samples import CLASS, Samples, class_values, read_samples

SEED = re.compile(r"-s(\d+)$")


@dataclass(frozen=True)
class HarvestRows:
    """A layer of a harvest as SAEs are judged on it.

    Attributes:
        data: Training and held-out images.
        activations: Training rows by modality, for the controls.
        names: The classes.
        of_class: Class of each training image; -1 where it has none.
    """

    data: PanelData
    activations: Activations
    names: tuple[str, ...]
    of_class: Int64[np.ndarray, " s"]


def read_rows(recipe: Recipe, workspace: Place, harvest: HarvestInput, layer: int, most: int) -> HarvestRows:
    """Read a layer's tokens: of at most `most` training and as many held-out images, and as many text rows as image rows.

    Raises:
        RecipeError: The store lacks the layer or tokens, or nothing is known of its images.
    """
    store = harvest.store
    if layer not in store.manifest.layers or "tokens" not in store.manifest.views:
        there = ", ".join(map(str, store.manifest.layers))
        raise RecipeError(f"no tokens of layer {layer} in {store.place}: it has the views {store.manifest.views}, layers {there}")
    table = store.samples()
    samples = read_samples(table)
    classes = class_values(table, samples)
    known: dict[str, Sequence[str | None]] = {CLASS: classes} if any(classes) else {}
    given = attributes(recipe, workspace)
    known |= {} if given is None else given.values(store)
    if CLASS not in known:
        raise RecipeError(f"no image of {store.place} has a class: the panel adds directions from class to class")
    train = _drawn(samples, samples.of("image", "train"), most)
    held = _drawn(samples, samples.of("image", "val") | samples.of("image", "test"), most)
    if not len(train) or not len(held):
        raise RecipeError(f"{store.place} has {len(train)} training and {len(held)} held-out images: the panel needs both")
    values = Values.of(known)
    names = tuple(sorted({name for i in train if (name := classes[i]) is not None}))
    of_class = np.array([-1 if (name := classes[i]) is None else names.index(name) for i in train], np.int64)
    rows = token_rows(store, layer, "image", train)
    both: dict[Modality, Float[Tensor, "n d"]] = {"image": rows.x}
    texts = _drawn(samples, samples.of("text", "train"), most)
    if len(texts):
        both["text"] = token_rows(store, layer, "text", texts).x[: len(rows.x)]
    data = PanelData.of(rows, token_rows(store, layer, "image", held), values.images(train), values.images(held))
    return HarvestRows(data, {m: x for m, x in both.items() if len(x)}, names, of_class)


def token_rows(store: Store, layer: int, modality: Modality, chosen: Int64[np.ndarray, " m"]) -> TokenRows:
    """The tokens of some samples, numbered in their order."""
    number = np.full(len(store.samples()), -1, np.int64)
    number[chosen] = np.arange(len(chosen))
    files = store.select("tokens", layer, modality).files
    found = [(block.x.float(), number[block.sample]) for block in blocks(store, files, "tokens", number >= 0)]
    x = torch.cat([x for x, _ in found]) if found else torch.zeros(0, store.manifest.width)
    owner = torch.from_numpy(np.concatenate([own for _, own in found])) if found else torch.zeros(0, dtype=torch.int64)
    return TokenRows(x, owner, len(chosen))


def _drawn(samples: Samples, wanted: Bool[np.ndarray, " s"], most: int) -> Int64[np.ndarray, " m"]:
    own = sorted(np.flatnonzero(wanted).tolist(), key=lambda i: unit_hash(samples.ids[i], "panel"))
    return np.array(sorted(own[:most]), np.int64)


def find_saes(workspace: Place, store: Store, layer: int, asked: Sequence[str]) -> dict[str, dict[str, Mapping[str, Sae]]]:
    """SAEs by what they are called without their seed, and by their whole name; each by modality, "" for both.

    Args:
        workspace: Where SAEs of the harvest are looked for.
        store: The harvest.
        layer: Layer k.
        asked: Names of the workspace's SAEs, or how they begin; or folders, files and addresses of others. None: all there are.

    Raises:
        RecipeError: There is none of that name, two differ and have one name, or one is of another layer, model or width.
        FormatError: A folder holds no SAE.
    """
    there = _trained(workspace, store, layer)
    found: dict[str, Mapping[str, Sae]] = {} if asked else dict(there)
    for one in asked:
        own = {name: sae for name, sae in there.items() if name == one or name.startswith(f"{one}-")}
        if own:
            found |= own
        elif is_address(one) or place(one).exists():
            found[name_of(one)] = {"": read_sae(one)}
        else:
            raise RecipeError(
                f"--sae {one}: no SAE of layer {layer} in {workspace / 'saes'} is called so, and no folder is there; "
                f"there are {', '.join(there) or 'none: run jobs/train_sae.py with the same recipe first'}"
            )
    if not found:
        raise RecipeError(f"no SAE of layer {layer} in {workspace / 'saes'}: run jobs/train_sae.py with the same recipe first")
    by_stem: dict[str, dict[str, Mapping[str, Sae]]] = {}
    for name, saes in sorted(found.items()):
        for sae in saes.values():
            check_origin(sae, name, layer, store.manifest.width, store.manifest.model, "--sae", False)
        by_stem.setdefault(SEED.sub("", name), {})[name] = saes
    return by_stem


def _trained(workspace: Place, store: Store, layer: int) -> dict[str, Mapping[str, Sae]]:
    found: dict[str, Mapping[str, Sae]] = {}
    for artefact in all_in(SAES, workspace):
        if artefact.parents.get("harvest") != store.manifest.digest or layer_name(layer) not in artefact.done():
            continue
        for name in artefact.about.names:
            saes = open_saes(artefact.place / layer_name(layer), name)
            if name in found and [s.digest for s in found[name].values()] != [s.digest for s in saes.values()]:
                raise RecipeError(f"two SAEs of layer {layer} in {workspace / 'saes'} are called {name}: name one by its folder")
            found[name] = saes
    return found
