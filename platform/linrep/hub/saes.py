"""SAEs of a workspace as a model repository: a folder each in SAELens' layout, a card, and the recipe."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as LocalPath
from typing import Any

from linrep import artefact
from linrep.artefact import Artefact
from linrep.cluster.sae_names import whole_name
from linrep.errors import LinrepError, StoreError
from linrep.explorer.saes import card_lines
from linrep.hub.bundle import (
    CARD,
    RECIPE,
    Bundle,
    Content,
    Wishes,
    content_of,
    hub_name,
    paths_in,
    recipe_of,
    recipe_text,
    shortened,
)
from linrep.hub.sae_card import SharedSae, SharedSaes, folder_card, repository_card
from linrep.places import Place
from linrep.repository.files import Listing
from linrep.sae.artefact import EVALUATIONS, SAES, Saes
from linrep.sae.formats import saelens
from linrep.sae.layer import layer_name
from linrep.store.manifest import Manifest, read_manifest

FOLDER = re.compile(r"layer-\d{3,}/[\w.-]+")


@dataclass(frozen=True)
class SaeChoice:
    """Which SAEs of a workspace are meant.

    Attributes:
        recipe: Name of their recipe, or of their folder; empty where there is one.
        names: Their names, or how these begin; empty for all.
        layers: Their layers; empty for all.
    """

    recipe: str = ""
    names: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()


def bundle_saes(workspace: Place, repository: str, choice: SaeChoice, wishes: Wishes, there: Listing | None) -> Bundle:
    """The files of a model repository of SAEs.

    Args:
        workspace: Where they were trained.
        repository: OWNER/NAME, for the card.
        choice: Which.
        wishes: What the person says about them.
        there: What the repository holds already: the card goes on listing it.

    Raises:
        StoreError: There are none, or several recipes' to choose from.
        RecipeError: A name is no SAE's, or several ones'.
        LinrepError: They are damaged.
    """
    saes = _open(workspace, choice.recipe)
    chosen = [(layer, name, folder, saelens.read(folder)) for layer, name, folder in _chosen(saes, choice)]
    if not chosen:
        raise StoreError(f"the SAEs of {saes.place} are not there any more: run jobs/train_sae.py with the same recipe again")
    harvest, recipe = _harvest(workspace, saes), recipe_of(workspace, saes.manifest.name)
    path = str(chosen[0][3].about.get("model_name") or "")
    base = wishes.base_model or (None if LocalPath(path).expanduser().is_dir() else hub_name(path))
    called = base or shortened(path) or "a model"
    measured = _measured(saes)
    files: dict[str, Content] = {}
    shared = []
    for layer, name, folder, sae in chosen:
        own = SharedSae(f"{layer_name(layer)}/{folder.name}", layer, sae, measured(layer, name))
        shared.append(own)
        files[f"{own.folder}/{saelens.CONFIG}"] = _config(folder / saelens.CONFIG, called)
        for file in (saelens.WEIGHTS, saelens.SPARSITY):
            if (folder / file).is_file():
                files[f"{own.folder}/{file}"] = content_of(folder / file)
        files[f"{own.folder}/{CARD}"] = folder_card(own, repository, called).encode()
    others = _others(there, [own.folder for own in shared])
    evaluation = _evaluation(saes)
    asked = None if evaluation is None else evaluation.manifest.config
    about = SharedSaes(repository, shared, others, saes, harvest, called, base, wishes, asked)
    files |= {CARD: repository_card(about).encode()} | ({} if recipe is None else {RECIPE: recipe_text(recipe)})
    notes = [
        *([] if wishes.license else ["no licence is named, so nobody may use it: --license apache-2.0, for example"]),
        *([] if base else [f"the model is called {called}, which is no name on the hub: --base-model OWNER/NAME names it"]),
        *([] if evaluation is not None else ["they are not evaluated: run jobs/train_sae.py with the same recipe first"]),
        *(
            []
            if recipe is not None
            else [f"the workspace remembers no recipe called {saes.manifest.name}, or several: none is sent"]
        ),
    ]
    paths = {workspace.path, *paths_in(recipe or {}), *paths_in(path)}
    return Bundle("model", f"{len(shared)} SAE{'s' * (len(shared) > 1)} of {called}", files, tuple(notes), tuple(paths))


def _open(workspace: Place, recipe: str) -> Saes:
    there = [one for one in artefact.all_in(SAES, workspace) if one.complete and recipe in ("", one.manifest.name, one.name)]
    if not there:
        which = f" of {recipe}" if recipe else ""
        raise StoreError(f"no complete SAEs{which} in {workspace}: run jobs/train_sae.py with its recipe first")
    if len(there) > 1:
        raise StoreError(f"{workspace} holds SAEs of several recipes, name one with --recipe: {', '.join(o.name for o in there)}")
    return there[0]


def _chosen(saes: Saes, choice: SaeChoice) -> Iterator[tuple[int, str, Place]]:
    """Layer, name and folder of the SAEs that are meant; one for each modality where they are scaled apart."""
    about = saes.about
    names = [whole_name(name, about.names, "--sae") for name in choice.names] or about.names
    for layer in choice.layers:
        if layer not in about.layers:
            raise StoreError(f"no SAEs of layer {layer} in {saes.place}: there are layers {', '.join(map(str, about.layers))}")
    for layer in choice.layers or about.layers:
        for name in dict.fromkeys(names):
            for folder in (saes.place / layer_name(layer) / own for own in (name, f"{name}-image", f"{name}-text")):
                if (folder / saelens.CONFIG).is_file():
                    yield layer, name, folder


def _config(file: Place, called: str) -> Content:
    """cfg.json, with the model's name in the place of a path of this machine."""
    content = file.read_bytes()
    value = json.loads(content)
    metadata = value.get("metadata", {})
    if metadata.get("model_name") in (None, called):
        return content_of(file)
    return (json.dumps({**value, "metadata": {**metadata, "model_name": called}}, indent=1, ensure_ascii=False) + "\n").encode()


def _evaluation(saes: Saes) -> Artefact[Any] | None:
    there = [one for one in artefact.all_in(EVALUATIONS, saes.place) if one.complete]
    return max(there, key=lambda one: one.manifest.finished, default=None)


def _measured(saes: Saes) -> Any:
    """Gives what the newest evaluation found of an SAE, by layer and name."""
    evaluation = _evaluation(saes)
    if evaluation is None:
        return lambda layer, name: {}
    tables = {name: evaluation.table(name) for name in EVALUATIONS.tables}
    return lambda layer, name: card_lines(tables, layer, name)


def _harvest(workspace: Place, saes: Saes) -> Manifest | None:
    folder = workspace / "harvests"
    for name in folder.names():
        if name.endswith(f"-{saes.parents['harvest']}"):
            try:
                return read_manifest(folder / name)
            except LinrepError:
                return None
    return None


def _others(there: Listing | None, own: Sequence[str]) -> list[str]:
    """Folders of SAEs that the repository holds beside those that are sent."""
    files: Mapping[str, Any] = {} if there is None else there.files
    found = {path.rpartition("/")[0] for path in files if path.endswith(f"/{saelens.CONFIG}")}
    return sorted(folder for folder in found if folder not in own and FOLDER.fullmatch(folder))
