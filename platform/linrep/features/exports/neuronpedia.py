"""Neuronpedia's bulk import: a folder of JSON lines for one SAE, features, activations and explanations gzipped.

<model>/<block>-<set>/{release,model,sourceset,source}.jsonl, {features,activations}/batch-0.jsonl.gz ...
explanations/batch-0.jsonl.gz; beside them, which its importer does not read: names.jsonl, scores/batch-0.jsonl.gz.
`linrep.features.exports.neuronpedia_load` writes load.sql beside them. Explanations name their method and model only if the
caller knows names that Neuronpedia has: an unknown one stops its import. The notes have both, and load.sql brings them along.

Layers. Layer k here is the residual stream entering block k. Neuronpedia counts blocks, and tells the streams before and after a
block apart by TransformerLens's names: layer k is `blocks.<k-1>.hook_resid_post`, layer 0 is `blocks.0.hook_resid_pre`. The set's
name ends with the hook's, so that `0-<sae>-resid-pre` and `0-<sae>-resid-post` are two sources.

Neuronpedia has no place for images: their tokens print as placeholders, `<img r12 c07>` for a patch of the crops and
`<img base r03 c04>` for one of the base view, and only patches on which the latent fires are there. It has no place for controls
either. What it asks for and these results do not know (histograms of logits, correlated neurons) is left empty.

Source: github.com/hijohnnylin/neuronpedia at ebb8426 (August 2026): apps/webapp/app/api/admin/import (order and files of an
import), lib/db/import.ts (the first line of a file names its columns, what is no column is ignored), prisma/schema.prisma.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from linrep.features.artefact import Features, StudiedSae
from linrep.places import Place
from linrep.vlm.sites import transformer_lens_name

BATCH = 1024
"""Latents in a file, as Neuronpedia's own exports have them."""
USER = "clkht01d40000jv08hvalcvly"
"""The account that owns imported data on every instance: each is seeded with it. Rows of an unknown one are refused."""
SCORED_TASKS = ("detection", "fuzzing")
"""Scores that are exported; overlap needs the known truth of the embedded world."""
CANNOT_SHOW = (
    "Not shown there: images (a patch prints as <img row column>, only where the latent fires), heat maps, controls, F1, "
    "monosemanticity, modality scores."
)
_UNSAFE = re.compile(r"[^a-z0-9.-]+")


@dataclass(frozen=True)
class Names:
    """What Neuronpedia calls the things of an export.

    Attributes:
        model: Its id of the model.
        n_blocks: Blocks of the model; 0 where that is not known. Like the width it is read only where the model is new there.
        width: Width of the residual stream.
        author: Who is named for the source.
        user: Its id of the account that owns the rows.
        explained_by: Its name for how explanations were made, None for none. A name that it does not know stops an import.
        explained_with: Its name for the model that made them, likewise.
    """

    model: str
    n_blocks: int = 0
    width: int | None = None
    author: str = "line-of-sight"
    user: str = USER
    explained_by: str | None = None
    explained_with: str | None = None


@dataclass(frozen=True)
class Interpreted:
    """Explanations of the latents, and how well each predicts.

    Attributes:
        explanations: Rows of the `EXPLANATIONS` contract.
        scores: Rows of the `SCORES` contract.
    """

    explanations: pa.Table
    scores: pa.Table


def name_of(text: str) -> str:
    """A name as Neuronpedia's addresses take it.

    >>> name_of("Topk_16/x8"), name_of("llava-v1.6-Mistral-7b-hf")
    ('topk-16-x8', 'llava-v1.6-mistral-7b-hf')
    """
    return _UNSAFE.sub("-", text.lower()).strip("-") or "unnamed"


def source_of(sae: str, layer: int) -> tuple[str, str]:
    """Neuronpedia's names of an SAE: its set and its source.

    >>> source_of("topk-16-x8", 4), source_of("topk-16-x8", 0)
    (('topk-16-x8-resid-post', '3-topk-16-x8-resid-post'), ('topk-16-x8-resid-pre', '0-topk-16-x8-resid-pre'))
    """
    _, block, hook = transformer_lens_name(layer).split(".")
    # Two underscores would begin what Neuronpedia takes for more than the set's name.
    name = f"{name_of(sae)}-{hook.removeprefix('hook_').replace('_', '-')}"
    return name, f"{block}-{name}"


def token_text(token_id: int, tile: int | None, row: int | None, col: int | None, words: Sequence[str]) -> str:
    """How a token prints.

    >>> token_text(5, 2, 12, 7, ())
    '<img r12 c07>'
    >>> token_text(1, None, None, None, ("<s>", " boat"))
    ' boat'
    """
    if row is not None and col is not None:
        return f"<img {'base ' if tile == 0 else ''}r{row:02d} c{col:02d}>"
    return words[token_id] if 0 <= token_id < len(words) else f"<{token_id}>"


