"""load.sql of an export arrives in a database with Neuronpedia's tables, as far as the export fills them.

The tables are made here from the columns that `tests/features/test_exports.py` lists. By hand it was run against the tables
that the site's own 67 migrations make (August 2026). Without a Postgres on this machine this is skipped.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from linrep.features.exports.neuronpedia import USER, Names, write_neuronpedia
from linrep.features.exports.neuronpedia_load import TABLES, write_load
from linrep.features.study import plan_study
from linrep.places import Place, place
from tests.features.planted import CONFIG, draw, found_plainly, identity, write_store
from tests.features.test_exports import IMPORT, NUMBER, NUMBERS, TEXTS, TIME, WORDS, F, N, interpreted

SERVER = Path(os.path.realpath(shutil.which("postgres") or "/")).parent
KEYS = {
    "SourceRelease": 'primary key ("name")',
    "Model": 'primary key ("id")',
    "SourceSet": 'primary key ("modelId", "name"), foreign key ("modelId") references "Model", '
    'foreign key ("releaseName") references "SourceRelease"',
    "Source": 'primary key ("modelId", "id"), foreign key ("modelId", "setName") references "SourceSet"',
    "Neuron": 'primary key ("modelId", "layer", "index"), foreign key ("modelId", "layer") references "Source"',
    "Activation": 'primary key ("id"), foreign key ("modelId", "layer", "index") references "Neuron"',
    "Explanation": 'primary key ("id"), foreign key ("modelId", "layer", "index") references "Neuron", '
    'foreign key ("typeName") references "ExplanationType", '
    'foreign key ("explanationModelName") references "ExplanationModelType"',
    "ExplanationScore": 'primary key ("id"), foreign key ("explanationId") references "Explanation", '
    'foreign key ("explanationScoreTypeName") references "ExplanationScoreType", '
    'foreign key ("explanationScoreModelName") references "ExplanationScoreModel"',
}
NAMED = '"name" text primary key, "displayName" text not null, "description" text not null, "creatorName" text not null'


@pytest.fixture(scope="module")
def ask() -> Iterator:
    """Runs SQL, or a file in its folder, in a database of its own."""
    if not (SERVER / "initdb").is_file() or shutil.which("psql") is None:
        pytest.skip("there is no Postgres on this machine")
    user = None
    if os.geteuid() == 0:  # the server does not run as root
        known = {one.pw_name for one in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in known), None)
        if user is None:
            pytest.skip("nobody but root is here to run a server")
    folder = Path(tempfile.mkdtemp(prefix="np-"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

        def run(*words: str) -> None:
            subprocess.run(words, user=user, cwd=folder, check=True, capture_output=True, timeout=120)

        run(str(SERVER / "initdb"), "-D", "data", "-U", "np", "--auth=trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        # Its output goes into a file: a pipe would stay open as long as the server runs.
        run(str(SERVER / "pg_ctl"), "-D", "data", "-l", "log", "-o", options, "-w", "start")
        address = ["psql", "-h", str(folder), "-U", "np", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-qtA"]

        def asked(sql: str = "", file: Place | None = None) -> str:
            words = ["-c", sql] if file is None else ["-f", file.name]
            cwd = None if file is None else file.parent.path
            done = subprocess.run([*address, *words], cwd=cwd, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        try:
            yield asked
        finally:
            run(str(SERVER / "pg_ctl"), "-D", "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(name: str, fields: dict) -> str:
    def column(field: str, kind: object) -> str:
        kinds = {NUMBERS: "double precision[]", TEXTS: "text[]", TIME: "timestamp", str: "text", bool: "boolean", int: "integer"}
        written = "double precision" if kind == NUMBER else kinds.get(kind[0] if isinstance(kind, tuple) else kind)
        return f'"{field.removesuffix("?")}" {written}' + ("" if field.endswith("?") else " not null")

    owner = "authorId" if "authorId" in fields else "creatorId"
    columns = [column(field, kind) for field, kind in fields.items()]
    return f'create table "{name}" ({", ".join([*columns, KEYS[name]])}, foreign key ("{owner}") references "User");'


def tables() -> str:
    made = ['create table "User" ("id" text primary key);', f"insert into \"User\" values ('{USER}');"]
    made += [f'create table "{name}" ({NAMED});' for name in ("ExplanationModelType", "ExplanationScoreModel")]
    made += [
        f'create table "{name}" ({NAMED}, "creatorId" text not null);' for name in ("ExplanationType", "ExplanationScoreType")
    ]
    files = {name: file if file.endswith("jsonl") else f"{file}/batch-0.jsonl.gz" for file, name in TABLES}
    made += [table(name, IMPORT[file]) for name, file in files.items()]
    made.append(table("Explanation", IMPORT["explanations/batch-0.jsonl.gz"]))
    score = {"id": str, "value": NUMBER, "explanationId": str, "creatorId?": str, "initiatedByUserId": str, "jsonDetails": str}
    made.append(table("ExplanationScore", score | {"explanationScoreTypeName": str, "explanationScoreModelName": str}))
    return "\n".join(made)


@pytest.mark.slow
def test_all_that_was_exported_arrives_once_however_often_it_is_loaded(ask, tmp_path):
    images, texts = draw(N, F, 1), draw(N, F, 2)
    study = plan_study(write_store(tmp_path / "s", images, texts, np.arange(N) % 4), CONFIG, latents=identity(F))
    features = found_plainly(tmp_path / "w", study)
    names = Names("m", n_blocks=3, width=8, author="o'hara")
    folder = write_neuronpedia(features, "own", WORDS, place(tmp_path / "a b"), names, interpreted=interpreted())
    load = write_load(folder, names)
    ask(tables())
    for _ in range(2):
        ask(file=load)
        for name, n in (
            ("Model", 1),
            ("Source", 1),
            ("Neuron", F),
            ("Activation", len(features.examples("own"))),
            ("Explanation", 1),
        ):
            assert ask(f'select count(*) from "{name}"') == str(n), name
    said = ask('select "description", "typeName", "explanationModelName" from "Explanation"')
    assert said == "a boat's \ufffd 'sail'\n|linrep-evidence|chat-gpt-4"
    assert ask('select "value", "explanationScoreTypeName" from "ExplanationScore"') == "0.75|linrep-detection-image"
    assert ask('select "tokens"[1] from "Activation" where "dataSource" = \'image\' limit 1').startswith("<img ")
    assert ask('select "creatorName" from "SourceSet"') == "o'hara"
