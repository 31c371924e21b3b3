"""The interpretation stage: what it reads, whom it asks and what it shows. `linrep.cluster.stage` runs it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from linrep import tracking
from linrep.artefact import find
from linrep.cluster.ask import Interview, ask
from linrep.cluster.commands import EDITED, copy, read_parquet
from linrep.cluster.inputs import path_in, planned_harvest
from linrep.cluster.interpret import build_cases, check_codes, chosen_latents, counts, many
from linrep.cluster.run_features import plan_features
from linrep.cluster.stage import Counts, Outcome, Records, Shown, run_stage
from linrep.config import digest
from linrep.contents.stored import Contents, stored_contents
from linrep.errors import RecipeError, StoreError
from linrep.explorer.interpret import interpret_headline, score_figures, score_metrics, summary_lines
from linrep.features.artefact import Features, open_features
from linrep.harvest.plan import Plan
from linrep.interpret.artefact import SHEET, InterpretAbout, Interpretations, finish, plan_interpretations
from linrep.interpret.backends import Interpreter
from linrep.interpret.config import Chat, InterpretConfig, Local, Truth
from linrep.interpret.local import LocalBackend
from linrep.interpret.scenes import Scenes
from linrep.interpret.sheet import check_sheet, read_edited, write_sheet
from linrep.interpret.talk import ChatBackend
from linrep.interpret.truth import truth_backend
from linrep.interpret.views import Latent
from linrep.kind import UnitCommit
from linrep.places import Place, place
from linrep.recipe import Recipe
from linrep.sae.origin import origin_lines
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.summary import apart_lines

REPLIES = "replies"
"""Folder of the workspace in which answers of chat servers are kept, whichever run asked."""


@dataclass(frozen=True)
class InterpretStage:
    """Explanations of latents, and their scores.

    Attributes:
        artefact: The interpretations.
        features: What is interpreted.
        store: Where its activations lie.
        interview: Who is asked; None where nothing is left to ask.
    """

    artefact: Interpretations
    features: Features
    store: Store
    interview: Interview | None
    counts = Counts("chunks", "latents")

    @property
    def on_ray(self) -> bool:
        """Whether the codes are so many that a cluster reads them. Whoever is asked is asked from this process."""
        return self.interview is not None and many(self.features)

    def of(self, artefact: Interpretations) -> "InterpretStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, artefact=artefact)

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit]:
        """Explain and score, chunk after chunk.

        Raises:
            StoreError: The interpretations were complete when the job began, and are not any more.
        """
        if self.interview is None:
            raise StoreError(f"{self.artefact.place} was changed while the job began: {self.artefact.kind.again} again")
        cases = list(build_cases(self.features, self.store, self.interview.config, on_ray=self.on_ray))
        return ask(self.artefact, cases, todo, self.interview)

    def finish(self) -> dict[str, object]:
        """Put the tables together, write the sheet, and add up what it took."""
        spent = finish(self.artefact)
        write_sheet(self.artefact.place / SHEET, self.artefact.frame("explanations"), self.artefact.frame("scores"))
        return {"spent": spent}

    def show(self) -> Shown:
        """How often explanations predict right when latents fire, beside the controls."""
        manifest, about = self.artefact.manifest, self.artefact.about
        scores, explanations = self.artefact.table("scores"), self.artefact.table("explanations")
        notes = [f"  note: {note}" for note in manifest.notes]
        apart = apart_lines(self.store.manifest, [layer for layer, _ in map(_key, about.latents)])
        return Shown(
            headline=interpret_headline(scores),
            lines=[
                *notes,
                *summary_lines(scores, explanations, about.alive, about.width),
                *apart,
                *origin_lines(manifest.saes),
            ],
            next=[
                ("read", read_parquet(self.artefact.place / "explanations.parquet")),
                ("edit", copy(self.artefact.place / SHEET, EDITED)),
            ],
        )

    def records(self) -> Records:
        """Scores over layers, what it took, tables, histograms and the sheet."""
        scores = self.artefact.table("scores")
        spent = {f"spent/{name}": float(value) for name, value in self.artefact.about.spent.items()}
        return Records(
            metrics=score_metrics(scores) | spent,
            tables={name: self.artefact.table(name) for name in self.artefact.kind.tables},
            figures=score_figures(scores),
            texts={SHEET: (self.artefact.place / SHEET).read_bytes().decode()},
        )


def plan_interpret(recipe: Recipe, workspace: Place) -> InterpretStage:
    """Work out an interpretation job. Where something is left to ask, make sure that it can be asked.

    Raises:
        LinrepError: There are no features, or they are of another harvest; the section asks for what is not there.
    """
    config = recipe.interpret
    features = _features(recipe, workspace)
    harvest = planned_harvest(recipe, workspace, indexed=True)
    if harvest.manifest.digest != features.manifest.parents["harvest"]:
        raise RecipeError(
            f"interpret: the features in {features.place} are of harvest {features.manifest.parents['harvest']}, this "
            f"recipe's is {harvest.manifest.digest}: name others (interpret.features), or take the recipe that made them"
        )
    truth = None if config.scenes is None else place(path_in(recipe, workspace, config.scenes, "interpret.scenes"))
    scenes = None if truth is None else Scenes.read(truth)
    if isinstance(config.backend, Truth) and scenes is None:
        raise RecipeError("interpret.backend truth needs interpret.scenes: the embedded world's are demo://scenes.jsonl")
    edited, refused = ({}, []) if config.edited is None else read_edited(place(config.edited))
    parents = {"harvest": harvest.manifest.digest, "features": features.manifest.digest}
    if edited:
        parents["edited"] = digest([[asdict(latent), text] for latent, text in edited.items()])
    if truth is not None:
        parents["scenes"] = hashlib.sha256(truth.read_bytes()).hexdigest()[:10]
    latents = {f"{layer}/{name}": own for (layer, name), own in chosen_latents(features, config).items()}
    about = InterpretAbout(features.place.within(workspace), latents, *counts(features))
    notes = [f"of the edited explanations a row was refused: {line}" for line in refused]
    planned = plan_interpretations(workspace, recipe.name, config, parents, about, features.manifest.saes, notes)
    there, store = find(planned.kind, planned.place), open_store(str(harvest.place))
    if there is not None and there.complete:
        return InterpretStage(planned, features, store, None)
    contents = _contents(recipe, store, harvest)
    backend = make_backend(config, contents, scenes, workspace)
    if edited:
        known = [Latent(*_key(name), latent) for name, own in latents.items() for latent in own]
        check_sheet(place(config.edited or ""), edited, known, backend)
    backend.check()
    return InterpretStage(planned, features, store, Interview(config, contents, backend, scenes, edited))


def run_interpret(recipe: Recipe, workspace: Place) -> Outcome:
    """Do what is missing of a recipe's interpretations; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return run_stage(plan_interpret(recipe, workspace), workspace)


def make_backend(config: InterpretConfig, contents: Contents, scenes: Scenes | None, workspace: Place) -> Interpreter:
    """Who explains and scores."""
    match config.backend:
        case Truth() as backend:
            return truth_backend(backend, contents, scenes)
        case Chat() as backend:
            return ChatBackend(backend, contents, workspace / REPLIES)
        case Local() as backend:
            return LocalBackend(backend, contents)


def _features(recipe: Recipe, workspace: Place) -> Features:
    if recipe.interpret.features is not None:
        where = place(recipe.interpret.features)
    elif recipe.features.saes:
        where = plan_features(recipe, workspace).artefact.place
    else:
        where = workspace
    try:
        features = open_features(where)
    except StoreError as error:
        raise StoreError(f"interpret: {error} (jobs/features.py makes them, interpret.features names others)") from None
    try:
        check_codes(features)
    except StoreError as error:
        raise StoreError(f"interpret: {error}") from None
    return features


def _contents(recipe: Recipe, store: Store, harvest: Plan) -> Contents:
    return stored_contents(store, harvest.chunks, harvest.job.corpora, recipe.model, recipe.interpret.around)


def _key(name: str) -> tuple[int, str]:
    layer, _, sae = name.partition("/")
    return int(layer), sae
