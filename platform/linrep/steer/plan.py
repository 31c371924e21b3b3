"""What a steering job will do, worked out before any model is loaded: pairs, held-out samples, cells, chunks, and its name."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from linrep import artefact
from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.corpora.narrow import narrow
from linrep.directions import DirectionSet
from linrep.errors import RecipeError
from linrep.places import Place
from linrep.sample import unit_hash
from linrep.steer.artefact import STEERING, SteerAbout, Steering, without_edits
from linrep.steer.cells import cells
from linrep.steer.config import MADE_HERE, MATCHED, SteerConfig
from linrep.steer.donors import check_donors, donor_notes
from linrep.steer.erasers import check_erasers
from linrep.steer.job import Item, SteerChunk, SteerJob, Task
from linrep.steer.judges.readable import names_of
from linrep.steer.names import spoken
from linrep.steer.sinks import norm_limits
from linrep.steer.token_latents import VIEW_OF_SITE as LATENTS_OF_SITE
from linrep.steer.vectors import VIEW_OF_SITE, check_directions
from linrep.store.layout import View
from linrep.store.read import Store
from linrep.store.samples import class_values, read_samples
from linrep.store.summary import apart_lines
from linrep.vlm.config import ModelConfig
from linrep.vlm.prompts import around, filled_in, one_prompt

PAIRS = 24
"""Pairs that are drawn where the recipe does not say how many, with `images: 8` each: 0 of 32 answers leave an interval of .3."""


@dataclass(frozen=True)
class SteerPlan:
    """A steering job before it runs.

    Attributes:
        job: What a worker must know.
        chunks: The work.
        names: All classes with directions.
        kept_apart: What the harvest kept out of them, in lines.
    """

    job: SteerJob
    chunks: tuple[SteerChunk, ...]
    names: tuple[str, ...]
    kept_apart: tuple[str, ...] = ()

    @property
    def artefact(self) -> Steering:
        """What it makes."""
        return self.job.artefact


@dataclass(frozen=True)
class HeldOutSample:
    """A held-out sample and where it lies."""

    sample_id: str
    chunk: int
    record: int
    class_name: str | None = None


def plan_steer(
    name: str,
    config: SteerConfig,
    store: Store,
    corpora: Corpora,
    chunks: Sequence[Chunk],
    model: ModelConfig,
    directions: Place,
    found: DirectionSet,
    workspace: Place,
    sae: tuple[str, dict[str, Any]] | None = None,
) -> SteerPlan:
    """Work out a steering job.

    Args:
        name: Name of the recipe.
        config: What to do.
        store: The complete harvest that the directions come from.
        corpora: Its corpora, where they really lie.
        chunks: Its chunks.
        model: The model, with a path that can be opened.
        directions: The file of directions.
        found: What it holds.
        workspace: Where everything lies.
        sae: Digest of the SAE that is given, and what it says that it is of.

    Raises:
        RecipeError: A pair, a layer or a sample is missing, or the directions come from another harvest.
        StoreError: The directions lack a kind, a layer or a view.
    """
    made_from = found.parents.get("harvest", store.manifest.digest)
    check_latent_views(config, store)
    check_donors(config, store)
    if made_from != store.manifest.digest:
        raise RecipeError(
            f"the directions at {directions} come from the harvest {made_from}, this recipe's is {store.manifest.digest}: "
            f"they may be another model's; run jobs/probe.py with this recipe"
        )
    layers = choose_layers(config, found, store.manifest.model["n_layers"])
    kinds = [kind for kind in config.directions if kind not in MADE_HERE]
    kinds += ["text_class_mean"] if {*MATCHED} & {*config.directions} else []
    try:
        classes = check_directions(found, kinds, [site.kind for site in config.sites], layers, store.manifest.width)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    check_erasers(config, found, layers)
    images, captions, texts = held_out(store)
    pairs = choose_pairs(config, classes, images)
    about, damage_items = _damage_items(config, chunks, images, captions, texts)
    cut = tuple(_cut(config, layers, pairs, chunks, images, damage_items))
    file_digest = hashlib.sha256(directions.read_bytes()).hexdigest()[:10]
    from_what = {
        "harvest": store.manifest.digest,
        "probes": file_digest,
        "model": store.manifest.model["digest"],
    } | ({} if sae is None else {"sae": sae[0]})
    decides = config.model_dump(mode="json", exclude={"judge": True, "probes": True, "insist": True, "sae": {"path", "sae"}})
    planned = artefact.plan(
        STEERING,
        workspace,
        name,
        decisive={**decides, "layers": list(layers)},
        parents=from_what,
        config=config.model_dump(mode="json"),
        units=[chunk.unit for chunk in cut],
        about=SteerAbout(
            model=store.manifest.model,
            layers=list(layers),
            pairs=[list(pair) for pair in pairs],
            n_cells=sum(chunk.n_cells for chunk in cut),
            damage_texts=about,
        ),
        saes=() if sae is None else (sae[1],),
        notes=[*names_of(pairs).lines, *prompt_notes(config, store.manifest.harvest), *donor_notes(config, store)],
    )
    sources = tuple(dict.fromkeys(source for source, _ in pairs))
    job = SteerJob(
        artefact=planned,
        corpora=corpora,
        model=model,
        model_digest=store.manifest.model["digest"],
        config=config,
        layers=layers,
        classes=tuple(dict.fromkeys([*sources, *(target for _, target in pairs)])),
        directions=directions,
        image_size=store.manifest.harvest["image_size"] and tuple(store.manifest.harvest["image_size"]),
        max_text_tokens=store.manifest.harvest["max_text_tokens"],
        sae_digest=None if sae is None else sae[0],
        harvest=store.place,
        one_prompt=one_prompt(store.manifest.harvest),
        limits={} if config.edit_high_norm else norm_limits(store, layers),
    )
    return SteerPlan(job, cut, classes, tuple(apart_lines(store.manifest, layers)))


def latent_views(config: SteerConfig) -> tuple[View, ...]:
    """Views of single tokens whose latents a plan needs: none where nothing is chosen among latents."""
    if config.sae is None or not {*config.directions, *config.edits} & {"sae_latent", "clamp"}:
        return ()
    return tuple(dict.fromkeys(LATENTS_OF_SITE[site.kind] for site in config.sites))


def check_latent_views(config: SteerConfig, store: Store) -> None:
    """Refuse latents of tokens that the store does not have.

    Raises:
        RecipeError: Names the view that is missing.
    """
    for view in latent_views(config):
        if view not in store.manifest.views:
            raise RecipeError(
                f"steer.sae: latents are chosen by their means over single tokens, and {store.place} has no view {view!r}: "
                "harvest it with harvest.views, or leave sae_latent and clamp out"
            )


def prompt_notes(config: SteerConfig, harvest: Mapping[str, Any]) -> list[str]:
    """Where the questions' prompts are others than those under which the directions were found."""
    found = str(filled_in(harvest)["image_prompt"])
    asked = {f"steer.ask.questions[{i}]": q.prompt for i, q in enumerate(config.ask.questions) if q.about == "class"}
    asked |= {"steer.damage.prompt": config.damage.prompt} if config.damage.texts else {}
    notes = [
        f"{name} begins otherwise than the harvest's image_prompt: {prompt!r}, and directions were found under {found!r}"
        for name, prompt in {**asked, "steer.ask.choice": config.ask.choice}.items()
        if around(prompt)[0] != around(found)[0]
    ]
    if not any(prompt == found for name, prompt in asked.items() if "questions" in name):
        notes.append(f"no question about the class is the harvest's image_prompt: directions were found under {found!r}")
    return notes


