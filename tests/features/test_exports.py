"""Exports hold the same numbers as the tables, in the forms that others read."""

import gzip
import json
from datetime import datetime

import numpy as np
import pytest
from safetensors.numpy import load_file

from linrep.features.exports.__main__ import main
from linrep.features.exports.delphi import write_delphi
from linrep.features.exports.neuronpedia import USER, Interpreted, Names, source_of, token_text, write_neuronpedia
from linrep.features.exports.neuronpedia_load import next_lines
from linrep.features.study import plan_study
from linrep.places import place
from linrep.store.tables import table_of
from schemas.interpret import EXPLANATIONS, SCORES
from tests.features.planted import CONFIG, draw, found_plainly, identity, write_store

F, N = 10, 30
WORDS = tuple(f" w{i}" for i in range(40))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("x")
    images, texts = draw(N, F, 1), draw(N, F, 2)
    study = plan_study(write_store(folder / "s", images, texts, np.arange(N) % 4), CONFIG, latents=identity(F))
    return images, texts, found_plainly(folder / "w", study)


def lines(path) -> list[dict]:
    raw = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines()]


def test_neuronpedia_gets_every_feature_and_example(found, tmp_path):
    _, texts, features = found
    folder = write_neuronpedia(features, "own", WORDS, place(tmp_path), Names("m"))
    here = tmp_path / "m" / "0-own-resid-pre"
    assert folder.path == str(here)
    assert {p.name for p in here.iterdir()} == {
        "release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl", "features", "activations"
    }  # fmt: skip
    rows = lines(here / "features/batch-0.jsonl.gz")
    assert [row["index"] for row in rows] == [str(i) for i in range(F)]
    assert {row["hookName"] for row in rows} == {"blocks.0.hook_resid_pre"}
    z = np.concatenate([np.concatenate(some) for some in found[:2]])
    np.testing.assert_allclose([row["frac_nonzero"] for row in rows], (z > 0).mean(0))
    acts = lines(here / "activations/batch-0.jsonl.gz")
    assert len(acts) == len(features.examples("own"))
    assert len({row["id"] for row in acts}) == len(acts)
    for row in acts:
        assert row["maxValue"] == max(row["values"]) == row["values"][row["maxValueTokenIndex"]]
        assert len(row["tokens"]) == len(row["values"])
        number, latent = int(row["dataIndex"][1:]), int(row["index"])
        if row["dataIndex"].startswith("i"):
            assert all(t.startswith("<img base r0") for t in row["tokens"])
        else:
            peak = int(texts[number][:, latent].argmax())
            assert row["tokens"] == [f" w{10 + t}" for t in range(max(0, peak - 2), min(len(texts[number]), peak + 3))]
    assert token_text(3, 1, 12, 7, WORDS) == "<img r12 c07>"


NUMBER, NUMBERS, TEXTS, TIME = (int, float), "numbers", "texts", "time"
WHOSE = {"creatorId": str, "createdAt?": TIME}
IMPORT = {
    "release.jsonl": {
        **WHOSE, "name": str, "description": str, "creatorName": str, "descriptionShort?": str, "creatorNameShort?": str,
        "urls?": TEXTS, "visibility?": str,
    },
    "model.jsonl": {
        **WHOSE, "id": str, "layers": int, "neuronsPerLayer": int, "owner": str, "instruct?": bool, "displayName?": str,
        "displayNameShort?": str, "updatedAt?": TIME, "dimension?": int, "visibility?": str, "inferenceEnabled?": bool,
    },
    "sourceset.jsonl": {
        **WHOSE, "modelId": str, "name": str, "description": str, "creatorName": str, "visibility?": str, "releaseName?": str,
        "urls?": TEXTS, "allowInferenceSearch?": bool,
    },
    "source.jsonl": {
        **WHOSE, "id": str, "modelId": str, "setName": str, "visibility?": str, "dataset?": str, "notes?": str,
    },
    "features/batch-0.jsonl.gz": {
        **WHOSE, "modelId": str, "layer": str, "index": str, "maxActApprox?": NUMBER, "hasVector?": bool, "vector?": NUMBERS,
        "hookName?": str, "topkCosSimIndices?": NUMBERS, "topkCosSimValues?": NUMBERS, "neg_str?": TEXTS, "neg_values?": NUMBERS,
        "pos_str?": TEXTS, "pos_values?": NUMBERS, "frac_nonzero?": NUMBER, "sourceSetName?": str,
    },
    "activations/batch-0.jsonl.gz": {
        **WHOSE, "id": str, "tokens?": TEXTS, "index": str, "layer": str, "modelId": str, "maxValue": NUMBER,
        "maxValueTokenIndex": int, "minValue": NUMBER, "values?": NUMBERS, "dataIndex?": str, "dataSource?": str,
        "qualifyingTokenIndex?": int,
    },
    "explanations/batch-0.jsonl.gz": {
        "id": str, "modelId": str, "layer": str, "index": str, "description": str, "authorId": str, "createdAt?": TIME,
        "notes?": str, "typeName?": (str, type(None)), "explanationModelName?": (str, type(None)),
    },
}  # fmt: skip
"""Columns of Neuronpedia's tables that we fill, by file; a question mark: its database fills them in, or leaves them empty.

The importer makes the records of the first four files one by one, and refuses a field that it does not know; of the others it
takes the columns from a file's first line, and ignores what is no column.

Source: github.com/hijohnnylin/neuronpedia at ebb8426: apps/webapp/prisma/schema.prisma, lib/db/import.ts, app/api/admin/import.
"""
IGNORED = {"explanations/batch-0.jsonl.gz": {"madeBy"}}
"""What we write for load.sql alone."""


