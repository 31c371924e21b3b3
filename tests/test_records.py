"""Records on disk of every stage: what they say is what was written, or one line names file, field and repair."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from linrep.artefact import Manifest as ArtefactManifest
from linrep.corpora.index import Index, build_index
from linrep.directions import Directions, DirectionSet, read_directions, write_directions
from linrep.errors import CorpusError, StoreError
from linrep.kind import UnitCommit
from linrep.places import place
from linrep.records import is_inside, only_artefact, read_record, write_record
from linrep.sae.pack import Trial
from linrep.store.commit import Commit
from linrep.store.manifest import Manifest

KINDS = (Manifest, Commit, ArtefactManifest, UnitCommit, Trial)
WRONG: tuple[Any, ...] = (None, True, 3, 0.5, "x", [], ["x"], {}, {"x": [1]})
AGAIN = "delete it and run the job again"


def value_of(hint: Any, n: int = 0) -> Any:
    """Some value of a type, as JSON has it."""
    import types
    import typing

    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return inner[0]
    if origin in (typing.Union, types.UnionType):
        return value_of(inner[0])
    if origin is dict:
        return {value_of(inner[0]): value_of(inner[1])}
    if origin is list or (origin is tuple and inner[-1] is Ellipsis):
        return [value_of(inner[0])]
    if origin is tuple:
        return [value_of(one) for one in inner]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return {f.name: value_of(hints[f.name]) for f in dataclasses.fields(hint)}
    return {int: 2, float: 1.5, str: "image", Any: "anything", bool: True}[hint]


def sample(kind: type) -> dict[str, Any]:
    value = value_of(kind)
    return value | {f.name: f.default for f in dataclasses.fields(kind) if f.name == "schema_version"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__.split('.')[1]}-{kind.__name__}")
def test_a_record_of_any_stage_is_what_was_written_or_an_error(tmp_path, kind):
    file = place(tmp_path) / "r.json"
    file.write_json(sample(kind))
    record = read_record(file, kind, AGAIN)
    write_record(file, record)
    assert read_record(file, kind, AGAIN) == record
    whole = file.read_json()
    for name, own in whole.items():
        for new in (new for new in WRONG if new != own and name != "status"):
            file.write_json({**whole, name: new})
            with pytest.raises(StoreError, match=r"r\.json (is damaged|has schema version).*: (delete it and )?run the job"):
                read_record(file, kind, AGAIN)
        if name != "check":
            file.write_json({key: value for key, value in whole.items() if key != name})
            with pytest.raises(StoreError, match=rf"r\.json is damaged \(field {name}\b.*: {AGAIN}"):
                read_record(file, kind, AGAIN)
    text = json.dumps(whole).encode()
    for at in np.random.default_rng(0).integers(0, len(text), 40):
        file.write_bytes(text[:at] + bytes([text[at] ^ 4]) + text[at + 1 :])
        try:
            assert read_record(file, kind, AGAIN) == record
        except StoreError as error:
            assert "r.json" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        file.write_bytes(text[:at])
        with pytest.raises(StoreError, match=r"r\.json is damaged"):
            read_record(file, kind, AGAIN)


def test_a_direction_set_is_what_was_written_or_an_error(tmp_path):
    vectors = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    own = DirectionSet((Directions("class_mean", 3, "pooled", "image", "class", ("a", "b", "c"), vectors, 2.0),))
    file = tmp_path / "directions.safetensors"
    write_directions(file, own, {"harvest": "x"})
    whole = file.read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            file.write_bytes(changed)
            try:
                found = read_directions(file)
            except StoreError as error:
                refused += 1
                assert "directions.safetensors" in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
            else:
                assert torch.equal(found.entries[0].vectors, vectors)
                assert (found.entries[0].key, found.entries[0].names) == (own.entries[0].key, ("a", "b", "c"))
                assert found.entries[0].token_norm == 2.0
                assert found.parents == {"harvest": "x"}
    assert refused > len(whole) // 3


def test_an_index_is_what_was_written_or_an_error(tmp_path, corpora):
    index = build_index(corpora)
    index.write(place(tmp_path))
    draw = np.random.default_rng(0)
    for name in ("index.json", "index.parquet"):
        file = tmp_path / name
        whole = file.read_bytes()
        for at in draw.integers(0, len(whole), 40):
            for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
                file.write_bytes(changed)
                with pytest.raises(CorpusError, match=r"the index in .* (is damaged|has format)") as error:
                    Index.read(place(tmp_path))
                assert "\n" not in str(error.value)
        file.write_bytes(whole)
    assert Index.read(place(tmp_path)).digest == index.digest


@pytest.mark.parametrize("path", ["", ".", "..", "../x", "a/../x", "/x", "a//b", "a/", "./a", "C:/x", "a\\b", "a\0b"])
def test_a_path_that_leads_out_is_known(path):
    assert not is_inside(path)
    assert is_inside("a") and is_inside("a/b=1/..c") and is_inside("a b/ü.parquet")  # noqa: PT018


def test_a_stranger_among_artefacts_is_no_artefact(tmp_path):
    (tmp_path / "probes" / "t-1").mkdir(parents=True)
    (tmp_path / "probes" / "Thumbs.db").write_text("x")
    assert only_artefact(place(tmp_path), "probes", "sets of probes").name == "t-1"
    (tmp_path / "probes" / "t-control-0").mkdir()
    assert only_artefact(place(tmp_path), "probes", "sets of probes").name == "t-1"
    (tmp_path / "alone" / "probes" / "t-control-0").mkdir(parents=True)
    assert only_artefact(place(tmp_path / "alone"), "probes", "sets of probes").name == "t-control-0"