def choose_layers(config: SteerConfig, found: DirectionSet, n_layers: int) -> tuple[int, ...]:
    """The layers of the plan: those named, or those of which there are class means.

    Raises:
        RecipeError: A layer that the model does not have, or no layer at all.
    """
    if config.layers != "all":
        beyond = [layer for layer in config.layers if layer > n_layers]
        if beyond:
            raise RecipeError(f"steer.layers: layer {beyond[0]} does not exist, the model has layers 0..{n_layers}")
        return config.layers
    views = {VIEW_OF_SITE[site.kind] for site in config.sites}
    sets = [{e.layer for e in found.entries if e.kind == "class_mean" and e.view == v and e.attribute == "class"} for v in views]
    layers = tuple(sorted(set.intersection(*sets)))
    if not layers:
        raise RecipeError(
            f"the directions hold no class means of the views {', '.join(sorted(views))}: run the probe job with them"
        )
    if config.max_layers is not None and len(layers) > config.max_layers:
        return tuple(layers[i] for i in np.linspace(0, len(layers) - 1, config.max_layers).round().astype(int))
    return layers


def held_out(store: Store) -> tuple[dict[str, list[HeldOutSample]], list[HeldOutSample], list[HeldOutSample]]:
    """Test images by class, captions with their image, and texts; in a drawn order.

    Probes chose their penalties, and so their directions, on validation images: these are not steered. Captions and texts, which
    nothing is chosen on, are all those that no probe was fitted on.

    Classes are called as the probes call them: two of one name have different numbers.
    """
    table = store.samples()
    classes = dict(zip(table["sample_id"].to_pylist(), class_values(table, read_samples(table)), strict=True))
    images: dict[str, list[HeldOutSample]] = {}
    captions: list[HeldOutSample] = []
    texts: list[HeldOutSample] = []
    for number, rows in store.samples_by_chunk(["sample_id", "corpus", "modality", "split", "error"]):
        # Samples stand in their chunk's order; a pair whose caption is also given alone is two samples of one record.
        record = -1
        for row in rows.to_pylist():
            record += not row["sample_id"].endswith("#caption")
            if row["error"] is not None or row["split"] == "train":
                continue
            held, name = HeldOutSample(row["sample_id"], number, record), classes[row["sample_id"]]
            if row["corpus"] == "images" and name is not None and row["split"] == "test":
                images.setdefault(name, []).append(replace(held, class_name=name))
            elif row["modality"] == "pair":
                captions.append(held)
            elif row["corpus"] == "text":
                texts.append(held)
    for samples in (*images.values(), captions, texts):
        samples.sort(key=lambda held: unit_hash(held.sample_id, "steer"))
    return images, captions, texts


