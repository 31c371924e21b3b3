"""Neuronpedia's bulk import: a folder of JSON lines, features and activations gzipped.

<model>/<layer>-<set>/{release,model,sourceset,source}.jsonl, features/batch-0.jsonl.gz, activations/batch-0.jsonl.gz ...

Neuronpedia has no place for images: their tokens print as placeholders, `<img r12 c07>` for a patch of the crops and
`<img base r03 c04>` for one of the base view, and only patches on which the latent fires are there. What it asks for and these
results do not know (histograms of logits, correlated neurons) is left empty.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow.compute as pc

from linrep.features.artefact import Features
from linrep.places import Place
from linrep.vlm.sites import transformer_lens_name

BATCH = 1024
"""Latents in a pair of files."""


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
    model: str,
    creator: str = "line-of-sight",
    layer: int | None = None,
) -> Place:
    """Write one SAE's features for import; gives the folder.

    Args:
        features: The results.
        sae: As the tables call it.
        words: The model's vocabulary, by token id.
        target: Where the folder of the model goes.
        model: What Neuronpedia calls the model.
        creator: Who is named for it.
        layer: The SAE's layer; may be left out where only one layer has an SAE of this name.

    Raises:
        StoreError: There is no such SAE, or there are several.
    """
    looked = features.sae(sae, layer)
    own = (pc.field("sae") == looked.name) & (pc.field("layer") == looked.layer)
    rows = features.table().filter(own).to_pylist()
    hook = transformer_lens_name(looked.layer)
    block, chosen = hook.split(".")[1], sae.replace("/", "-").replace("_", "-")
    source, made = f"{block}-{chosen}", features.manifest.finished
    folder = target / model / source
    whose = {"creatorId": creator, "createdAt": made}
    _lines(folder / "release.jsonl", [{"name": chosen, "description": chosen, "descriptionShort": chosen, "urls": [],
        "creatorName": creator, "creatorNameShort": creator, **whose}])  # fmt: skip
    _lines(folder / "model.jsonl", [{"id": model, "instruct": True, "displayName": model, "displayNameShort": model,
        "updatedAt": made, **whose}])  # fmt: skip
    _lines(folder / "sourceset.jsonl", [{"modelId": model, "name": chosen, "description": f"{sae}, {hook}",
        "releaseName": chosen, "creatorName": creator, "visibility": "PUBLIC", **whose}])  # fmt: skip
    _lines(folder / "source.jsonl", [{"modelId": model, "setName": chosen, "id": source, "visibility": "PUBLIC",
        "dataset": features.manifest.name, **whose}])  # fmt: skip
    counts = features.about.tokens
    for number, start in enumerate(range(0, len(rows), BATCH)):
        own = rows[start : start + BATCH]
        named = {"modelId": model, "layer": source}
        _lines(folder / f"features/batch-{number}.jsonl.gz", (_feature(row, named, hook, whose, counts) for row in own))
        examples = features.examples(sae, own[0]["latent"], own[-1]["latent"] + 1, looked.layer).to_pylist()
        _lines(folder / f"activations/batch-{number}.jsonl.gz", (_activation(row, named, words, whose) for row in examples))
    return folder


def _feature(row: dict[str, Any], named: dict[str, str], hook: str, whose: dict[str, str], counts: dict[str, int]) -> dict:
    fired = sum(row[f"rate_{m}"] * n for m, n in counts.items())
    return {
        **named, **whose, "index": str(row["latent"]), "hookName": hook, "hasVector": False, "vector": [],
        "maxActApprox": max(row["max_image"], row["max_text"]), "frac_nonzero": fired / max(sum(counts.values()), 1),
        "pos_str": row["words_up"], "pos_values": row["logits_up"],
        "neg_str": row["words_down"], "neg_values": row["logits_down"],
        "topkCosSimIndices": row["neighbours"], "topkCosSimValues": row["cosines"],
    }  # fmt: skip


def _activation(row: dict[str, Any], named: dict[str, str], words: Sequence[str], whose: dict[str, str]) -> dict:
    patches = row["modality"] == "image"
    nowhere = [None] * len(row["positions"])
    where = [row[name] if patches else nowhere for name in ("tiles", "rows", "cols")]
    texts = [token_text(token, tile, line, col, words) for token, tile, line, col in zip(row["token_ids"], *where, strict=True)]
    values = row["activations"]
    most = values.index(max(values))
    key = f"{named['layer']}/{row['latent']}/{row['modality']}/{row['kind']}/{row['quantile']}/{row['rank']}"
    return {
        **named, **whose, "id": hashlib.sha256(key.encode()).hexdigest()[:25], "index": str(row["latent"]),
        "tokens": texts, "values": values, "maxValue": values[most], "maxValueTokenIndex": most, "minValue": min(values),
        "dataIndex": row["sample_id"], "qualifyingTokenIndex": most,
    }  # fmt: skip


def _lines(file: Place, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    # Without the time of day in its head, the same results make the same bytes.
    file.write_bytes(gzip.compress(text, 5, mtime=0) if file.name.endswith(".gz") else text)