def write_neuronpedia(
    features: Features,
    sae: str,
    words: Sequence[str],
    target: Place,
    names: Names,
    layer: int | None = None,
    interpreted: Interpreted | None = None,
) -> Place:
    """Write one SAE's features for import; gives the folder.

    Args:
        features: The results.
        sae: As the tables call it.
        words: The model's vocabulary, by token id.
        target: Where the folder of the model goes.
        names: What Neuronpedia calls things.
        layer: The SAE's layer; may be left out where only one layer has an SAE of this name.
        interpreted: Explanations of these features, None for none.

    Raises:
        StoreError: There is no such SAE, or there are several.
    """
    looked = features.sae(sae, layer)
    own = (pc.field("sae") == looked.name) & (pc.field("layer") == looked.layer)
    rows = features.table().filter(own).to_pylist()
    group, source = source_of(looked.name, looked.layer)
    folder = target / names.model / source
    made = _time(features.manifest.finished)
    for file, record in _records(features, looked, names, made).items():
        _lines(folder / file, [record])
    counts, named = features.about.tokens, {"modelId": names.model, "layer": source}
    whose = {"creatorId": names.user, "createdAt": made}
    for number, start in enumerate(range(0, len(rows), BATCH)):
        some = rows[start : start + BATCH]
        more = {**named, **whose, "sourceSetName": group, "hookName": transformer_lens_name(looked.layer)}
        _lines(folder / f"features/batch-{number}.jsonl.gz", (_feature(row, more, counts) for row in some))
        examples = features.examples(looked.name, some[0]["latent"], some[-1]["latent"] + 1, looked.layer).to_pylist()
        _lines(folder / f"activations/batch-{number}.jsonl.gz", (_activation(row, {**named, **whose}, words) for row in examples))
    _explanations(folder, interpreted, looked, named, names, made)
    return folder


def _records(features: Features, looked: StudiedSae, names: Names, made: str) -> dict[str, dict[str, Any]]:
    """The records of release, model, set and source, by file; each names those above it."""
    group, source = source_of(looked.name, looked.layer)
    hook, whose = transformer_lens_name(looked.layer), {"creatorId": names.user, "createdAt": made}
    release = name_of(f"{names.author}-{features.manifest.name}")
    title = f"{names.author}: {features.manifest.name}"
    about = (
        f"SAE {looked.name} on image and text tokens of a vision-language model. Layer {looked.layer} is the residual stream "
        f"entering block {looked.layer}: {hook}. Image tokens print as patches, <img row column>"
    )
    return {
        "release.jsonl": {
            "name": release, "description": title, "descriptionShort": title, "urls": [], "creatorName": names.author,
            "creatorNameShort": names.author, "visibility": "PUBLIC", **whose,
        },
        "model.jsonl": {
            "id": names.model, "instruct": True, "displayName": names.model, "displayNameShort": names.model, "owner": "",
            "layers": names.n_blocks, "neuronsPerLayer": 0, "dimension": names.width, "inferenceEnabled": False,
            "visibility": "PUBLIC", "updatedAt": made, **whose,
        },
        "sourceset.jsonl": {
            "modelId": names.model, "name": group, "description": about, "releaseName": release, "creatorName": names.author,
            "urls": [], "visibility": "PUBLIC", "allowInferenceSearch": False, **whose,
        },
        "source.jsonl": {
            "modelId": names.model, "setName": group, "id": source, "visibility": "PUBLIC", "dataset": features.manifest.name,
            "notes": f"features {features.name}; layer {looked.layer}: {hook}", **whose,
        },
    }  # fmt: skip


def _feature(row: Mapping[str, Any], named: Mapping[str, str], counts: Mapping[str, int]) -> dict[str, Any]:
    fired = sum(row[f"rate_{m}"] * n for m, n in counts.items())
    return {
        **named, "index": str(row["latent"]), "hasVector": False, "vector": [],
        "maxActApprox": max(row["max_image"], row["max_text"]), "frac_nonzero": fired / max(sum(counts.values()), 1),
        "pos_str": row["words_up"], "pos_values": row["logits_up"],
        "neg_str": row["words_down"], "neg_values": row["logits_down"],
        "topkCosSimIndices": row["neighbours"], "topkCosSimValues": row["cosines"],
    }  # fmt: skip


