"""Asks the model of a recipe's harvest about one image or text, with whatever the workspace knows of it. Needs no Ray."""

import hashlib
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch

from linrep.artefact import Artefact, all_in
from linrep.cluster.given_saes import read_saes
from linrep.cluster.inputs import harvested
from linrep.cluster.sae_names import at_paths
from linrep.config import digest
from linrep.contents.sources import located
from linrep.directions import DirectionSet
from linrep.errors import FormatError, RecipeError
from linrep.explorer.picture import fired, latent_notes
from linrep.features.artefact import FEATURES_KIND
from linrep.interpret.artefact import INTERPRETATIONS_KIND
from linrep.kind import Kind
from linrep.places import Place
from linrep.probe.artefact import PROBES_KIND, Probes
from linrep.reading.asked import Asked
from linrep.reading.attribution import attribute
from linrep.reading.changes import SITES, Change, addition_of, clamp_of, parse_edit, parse_latent
from linrep.reading.live import answers_under, high_norm, read_live
from linrep.reading.probes import Probe, probes_of
from linrep.reading.read import Reader, ReadSae
from linrep.recipe import Recipe
from linrep.sae.formats import name_of
from linrep.sample import Sample, Skipped
from linrep.steer.sinks import norm_limits
from linrep.steer.vectors import Vectors
from linrep.store.layout import MODALITIES, Modality
from linrep.vlm.card import ModelCard
from linrep.vlm.config import IMAGE, check_prompt
from linrep.vlm.load import VLM, load
from linrep.vlm.precision import number_format
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from linrep.vlm.prompts import around
from linrep.vlm.unembed import read_unembedding

