"""All that a workspace holds, opened when it is first asked for."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from linrep import artefact
from linrep.artefact import Artefact
from linrep.errors import StoreError
from linrep.features.artefact import FEATURES_KIND, Features
from linrep.interpret.artefact import INTERPRETATIONS_KIND
from linrep.kind import Kind
from linrep.notebook.explain import Explanations, Panel, explain_latents
from linrep.notebook.markup import lines
from linrep.notebook.results import ImageStore, LatentFeatures, ProbeResults, StageResults
from linrep.places import Place, place
from linrep.probe.artefact import PROBES_KIND
from linrep.recipe import Recipe, load_yaml, remembered, validate
from linrep.regions.artefact import REGIONS_KIND
from linrep.sae.artefact import EVALUATIONS, SAES, open_saes
from linrep.sae.sae import Sae
from linrep.sae.tuning import TUNES
from linrep.sharing.artefact import SHARING_KIND
from linrep.steer.artefact import STEERING, VERDICTS_KIND
from linrep.store.read import Store
from linrep.store.read import open as open_store

KINDS: tuple[Kind, ...] = (
    REGIONS_KIND, PROBES_KIND, STEERING, SAES, TUNES, SHARING_KIND, FEATURES_KIND, INTERPRETATIONS_KIND,
)  # fmt: skip
"""Kinds of artefacts that lie in folders of a workspace, beside harvests."""

R = TypeVar("R", bound=StageResults)


class Workspace:
    """The results in a workspace.

    A property needs a workspace with just one artefact of its stage; where there are several, `results` opens one by its folder.

    Args:
        where: Folder or URI of the workspace.
        recipe: A recipe's file, for what asks the model or a judge again; the one that the workspace remembers if left out.
    """

    def __init__(self, where: str | Path | Place, recipe: str | None = None) -> None:
        self.place, self._recipe = place(where), recipe

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that it was made by.

        Raises:
            RecipeError: None was named, and it remembers none, or several.
        """
        file = self._recipe or remembered(self.place.uri)
        return validate(load_yaml(file), file)

    @cached_property
    def store(self) -> ImageStore:
        """The activations.

        Raises:
            StoreError: There are none, or several harvests to choose from.
        """
        return _with_images(open_store(self.place.uri))

    @cached_property
    def regions(self) -> StageResults:
        """Boxes or masks of the images, see `linrep.regions.artefact.open_regions` for the patches that they cover."""
        return self._open(StageResults, REGIONS_KIND)

    @cached_property
    def probes(self) -> ProbeResults:
        """The probes, and their directions."""
        return self._open(ProbeResults, PROBES_KIND)

    @cached_property
    def steering(self) -> StageResults:
        """The edited runs, see `verdicts` for what they come to."""
        return self._open(StageResults, STEERING)

    @cached_property
    def verdicts(self) -> StageResults:
        """What the judge that was last says of the edited runs."""
        return self._last(VERDICTS_KIND, self.steering.place)

    @cached_property
    def saes(self) -> StageResults:
        """The SAEs, see `sae` for the weights of one and `evaluations` for how good they are."""
        return self._open(StageResults, SAES)

    @cached_property
    def evaluations(self) -> StageResults:
        """How good the SAEs are."""
        return self._last(EVALUATIONS, self.saes.place)

    @cached_property
    def tune(self) -> StageResults:
        """The search for a width and a sparsity."""
        return self._open(StageResults, TUNES)

    @cached_property
    def features(self) -> LatentFeatures:
        """What each latent does."""
        found = artefact.open(FEATURES_KIND, self.place)
        return LatentFeatures(found.kind, found.place, found.manifest, self)

    @cached_property
    def interpretations(self) -> StageResults:
        """What latents stand for, in words, and how well the words predict them."""
        return self._open(StageResults, INTERPRETATIONS_KIND)

    @cached_property
    def sharing(self) -> StageResults:
        """How much image and text share."""
        return self._open(StageResults, SHARING_KIND)

    def results(self, folder: str) -> StageResults:
        """A complete artefact by its folder in the workspace, such as `probes/demo-0123456789`.

        Raises:
            StoreError: It is not there, not complete, or a harvest.
        """
        for kind in KINDS:
            if folder.split("/")[0] == kind.folder:
                found = artefact.open(kind, self.place / folder)
                return StageResults(found.kind, found.place, found.manifest)
        raise StoreError(f"{folder!r:.200} is in no folder of results: there are {', '.join(kind.folder for kind in KINDS)}")

    def sae(self, name: str, layer: int) -> Sae:
        """The weights of an SAE that was trained here.

        Args:
            name: As the tables call it.
            layer: Its layer.

        Raises:
            StoreError: There is none.
        """
        folder = self.saes.place / f"layer-{layer:03d}"
        if name not in folder.names():
            there = ", ".join(own for own in folder.names() if (folder / own).is_folder()) or "none"
            raise StoreError(f"no SAE {name!r:.80} of layer {layer} in {self.saes.place}: there are {there}")
        return open_saes(folder, name)[""]

    def explain(self, latents: Sequence[int], sae: str | None = None, layer: int | None = None) -> Explanations:
        """Interpret some latents with the recipe's backend: explanations, and scores beside those of their controls.

        Nothing is written but the replies of a chat server, which are not asked for twice.

        Args:
            latents: Their numbers.
            sae: The SAE; the first one of the features where none is named.
            layer: Its layer, where several layers have an SAE of this name.

        Raises:
            LinrepError: There are no features, or the backend cannot answer; the message says what to do.
        """
        from linrep.cluster.inputs import path_in
        from linrep.cluster.run_interpret import make_backend
        from linrep.contents.stored import open_contents
        from linrep.interpret.scenes import Scenes

        config, store = self.recipe.interpret, self.store_of(self.features)
        contents = open_contents(store, config.around)
        asked = None if config.scenes is None else path_in(self.recipe, self.place, config.scenes, "interpret.scenes")
        scenes = None if asked is None else Scenes.read(place(asked))
        backend = make_backend(config, contents, scenes, self.place)
        backend.check()
        panel = Panel(self.features, store, config, contents, backend, scenes)
        return explain_latents(panel, self.features.key(sae, layer), latents)

    def store_of(self, features: Features) -> ImageStore:
        """The activations that some features are of, wherever the workspace lies by now.

        Raises:
            StoreError: They are not there.
        """
        digest = features.parents["harvest"]
        names = [name for name in (self.place / "harvests").names() if name.endswith(f"-{digest}")]
        if not names:
            raise StoreError(f"the harvest {digest} that {features.place} is of is not in {self.place}")
        return _with_images(open_store((self.place / "harvests" / names[0]).uri))

    def interpretations_of(self, features: Features) -> Artefact | None:
        """The interpretation of some features that was finished last, None where there is none."""
        found = [
            one
            for one in artefact.all_in(INTERPRETATIONS_KIND, self.place)
            if one.complete and one.parents.get("features") == features.digest
        ]
        return max(found, key=lambda one: one.manifest.finished, default=None)

    def _open(self, kind_of_results: type[R], kind: Kind) -> R:
        found = artefact.open(kind, self.place)
        return kind_of_results(found.kind, found.place, found.manifest)

    def _last(self, kind: Kind, inside: Place) -> StageResults:
        """The artefact within another that was finished last."""
        there = [one for one in artefact.all_in(kind, inside) if one.complete]
        if not there:
            raise StoreError(f"no {kind.what} in {inside}: {kind.again}")
        found = max(there, key=lambda one: one.manifest.finished)
        return StageResults(found.kind, found.place, found.manifest)

    def __repr__(self) -> str:
        harvests = (self.place / "harvests").names()
        rows = [("harvest", name, "") for name in harvests]
        for kind in KINDS:
            for one in artefact.all_in(kind, self.place):
                rows.append((kind.stage, one.name, "" if one.complete else "  (not complete)"))
        found = [f"  {stage:10} {name}{state}" for stage, name, state in rows]
        return "\n".join([f"workspace {self.place}", *(found or ["  nothing yet: make demo makes one"])])

    def _repr_html_(self) -> str:
        return lines(repr(self))


def _with_images(store: Store) -> ImageStore:
    return ImageStore(store.place, store.manifest, store.commits)
