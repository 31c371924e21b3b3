"""A sample of a store as a dataset repository: some samples, their vectors at chosen layers and views, and a card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from linrep.contents.stored import open_contents
from linrep.errors import StoreError
from linrep.explorer.escaped import in_markdown
from linrep.hub.bundle import CARD, Bundle, Content, Wishes, content_of, hub_name, paths_in, shortened, without_paths
from linrep.hub.cards import block, front_matter, made_with
from linrep.places import Place
from linrep.sample import OF_ONE_IMAGE
from linrep.store.excerpt import draw_samples, samples_excerpt, vectors_excerpt
from linrep.store.layout import View
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.summary import size
from linrep.store.tables import write_table
from linrep.vlm.sites import transformer_lens_name

HARVEST = "harvest.json"
TAGS = ["activations", "residual-stream", "interpretability", "vision-language"]
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""An image as the hub's viewer and `datasets` know one."""


@dataclass(frozen=True)
class SampleChoice:
    """What of a store is meant.

    Attributes:
        n: Samples, at most; as many of each modality.
        layers: Layers; empty for all of the store.
        views: Views; empty for all of the store.
        texts: Whether texts go along, and whatever gives them away.
        images: Whether images go along; those of documents never do.
    """

    n: int = 256
    layers: tuple[int, ...] = ()
    views: tuple[View, ...] = ()
    texts: bool = False
    images: bool = False