_QUESTION = re.compile(rf"^(.*{IMAGE}\s*)(.*\?)(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Query:
    """What a person asks.

    Attributes:
        image: The encoded image; None for a text alone.
        name: What the image is called.
        text: The question; of a text alone the text. None: the recipe's question.
        latents: Latents to clamp, as they are typed: 309=4.0.
        edits: Class directions to add, as they are typed: boat:tree@4=2.
        site: Where these edits act.
    """

    image: bytes | None = None
    name: str = ""
    text: str | None = None
    latents: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    site: str = "image"


class Asker:
    """Holds the model, and what the workspace knows of its stream; asks as often as you like.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        command: The shell command of a job, by the name of its script.

    Attributes:
        card: Of the model.
        missing: What is left out of every answer, with the command that makes it.
        made_from: The artefacts that are used, by stage.
        classes: Classes between which there are directions.
        layers: Layers that have such directions.
        saes: SAEs whose latents are read.

    Raises:
        LinrepError: There is no complete harvest, or its model cannot be loaded.
    """

    def __init__(self, recipe: Recipe, workspace: Place, command: Callable[[str], str]) -> None:
        found = harvested(recipe, workspace)
        self._recipe, self._config, self._store = recipe, found.plan.job.config, found.store
        self.missing: tuple[str, ...] = ()
        self.made_from: dict[str, str] = {"harvest": self._store.place.name}
        model = located(recipe.model)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._vlm: VLM = load(model, None, device, number_format(recipe.pool.precision, device))
        self.card: ModelCard = self._vlm.card
        unembedding = read_unembedding(model)
        self._unembedding = replace(unembedding, matrix=unembedding.matrix.to(device))
        self._limits = norm_limits(self._store, self._store.manifest.layers)
        self.saes: tuple[ReadSae, ...] = self._read_saes(workspace, command)
        self._probes, self._directions = self._read_probes(workspace, command)
        self._features, self._explanations = self._read_notes(workspace, command) if self.saes else (None, None)
        means = [e for e in self._directions.entries if (e.kind, e.attribute, e.modality) == ("class_mean", "class", "image")]
        self.classes: tuple[str, ...] = means[0].names if means else ()
        self.layers: tuple[int, ...] = tuple(sorted({entry.layer for entry in means}))
        self._vectors = Vectors(self._directions, recipe.steer.dose, recipe.steer.seed)

    @property
    def question(self) -> str:
        """The recipe's question about the class."""
        return next(one.prompt for one in self._recipe.steer.ask.questions if one.about == "class")

    def __call__(self, query: Query) -> Asked:
        """Ask.

        Raises:
            RecipeError: There is nothing to ask about, the image cannot be used, or an edit cannot be.
        """
        prepared, prompt, notes = self._prepared(query)
        changes = self._changes(query)
        modality: Modality = "image" if query.image is not None else "text"
        reader = Reader(self.saes, self._unembedding, self._probes[modality])
        limits = {} if self._recipe.steer.edit_high_norm else self._limits
        most, layers = self._recipe.steer.ask.max_new_tokens, self._store.manifest.layers
        reading, answer = read_live(self._vlm, prepared, reader, layers, self._limits, most)
        changed = answers_under(self._vlm, prepared, changes, limits, most)
        attributed = None
        if self.saes:
            attributed = attribute(
                self._vlm, prepared, self.saes, lambda layer, h: high_norm(h[None], [layer], prepared, self._limits)[0]
            )
        named = {(one.layer, sae.name, one.latent) for one in changes if one.latent is not None for sae in self.saes}
        named |= {(one.layer, one.sae, int(i)) for one in (attributed.saes if attributed else ()) for i in one.latents}
        return Asked(
            prompt=prompt,
            name=query.name,
            answer=answer,
            reading=reading,
            words=self._unembedding.words,
            changed=tuple(changed),
            attributed=attributed,
            latents=latent_notes(self._features, self._explanations, fired(reading) | named),
            made_from=self.made_from,
            notes=tuple(notes),
            missing=self.missing,
        )

    def key(self, query: Query) -> str:
        """Ten characters that name a question, and everything that its answer depends on."""
        image = None if query.image is None else hashlib.sha256(query.image).hexdigest()
        asked = [image, query.name, query.text, list(query.latents), list(query.edits), query.site]
        return digest(self.card.digest, self.made_from, self._recipe.steer.ask, self._recipe.steer.dose, asked)

    # What is asked.

    def _prepared(self, query: Query) -> tuple[Prepared, str, list[str]]:
        options = {"image_size": self._config.image_size, "max_text_tokens": self._config.max_text_tokens}
        processor, notes = self._vlm.processor, []
        if query.image is None and not (query.text and query.text.strip()):
            raise RecipeError("there is nothing to ask about: name an image with --image, or a text with --text, or both")
        if query.image is None:
            text = fitted(processor.tokenizer, query.text or "")
            prompt = self._config.text_prompt
            preparer = Preparer(processor, self.card, text_prompt=prompt, **options)
            sample = Sample(id="asked", corpus="asked", modality="text", uri="", split="test", text=text)
            shown = prompt.replace("{text}", text)
        else:
            prompt = shown = self._prompt(query.text)
            preparer = Preparer(processor, self.card, image_prompt=prompt, **options)
            sample = Sample(id="asked", corpus="asked", modality="image", uri=query.name, split="test", image=query.image)
            notes += _other_prompt(prompt, self._config.image_prompt)
        found = preparer(sample)
        if isinstance(found, Skipped):
            raise RecipeError(f"{f'--image {query.name}' if query.image is not None else '--text'}: {found.reason}")
        strange = unknown_words(processor.tokenizer, shown.replace(IMAGE, " "))
        if strange:
            notes.append(f"the model does not know {', '.join(map(repr, strange[:6]))}: it sees an unknown word there")
        return found, shown, notes

    def _prompt(self, text: str | None) -> str:
        """The whole prompt of a question about an image.

        Raises:
            RecipeError: It holds other placeholders, or nobody can know where in the prompt it belongs.
        """
        if text is None or not text.strip():
            return self.question
        if IMAGE in text:
            try:
                return check_prompt(text, IMAGE)
            except ValueError as error:
                raise RecipeError(f"--text {error}") from None
        frame = _QUESTION.match(self.question)
        if frame is None:
            raise RecipeError(
                f"--text: the recipe's question {self.question!r} has no question mark to put another one in its place: give the "
                f"whole prompt, with {IMAGE} where the image stands"
            )
        text = text.replace("{text}", "{ text }")
        return fitted(self._vlm.processor.tokenizer, f"{frame[1]}{text.strip()}{frame[3]}", whole=False)

    def _changes(self, query: Query) -> list[Change]:
        if query.site not in SITES:
            raise RecipeError(f"--site {query.site}: there is no such site; there are {', '.join(SITES)}")
        site = SITES[query.site]
        changes = [clamp_of(parse_latent(text), self.saes, self._vectors, site) for text in query.latents]
        if query.edits and not self.classes:
            raise RecipeError(f"--edit {query.edits[0]}: no class has a direction: run jobs/probe.py with the same recipe first")
        strength = self._recipe.steer.dose.strengths[-1]
        edits = [parse_edit(text, self.classes) for text in query.edits]
        return [*changes, *(addition_of(one, self._vectors, self.layers, strength, site) for one in edits)]

    # What the workspace knows.

    def _lacks(self, what: str, command: str) -> None:
        self.missing = (*self.missing, f"No {what}: {command}")

    def _read_saes(self, workspace: Place, command: Callable[[str], str]) -> tuple[ReadSae, ...]:
        named = self._recipe.features.saes
        if not named:
            layers = self._store.manifest.layers
            one = {"layer": layers[len(layers) // 2], "sae": next(iter(self._recipe.sae.designs()))}
            option = f"--features.saes {shlex.quote(json.dumps([one]))}"
            self._lacks("latents, as the recipe's features.saes names no SAE", f"{command('features')} {option}")
            return ()
        try:
            placed = at_paths(named, self._recipe, self._store, workspace, "features.saes")
            given = read_saes(placed, self._store, "features")
        except (RecipeError, FormatError) as why:
            self._lacks(f"latents ({why})", command("train_sae"))
            return ()
        names = (name_of(one.path) for one in placed)
        return tuple(ReadSae(one.layer, name, own.sae) for one, name, own in zip(placed, names, given, strict=True))

    def _read_probes(
        self, workspace: Place, command: Callable[[str], str]
    ) -> tuple[dict[Modality, tuple[Probe, ...]], DirectionSet]:
        found = newest(PROBES_KIND, workspace, "harvest", self._store.manifest.digest, self._recipe.name)
        if found is None:
            self._lacks("probe readings and class directions", command("probe"))
            return dict.fromkeys(MODALITIES, ()), DirectionSet(())
        self.made_from["probe"] = found.name
        directions, labels, scores = (
            Probes(found.kind, found.place, found.manifest).directions,
            found.table("labels"),
            found.table(),
        )
        return {m: probes_of(directions, labels, scores, m) for m in MODALITIES}, directions

    def _read_notes(self, workspace: Place, command: Callable[[str], str]) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
        features = self._table(FEATURES_KIND, workspace, "harvest", self._store.manifest.digest, command)
        made = self.made_from.get("features", "").rpartition("-")[2]
        return features, self._table(INTERPRETATIONS_KIND, workspace, "features", made, command, "explanations")

    def _table(
        self, kind: Kind[Any], workspace: Place, parent: str, made: str, command: Callable[[str], str], name: str | None = None
    ) -> pl.DataFrame | None:
        found = newest(kind, workspace, parent, made, self._recipe.name)
        if found is None:
            what = "explanations of latents" if kind is INTERPRETATIONS_KIND else "labels of latents"
            self._lacks(what, command(kind.job or kind.stage))
            return None
        self.made_from[kind.stage] = found.name
        return found.frame(name)


def newest(kind: Kind[Any], workspace: Place, parent: str, made: str, name: str) -> Artefact[Any] | None:
    """The complete artefact of a recipe that was made from another one, the newest of several; None where there is none.

    Args:
        kind: The kind.
        workspace: Where everything lies.
        parent: Stage of what it is made from.
        made: Digest of that.
        name: Name of the recipe.
    """
    own = [
        one for one in all_in(kind, workspace)
        if one.complete and one.manifest.name == name and one.parents.get(parent) == made
    ]  # fmt: skip
    return max(own, key=lambda one: one.manifest.finished, default=None)


def fitted(tokenizer: Any, text: str, whole: bool = True) -> str:
    """The text in the form of which the model knows most words: as it is, or in small letters with its signs apart.

    A vocabulary of whole words knows `this ?` and not `This?`; others know everything, and the text stays as it is.

    Args:
        tokenizer: Of the model.
        text: The text.
        whole: Whether letters may be made small; a prompt's own words stay as they are.
    """
    if not unknown_words(tokenizer, text.replace(IMAGE, " ")):
        return text
    apart = re.sub(r"\s*([?!.,:;])\s*", r" \1 ", text).strip()
    forms = [text, apart, *([apart.lower()] if whole else [_small(apart)])]
    return min(forms, key=lambda form: len(unknown_words(tokenizer, form.replace(IMAGE, " "))))


def _small(prompt: str) -> str:
    before, image, after = prompt.partition(IMAGE)
    return f"{before}{image}{after.lower()}"


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The words of a text that the vocabulary lacks."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return []
    out = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    spans = zip(out["input_ids"], out["offset_mapping"], strict=True)
    return list(dict.fromkeys(text[first:last] for token, (first, last) in spans if token == unknown))


def _other_prompt(prompt: str, harvested_under: str) -> list[str]:
    if prompt == harvested_under:
        return []
    (before, after), (own, behind) = around(prompt), around(harvested_under)
    notes = []
    if before != own:
        notes.append(f"probes and SAEs were fitted under the prompt {harvested_under!r}, whose beginning is another")
    elif after != behind:
        notes.append(f"probes of the last token were fitted under the prompt {harvested_under!r}; image tokens see neither end")
    return notes