def fits(value, kind) -> bool:
    if kind == NUMBERS:
        return isinstance(value, list) and all(fits(v, NUMBER) for v in value)
    if kind == TEXTS:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if kind == TIME:
        return datetime.fromisoformat(value).year > 2000
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def interpreted() -> Interpreted:
    whose = {
        "layer": 0,
        "source": "chat:GPT 4",
        "n_shown_image": 1,
        "n_shown_text": 1,
        "rate_image": 0.1,
        "rate_text": 0.1,
        "parents": "",
    }
    said = [{**whose, "sae": sae, "latent": i, "explanation": text} for sae, i, text in EXPLAINED]
    score = {"layer": 0, "sae": "own", "latent": 3, "modality": "image", "source": "chat:GPT 4", "n_positive": 4, "n_negative": 4}
    score |= {"n_hard": 0, "n_unanswered": 0, "low": 0.5, "high": 1.0, "sensitivity": 0.75, "specificity": 0.75}
    kinds = [("detection", "own", 0.75), ("detection", "shuffled", 0.5), ("fuzzing", "own", None), ("overlap", "own", 0.3)]
    scores = [{**score, "task": task, "control": control, "value": value} for task, control, value in kinds]
    return Interpreted(table_of(said, EXPLANATIONS), table_of(scores, SCORES))


EXPLAINED = (("own", 3, "a boat's \0 'sail'\n"), ("own", 5, None), ("own/random", 4, "nothing"))
NAMES = Names("m", n_blocks=3, width=8)


def test_neuronpedias_records_are_filled_field_by_field_and_name_each_other(found, tmp_path):
    write_neuronpedia(found[2], "own", WORDS, place(tmp_path), NAMES, interpreted=interpreted())
    records = {}
    for name, fields in IMPORT.items():
        records[name] = lines(tmp_path / "m/0-own-resid-pre" / name)
        kinds = {field.removesuffix("?"): kind for field, kind in fields.items()}
        needed = {field for field in fields if not field.endswith("?")}
        assert len({tuple(row) for row in records[name]}) == 1  # the first line names the columns
        for row in records[name]:
            assert needed <= row.keys() <= kinds.keys() | IGNORED.get(name, set())
            assert [field for field, kind in kinds.items() if field in row and not fits(row[field], kind)] == []
    (release,), (model,), (group,), (source,), features, activations, (explanation,) = records.values()
    assert (group["modelId"], group["releaseName"]) == (model["id"], release["name"])
    assert (source["modelId"], source["setName"], source["id"]) == (model["id"], group["name"], f"0-{group['name']}")
    assert "Layer 0 is the residual stream entering block 0: blocks.0.hook_resid_pre" in group["description"]
    for row in (*features, *activations, explanation):
        assert (row["modelId"], row["layer"]) == (model["id"], source["id"])
    assert {row["index"] for row in (*activations, explanation)} <= {row["index"] for row in features}
    # The one account that every instance has: rows of another are refused.
    assert {row.get("creatorId", row.get("authorId")) for rows in records.values() for row in rows} == {USER}
    assert explanation["index"] == "3"
    assert explanation["description"] == "a boat's \ufffd 'sail'\n"
    assert explanation["notes"] == "by chat:GPT 4; balanced accuracy (chance .50): detection of images 0.75"
    # Names that Neuronpedia's tables do not have would stop its import.
    assert (explanation["typeName"], explanation["explanationModelName"]) == (None, None)
    (score,) = lines(tmp_path / "m/0-own-resid-pre/scores/batch-0.jsonl.gz")
    assert (score["explanationId"], score["value"]) == (explanation["id"], 0.75)