def unedited(plan: SteerPlan) -> tuple[SteerJob, tuple[SteerChunk, ...]]:
    """A small job before the job: every image of the plan under the questions, once and without an edit.

    It lies in a folder of its own within the artefact, and shows whether the judge can read what the model says.
    """
    items: dict[str, dict[str, Item]] = {}
    targets: dict[str, str] = {}
    for chunk in plan.chunks:
        if chunk.task == "answers":
            items.setdefault(chunk.source, {}).update({item.sample_id: item for item in chunk.items})
            targets.setdefault(chunk.source, chunk.target)
    config = plan.job.config.model_copy(update={"directions": (), "edits": ()})
    chunks = tuple(
        SteerChunk(number, "answers", source, targets[source], tuple(own.values()), len(own))
        for number, (source, own) in enumerate(items.items())
    )
    return replace(plan.job, artefact=without_edits(plan.artefact, [chunk.unit for chunk in chunks]), config=config), chunks


def choose_pairs(
    config: SteerConfig, classes: Sequence[str], images: dict[str, list[HeldOutSample]]
) -> tuple[tuple[str, str], ...]:
    """The ordered pairs of the plan, named or drawn.

    Raises:
        RecipeError: There are fewer than two classes, a named class has no directions, a source has no test image, or
            both classes of a pair are called the same.
    """
    if len(classes) < 2:
        raise RecipeError(f"steering needs two classes, the directions hold {len(classes)}: {', '.join(classes) or 'none'}")
    if isinstance(config.pairs, tuple):
        for pair in config.pairs:
            if spoken(pair[0]) == spoken(pair[1]):
                raise RecipeError(f"steer.pairs: {' and '.join(pair)} are called the same, no answer could separate them")
            unknown = [name for name in pair if name not in classes]
            if unknown:
                shown = ", ".join(classes[:20]) + (" ..." if len(classes) > 20 else "")
                raise RecipeError(f"steer.pairs: there is no pair {' to '.join(pair)}: no class {unknown[0]!r} among {shown}")
            if pair[0] not in images:
                raise RecipeError(f"steer.pairs: no test image of {pair[0]!r}: raise corpora.splits.test or take another class")
        return config.pairs
    if not any(name in images for name in classes):
        raise RecipeError("no test image of any class with directions: raise corpora.splits.test")
    order = [str(classes[i]) for i in np.random.default_rng([config.seed, 7]).permutation(len(classes))]
    drawn = [
        (source, order[(i + step) % len(order)])
        for step in range(1, len(order))
        for i, source in enumerate(order)
        if source in images and spoken(source) != spoken(order[(i + step) % len(order)])
    ]
    if config.pairs is not None and config.pairs > len(drawn):
        raise RecipeError(f"steer.pairs: {config.pairs} pairs of {len(classes)} classes, there are only {len(drawn)}")
    return tuple(drawn[: config.pairs or PAIRS])