def bundle_sample(workspace: Place, repository: str, choice: SampleChoice, wishes: Wishes, scratch: Place) -> Bundle:
    """The files of a dataset repository with a sample of a store.

    Args:
        workspace: A workspace with one harvest, or a harvest.
        repository: OWNER/NAME, for the card.
        choice: What of it.
        wishes: What the person says about it.
        scratch: An empty folder of this machine, for what is made here.

    Raises:
        StoreError: There is no complete store, or it lacks a layer or a view.
        CorpusError: Images are asked for, and the corpora do not give them any more.
    """
    store = open_store(workspace.uri)
    if not store.complete:
        raise StoreError(f"the harvest {store.place} is not complete: run jobs/harvest.py with the same recipe first")
    layers, views = choice.layers or store.manifest.layers, choice.views or store.manifest.views
    drawn = draw_samples(store, choice.n)
    ids = drawn["sample_id"].to_pylist()
    tables = {"samples": _samples(store, drawn, choice)}
    tables |= {
        f"{view}-layer-{layer:03d}": vectors_excerpt(store, view, layer, ids, choice.texts) for view in views for layer in layers
    }
    files: dict[str, Content] = {}
    for name, table in tables.items():
        write_table(scratch, f"data/{name}.parquet", table)
        files[f"data/{name}.parquet"] = content_of(scratch / f"data/{name}.parquet")
    about = _about(store, choice, tables)
    files[HARVEST] = (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()
    files[CARD] = _card(repository, about, tables, choice, wishes).encode()
    notes = (*_notes(choice, tables), *([] if wishes.license else ["no licence is named, so nobody may use it: --license ..."]))
    paths = {workspace.path, *paths_in(store.manifest.model), *paths_in(store.manifest.harvest)}
    return Bundle("dataset", f"{len(ids)} samples of a store", files, tuple(notes), tuple(paths))


def _samples(store: Store, drawn: pa.Table, choice: SampleChoice) -> pa.Table:
    table = samples_excerpt(drawn, choice.texts)
    if not choice.images:
        return table
    named = drawn.filter(pc.field("modality").isin(OF_ONE_IMAGE))["sample_id"].to_pylist()
    encoded = open_contents(store).encoded(named)
    images = [{"bytes": encoded[name], "path": None} if name in encoded else None for name in table["sample_id"].to_pylist()]
    return with_images(table, images)


def with_images(table: pa.Table, images: Sequence[Mapping[str, Any] | None]) -> pa.Table:
    """A table with a column of images, which says of itself that it holds images: `datasets` and the viewer show them."""
    table = table.append_column("image", pa.array(images, IMAGE))
    plain = {field.name: {"dtype": str(field.type), "_type": "Value"} for field in table.schema}
    said = {"info": {"features": {**plain, "image": {"_type": "Image"}}}}
    return table.replace_schema_metadata({b"huggingface": json.dumps(said).encode()})


def _about(store: Store, choice: SampleChoice, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    manifest = store.manifest
    path = str(manifest.model.get("path", ""))
    return {
        "harvest": manifest.digest,
        "model": {**without_paths(manifest.model), "path": hub_name(path) or shortened(path)},
        "layer_convention": manifest.layer_convention,
        "dtype": manifest.dtype,
        "width": manifest.width,
        "settings": without_paths(manifest.harvest),
        "samples_of_the_harvest": manifest.counts.get("n_samples"),
        "rows": {name: len(table) for name, table in tables.items()},
        "texts": choice.texts,
        "images": choice.images,
        "notes": list(manifest.notes),
    }


def _notes(choice: SampleChoice, tables: Mapping[str, pa.Table]) -> list[str]:
    whole = size(sum(table.nbytes for table in tables.values()))
    sent = [*(["texts"] if choice.texts else []), *(["images"] if choice.images else [])]
    kept = [
        *([] if choice.texts else ["texts, ids of tokens and vectors of single text tokens (--with-texts)"]),
        *([] if choice.images else ["images (--with-images)"]),
    ]
    return [
        f"{sum(map(len, tables.values())):,} rows, {whole} in memory; names, labels and classes of samples go along",
        *([f"{' and '.join(sent)} of the corpora GO ALONG: their licence must allow it"] if sent else []),
        *([f"left out: {'; '.join(kept)}"] if kept else []),
    ]


def _card(repository: str, about: Mapping[str, Any], tables: Mapping[str, pa.Table], choice: SampleChoice, wishes: Wishes) -> str:
    from huggingface_hub import DatasetCardData

    configs: Sequence[dict[str, Any]] = [
        {"config_name": name, "data_files": f"data/{name}.parquet", **({"default": True} if name == "samples" else {})}
        for name in tables
    ]
    vectors = [name for name in tables if name != "samples"]
    layers = sorted({int(name.rpartition("-")[2]) for name in vectors})
    code = [
        "import datasets", "",
        f'samples = datasets.load_dataset("{repository}", "samples", split="train")',
        *([f'vectors = datasets.load_dataset("{repository}", "{vectors[0]}", split="train").with_format("torch")',
           'x = vectors["vector"]  # [rows, d]'] if vectors else []),
    ]  # fmt: skip
    texts = "are here" if choice.texts else "are not here, nor the vectors of single text tokens, which hold their words"
    return "\n".join([
        *front_matter(DatasetCardData(license=wishes.license or None, tags=TAGS, configs=configs)),
        f"# A sample of the residual stream of {in_markdown(about['model']['path'])}", "",
        f"{len(tables['samples']):,} samples of a harvest of {about['samples_of_the_harvest']:,}, drawn by a hash of their "
        f"names, and their vectors of width {about['width']} at layers {', '.join(map(str, layers))}: the model's own scale, "
        f"{about['dtype']} written as float32. Layer convention: {about['layer_convention']}.", "",
        *[f"- layer {layer} is `{transformer_lens_name(layer)}` of TransformerLens and SAELens" for layer in layers], "",
        "`pooled` is the mean over a sample's image tokens, or over its own text tokens; `tokens` are single positions with "
        "their place in the image; `last` is the last position of the prompt. `norm` says which tokens are attention sinks: none "
        "is left out.", "",
        f"Texts of the corpora {texts}. Images {'are here' if choice.images else 'are not here'}.", "",
        "## Load", "", *block("python", "\n".join(code)),
        f"`{HARVEST}` says how the model was asked. Digest of the harvest: `{about['harvest']}`.", "",
        *made_with(),
    ])  # fmt: skip
