"""An interpretation job before it runs: what is asked about, of which features, and what decides its name."""

import hashlib
from dataclasses import asdict, dataclass

from linrep.cluster.interpret import check_codes, chosen_latents, counts
from linrep.cluster.run_features import plan_features
from linrep.config import digest
from linrep.errors import RecipeError, StoreError
from linrep.features.artefact import Features, open_features
from linrep.harvest.plan import DEMO, Plan, plan_harvest, write_demo
from linrep.interpret.artefact import InterpretManifest, key_of
from linrep.interpret.config import Truth
from linrep.interpret.contents import Scenes
from linrep.interpret.sheet import read_edited
from linrep.interpret.views import Latent
from linrep.places import Place, place
from linrep.recipe import Recipe
from linrep.store.manifest import now
from linrep.store.read import Store
from linrep.store.read import open as open_store


@dataclass(frozen=True)
class InterpretPlan:
    """An interpretation job before it runs.

    Attributes:
        place: The artefact.
        manifest: The manifest to start with.
        features: What is interpreted.
        store: Where its activations lie.
        harvest: How its samples are found.
        scenes: The truth of its pictures, if there is one.
        edited: Explanations by people.
    """

    place: Place
    manifest: InterpretManifest
    features: Features
    store: Store
    harvest: Plan
    scenes: Scenes | None
    edited: dict[Latent, str]


def plan_interpret(recipe: Recipe, workspace: Place) -> InterpretPlan:
    """Work out an interpretation job; asks nobody anything.

    Raises:
        LinrepError: There are no features, or they are of another harvest; the section asks for what is not there.
    """
    config = recipe.interpret
    if config.features is not None:
        where = place(config.features)
    elif recipe.features.dictionaries:
        where = plan_features(recipe, workspace).place
    else:
        where = workspace
    try:
        features = open_features(where)
    except StoreError as error:
        raise StoreError(f"interpret: {error} (jobs/features.py makes them, interpret.features names them)") from None
    try:
        check_codes(features)
    except StoreError as error:
        raise StoreError(f"interpret: {error}") from None
    harvest = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, indexed=True)
    if harvest.manifest.digest != features.manifest.parents["harvest"]:
        raise RecipeError(
            f"interpret: the features in {features.place} are of harvest {features.manifest.parents['harvest']}, this "
            f"recipe's is {harvest.manifest.digest}: name others (interpret.features), or take the recipe that made them"
        )
    truth = None if config.scenes is None else _located(config.scenes, recipe, workspace)
    scenes = None if truth is None else Scenes.read(truth)
    if isinstance(config.backend, Truth) and scenes is None:
        raise RecipeError("interpret.backend truth needs interpret.scenes: the embedded world's are demo://scenes.jsonl")
    edited, refused = ({}, []) if config.edited is None else read_edited(place(config.edited))
    written = [[asdict(latent), text] for latent, text in edited.items()]
    parents = {"harvest": harvest.manifest.digest, "features": features.manifest.digest}
    parents |= {"edited": digest(written)} if edited else {}
    parents |= {"scenes": hashlib.sha256(truth.read_bytes()).hexdigest()[:10]} if truth is not None else {}
    key = key_of(config, parents)
    latents = {f"{layer}/{name}": own for (layer, name), own in chosen_latents(features, config).items()}
    alive, width = counts(features)
    n = sum(map(len, latents.values()))
    manifest = InterpretManifest(
        name=recipe.name,
        digest=key,
        parents=parents,
        features=features.place.within(workspace),
        config=config.model_dump(mode="json"),
        latents=latents,
        alive=alive,
        width=width,
        saes=features.manifest.saes,
        n_chunks=-(-n // config.chunk_size),
        notes=[f"of the edited explanations a row was refused: {line}" for line in refused],
        created=now(),
    )
    store = open_store(str(harvest.place))
    return InterpretPlan(
        workspace / "interpretations" / f"{recipe.name}-{key}", manifest, features, store, harvest, scenes, edited
    )


def _located(path: str, recipe: Recipe, workspace: Place) -> Place:
    if not path.startswith(DEMO):
        return place(path)
    if recipe.demo is None:
        raise RecipeError(f"interpret.scenes begins with {DEMO}, but the recipe has no section demo")
    return write_demo(workspace, recipe.demo) / path.removeprefix(DEMO)