def _damage_items(
    config: SteerConfig,
    chunks: Sequence[Chunk],
    images: dict[str, list[HeldOutSample]],
    captions: list[HeldOutSample],
    texts: list[HeldOutSample],
) -> tuple[str, list[Item]]:
    """What damage is measured on: held-out captions; without any, held-out texts, each after some image."""
    if not config.damage.texts:
        return "none", []
    if captions:
        return "captions", [item_of(held, chunks) for held in captions[:1000]]
    drawn = sorted((h for held in images.values() for h in held), key=lambda h: unit_hash(h.sample_id, "damage"))
    if not texts or not drawn:
        return "none", []
    both = [(drawn[i % len(drawn)], text) for i, text in enumerate(texts[:1000])]
    return "texts after an image", [
        Item(f"{p.sample_id} {t.sample_id}", item_of(p, chunks).chunk, text=item_of(t, chunks)) for p, t in both
    ]


def item_of(held: HeldOutSample, chunks: Sequence[Chunk]) -> Item:
    """A sample as it is fetched: the part of a corpus that holds it alone."""
    return Item(held.sample_id, narrow(chunks[held.chunk], [held.record]), held.class_name)


def _cut(
    config: SteerConfig,
    layers: Sequence[int],
    pairs: Sequence[tuple[str, str]],
    chunks: Sequence[Chunk],
    images: dict[str, list[HeldOutSample]],
    damage_items: list[Item],
) -> list[SteerChunk]:
    n_cells = len(cells(config, layers))
    found: list[SteerChunk] = []

    def add(task: Task, source: str, target: str, items: Sequence[Item], each: int, candidates: int = 1) -> None:
        """Items in chunks; of `candidates` items one is run under every cell, which comes to `each` runs."""
        size = max(1, config.chunk_size // each) * candidates
        for start in range(0, len(items), size):
            some = tuple(items[start : start + size])
            found.append(SteerChunk(len(found), task, source, target, some, max(1, len(some) // candidates) * each))

    used: dict[str, Item] = {}
    for number, (source, target) in enumerate(pairs):
        own = [item_of(held, chunks) for held in images[source][: config.images]]
        used |= {item.sample_id: item for item in own}
        add("answers", source, target, own, n_cells)
        if damage_items:
            n = min(config.damage.texts * config.damage.candidates, len(damage_items))
            window = [damage_items[(number * n + i) % len(damage_items)] for i in range(n)]
            add("damage", source, target, window, n_cells, config.damage.candidates)
    add("lens", "", "", list(used.values()), 1)
    return found