def _activation(row: Mapping[str, Any], named: Mapping[str, str], words: Sequence[str]) -> dict[str, Any]:
    patches = row["modality"] == "image"
    nowhere = [None] * len(row["positions"])
    where = [row[name] if patches else nowhere for name in ("tiles", "rows", "cols")]
    texts = [token_text(token, tile, line, col, words) for token, tile, line, col in zip(row["token_ids"], *where, strict=True)]
    values = row["activations"]
    most = values.index(max(values))
    key = (named["modelId"], named["layer"], row["latent"], row["modality"], row["kind"], row["quantile"], row["rank"])
    return {
        **named, "id": _id("activation", *key), "index": str(row["latent"]), "tokens": texts, "values": values,
        "maxValue": values[most], "maxValueTokenIndex": most, "minValue": min(values), "dataIndex": row["sample_id"],
        "dataSource": row["modality"], "qualifyingTokenIndex": most,
    }  # fmt: skip


def _explanations(
    folder: Place, interpreted: Interpreted | None, looked: StudiedSae, named: Mapping[str, str], names: Names, made: str
) -> None:
    """Explanations in runs of latents, as the importer takes them; beside them scores and backends, which it does not read."""
    if interpreted is None:
        return
    mine = (pl.col("layer") == looked.layer) & (pl.col("sae") == looked.name)
    said = pl.DataFrame(pl.from_arrow(interpreted.explanations)).filter(mine).drop_nulls("explanation").sort("latent")
    own = pl.col("control") == "own"
    scores = pl.DataFrame(pl.from_arrow(interpreted.scores)).filter(mine & own & pl.col("task").is_in(SCORED_TASKS))
    scores = scores.drop_nulls("value").sort("latent", "task", "modality")
    rows = said.to_dicts()
    ids = {row["latent"]: _id("explanation", *named.values(), row["latent"], row["source"], row["explanation"]) for row in rows}
    by_latent = {int(str(latent)): part.to_dicts() for (latent,), part in scores.group_by(["latent"], maintain_order=True)}
    batches: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found = by_latent.get(row["latent"], [])
        shown = ", ".join(f"{one['task']} of {one['modality']}s {one['value']:.2f}" for one in found)
        notes = f"by {row['source']}" + (f"; balanced accuracy (chance .50): {shown}" if shown else "")
        batches.setdefault(row["latent"] // BATCH, []).append({
            **named, "id": ids[row["latent"]], "index": str(row["latent"]), "description": row["explanation"], "notes": notes,
            "authorId": names.user, "typeName": names.explained_by, "explanationModelName": names.explained_with,
            "createdAt": made, "madeBy": name_of(row["source"]),
        })  # fmt: skip
    for number, some in batches.items():
        _lines(folder / f"explanations/batch-{number}.jsonl.gz", some)
    _lines(folder / "names.jsonl", [_backend(source) for source in said["source"].unique(maintain_order=True)])
    kept = scores.filter(pl.col("latent").is_in(list(ids))).to_dicts()
    _lines(folder / "scores/batch-0.jsonl.gz", (_score(row, ids[row["latent"]], names, made) for row in kept))


def _backend(source: str) -> dict[str, Any]:
    """Who explained, as a row of Neuronpedia's table of explaining models."""
    return {"name": name_of(source), "displayName": source, "description": f"explanations by {source}", "source": source}


def _score(row: Mapping[str, Any], explanation: str, names: Names, made: str) -> dict[str, Any]:
    kind = f"linrep-{row['task']}-{row['modality']}"
    details = {name: row[name] for name in ("low", "high", "sensitivity", "specificity", "n_positive", "n_negative")}
    return {
        "id": _id("score", explanation, kind), "value": row["value"], "explanationId": explanation,
        "initiatedByUserId": names.user, "explanationScoreTypeName": kind, "explanationScoreModelName": name_of(row["source"]),
        "jsonDetails": json.dumps(details), "createdAt": made,
    }  # fmt: skip


def _id(*key: object) -> str:
    return hashlib.sha256("/".join(map(str, key)).encode()).hexdigest()[:25]


def _time(when: str) -> str:
    """A time as JavaScript and Postgres read it alike: UTC, to the second."""
    return when.replace("+00:00", "Z")


def _lines(file: Place, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(_clean(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    # Without the time of day in its head, the same results make the same bytes.
    file.write_bytes(gzip.compress(text, 5, mtime=0) if file.name.endswith(".gz") else text)


def _clean(value: Any) -> Any:
    """Without what Postgres cannot hold in a text: zero bytes."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {name: _clean(own) for name, own in value.items()}
    return [_clean(own) for own in value] if isinstance(value, list) else value