def test_two_layers_of_one_block_are_two_sources_that_say_which_stream_they_read():
    assert source_of("a_b/c__d", 0) == ("a-b-c-d-resid-pre", "0-a-b-c-d-resid-pre")
    assert source_of("a_b/c__d", 1) == ("a-b-c-d-resid-post", "0-a-b-c-d-resid-post")
    assert source_of("s", 32)[1] == "31-s-resid-post"


def test_the_next_commands_name_the_folder_and_the_source_as_a_shell_takes_them():
    shown = next_lines(place("/tmp/a b/m/3-s"), Names("m"))
    assert "cd '/tmp/a b/m/3-s' && psql " in shown[1]
    assert shown[-1].endswith("curl 'http://localhost:3000/api/admin/import?modelId=m&sourceId=3-s'")


def test_delphi_cache_is_the_codes(found, tmp_path):
    images, _, features = found
    folder = write_delphi(features, "own", place(tmp_path), ("image",), samples=12, splits=3, padding=7)
    assert folder.path.endswith("embeddings")
    files = sorted((tmp_path / "embeddings").glob("*.safetensors"), key=lambda p: int(p.stem.split("_")[0]))
    assert [p.stem for p in files] == ["0_2", "3_5", "6_9"]
    dense = None
    for path in files:
        split = load_file(path)
        tokens, start = split["tokens"], int(path.stem.split("_")[0])
        dense = np.zeros((*tokens.shape, F), np.float32) if dense is None else dense
        where = split["locations"].astype(int)
        assert split["activations"].dtype == np.float16
        dense[where[:, 0], where[:, 1], where[:, 2] + start] = split["activations"]
    assert dense.shape[0] == 12
    for i in range(12):
        t = len(images[i])
        np.testing.assert_allclose(dense[i, :t], np.maximum(images[i], 0), rtol=1e-3)
        assert (dense[i, t:] == 0).all()
        assert tokens[i].tolist() == [99] * t + [7] * (tokens.shape[1] - t)
    assert json.loads((tmp_path / "embeddings/config.json").read_text())["ctx_len"] == tokens.shape[1]


@pytest.mark.parametrize("ctx", [4, 32])
def test_delphi_cuts_the_cache_into_examples_of_one_sample_each(found, tmp_path, ctx):
    # Delphi's rule: tokens.reshape(-1, n), and an entry is of example (row * width + column) // n, at its remainder; here n = 4.
    images, texts, features = found
    assert max(map(len, [*images, *texts])) > 4
    folder = tmp_path / "embeddings"
    write_delphi(features, "own", place(tmp_path), splits=3, padding=7, ctx=ctx)
    splits = {int(path.stem.split("_")[0]): load_file(path) for path in folder.glob("*.safetensors")}
    tokens = splits[0]["tokens"]
    assert tokens.shape[1] == json.loads((folder / "config.json").read_text())["ctx_len"] == ctx
    examples = tokens.reshape(-1, 4)
    z = np.zeros((*examples.shape, F), np.float32)
    for start, split in splits.items():
        np.testing.assert_array_equal(split["tokens"], tokens)
        row, column, latent = split["locations"].astype(int).T
        flat = row * ctx + column
        z[flat // 4, flat % 4, start + latent] = split["activations"]
    # By hand: the tokens of a sample four by four, each run in a row of its own, silent wherever there is padding.
    wanted, kinds = [], []
    for letter, samples in (("i", images), ("t", texts)):
        for x in samples:
            rows = -(-len(x) // ctx) * (ctx // 4)
            padded = np.zeros((rows * 4, F), np.float32)
            padded[: len(x)] = np.maximum(x, 0)
            ids = [99] * len(x) if letter == "i" else list(range(10, 10 + len(x)))
            wanted.append(padded.reshape(-1, 4, F))
            kinds += ids + [7] * (rows * 4 - len(x))
    np.testing.assert_array_equal(examples.ravel(), kinds)
    np.testing.assert_allclose(z, np.concatenate(wanted), rtol=1e-3)
    # With rows of one example each, none is padding alone.
    assert (examples == 7).all(axis=1).any() == (ctx > 4)


def test_the_command_writes_and_refuses_in_one_line(found, tmp_path, capsys):
    _, _, features = found
    assert main(["delphi", features.place.path, str(tmp_path / "d")]) == 0
    assert (tmp_path / "d/embeddings/config.json").is_file()
    assert main(["delphi", features.place.path, str(tmp_path / "d"), "--sae", "no"]) == 1
    assert main(["neuronpedia", str(tmp_path / "nothing"), str(tmp_path / "n")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "no SAE 'no' in" in said[0]
