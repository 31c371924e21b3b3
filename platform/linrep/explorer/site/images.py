"""The pages of images: a patch and the latents that fire there, the nearest words by layer, and what the probes read.

They are of the images that the latents' pages show most, as many as `Limits.images`. Everything is read from what the workspace
holds: latents from the features' codes, words and probes from the rows of the store. No model runs. Where a store holds a draw of
tokens, a page says so.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from linrep.artefact import Artefact
from linrep.contents.sources import located
from linrep.errors import LinrepError
from linrep.explorer.picture import fired, latent_notes, picture_data
from linrep.explorer.site.latents import StudiedOnSite
from linrep.explorer.site.pictures import Pictures, in_layouts
from linrep.explorer.site.results import Results
from linrep.explorer.site.shards import Site, shortened, words
from linrep.probe.artefact import LABELS, Probes
from linrep.reading.asked import LatentNote
from linrep.reading.codes import Coded, with_codes
from linrep.reading.probes import probes_of
from linrep.reading.read import Reader
from linrep.reading.stored import find_samples, read_stored
from linrep.store.read import Store
from linrep.store.samples import read_samples
from linrep.vlm.card import card_of
from linrep.vlm.config import ModelConfig
from linrep.vlm.unembed import Unembedding, read_unembedding

LATENTS = 8
"""Latents of a patch."""
WORDS = 3
"""Words of a patch and layer."""
DIGITS = 4


def write_images(
    site: Site, results: Results, store: Store, pictures: Pictures, saes: Sequence[StudiedOnSite], most: int
) -> dict[str, Any] | None:
    """Write the pages of a harvest's images; gives what the site's own shard says of them, None where there are none.

    Args:
        site: The site.
        results: The workspace's results.
        store: The harvest.
        pictures: Its pictures, as far as other pages have shown them.
        saes: SAEs that were looked into on it.
        most: Images that get a page, at most.
    """
    names = pictures.most_shown(most)
    if not names or "tokens" not in store.manifest.views:
        return None
    key, drawn = f"images/{store.place.name}", pictures.draw(names)
    probes = newest_probes(results, store)
    reader = Reader((), _unembedding(store), _probes_of(probes), LATENTS, WORDS)
    coded = [Coded.of(one.features, one.sae, LATENTS) for one in saes if not one.sae.name.endswith("/random")]
    notes = [(one.features.frame(), _explained(one)) for one in saes if not one.sae.name.endswith("/random")]
    number, truth, captions = {name: i for i, name in enumerate(names)}, _truth(probes, names), _captions(pictures, names)
    regions = outlines_of(results, store, names)
    card, vocabulary = card_of(store.manifest.model), reader.unembedding.words if reader.unembedding is not None else ()
    known: dict[tuple[int, str, int], LatentNote] = {}
    found, paged = find_samples(store, names), []
    for name, plain in read_stored(store, names, reader):
        reading = with_codes(plain, coded, found[name].chunk, pictures.row_of(name))
        for features, explained in notes:
            known |= latent_notes(features, explained, fired(reading) - known.keys())
        one = drawn[name]
        data = picture_data(reading, card, lambda token: _word(vocabulary, token), known, one["file"], one["label"] or name)
        data["regions"] = regions.get(name, [])
        facts = pictures.facts(name)
        site.shard(
            f"{key}/{number[name]}",
            {
                "picture": in_layouts([one]),
                "facts": {"sample": name, "split": facts["split"], "file": facts["uri"], "class": facts["class_name"]},
                "caption": captions.get(name) or facts["text"],
                "truth": truth.get(name, {}),
                "data": data,
            },
        )
        paged.append(name)
    listed = [drawn[name] for name in names]
    classes = [pictures.facts(name)["class_name"] for name in names]
    site.shard(key, {**in_layouts(listed), "classes": words(classes), "paged": [int(name in set(paged)) for name in names]})
    return {"key": key, "harvest": store.manifest.digest, "pages": len(paged), "images": len(pictures.images())}


def outlines_of(results: Results, store: Store, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Regions of some images as `assets/picture.js` draws them, of the regions that were finished last: the largest first.

    Args:
        results: The workspace's results.
        store: The harvest.
        names: The images.
    """
    own = [one for one in results.artefacts["regions"] if one.parents.get("harvest") == store.manifest.digest]
    newest = max(own, key=lambda one: one.manifest.finished, default=None)
    if newest is None:
        return {}
    table = newest.frame("regions").filter(pl.col("sample_id").is_in(list(names))).sort("area", descending=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in shortened(table).iter_rows(named=True):
        outline = [[round(edge, DIGITS) for edge in loop] for loop in row["outline"]]
        shown = {"category": row["category"], "left": row["left"], "top": row["top"], "outline": outline}
        found.setdefault(row["sample_id"], []).append(shown)
    return found


def newest_probes(results: Results, store: Store) -> Artefact[Any] | None:
    """The probes of a harvest, those that were finished last."""
    own = [one for one in results.artefacts["probe"] if one.parents.get("harvest") == store.manifest.digest]
    return max(own, key=lambda one: one.manifest.finished, default=None)


def _probes_of(probes: Artefact[Any] | None) -> Sequence[Any]:
    if probes is None:
        return ()
    directions = Probes(probes.kind, probes.place, probes.manifest).directions
    return probes_of(directions, probes.table(LABELS), probes.table(), "image")


def _unembedding(store: Store) -> Unembedding | None:
    """The output matrix of the harvest's model, where it still lies where it lay."""
    model = store.manifest.model
    try:
        return read_unembedding(located(ModelConfig(path=model["path"], revision=model["revision"])))
    except LinrepError:
        return None


def _explained(one: StudiedOnSite) -> pl.DataFrame | None:
    return None if one.interpretations is None else one.interpretations.frame("explanations")


def _truth(probes: Artefact[Any] | None, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What is known of each image, as the probes were given it: its class and its attributes."""
    if probes is None:
        return {}
    table = probes.frame(LABELS).filter(pl.col("sample_id").is_in(list(names)) & (pl.col("attribute") != "modality"))
    found: dict[str, dict[str, str]] = {}
    for row in table.iter_rows(named=True):
        found.setdefault(row["sample_id"], {})[row["attribute"]] = row["class_name"]
    return found


def _captions(pictures: Pictures, names: Sequence[str]) -> dict[str, str]:
    """The captions of images that pairs show as well: the file's name says which; where several files are called so, none."""
    samples = read_samples(pictures.samples)
    texts = pictures.samples["text"].to_pylist()
    by_file: dict[str, set[str]] = {}
    for file, modality, text in zip(samples.image_name, pictures.samples["modality"].to_pylist(), texts, strict=True):
        if file and modality == "pair" and text:
            by_file.setdefault(file, set()).add(text)
    files = dict(zip(samples.ids, samples.image_name, strict=True))
    return {name: "; ".join(sorted(found)) for name in names if (found := by_file.get(files[name], set())) and len(found) < 6}


def _word(vocabulary: Sequence[str], token: int) -> str:
    return vocabulary[token] if token < len(vocabulary) else f"<{token}>"
