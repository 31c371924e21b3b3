"""Neuronpedia's import for an instance of one's own: load.sql beside an export, for psql.

The importer of the site fetches from its own bucket alone, which the people of Neuronpedia fill. An instance of one's own has a
database that takes the same rows: load.sql reads the files of the export into it, in the order of the site's importer. It
also brings what the importer does not read: who made the explanations, and their scores. Rows that are there already stay.

Source: github.com/hijohnnylin/neuronpedia at ebb8426 (August 2026): lib/db/import.ts (rows through jsonb, conflicts do nothing),
prisma/schema.prisma (tables, columns, what refers to what), README.md (a local database, its address).
"""

import shlex
from urllib.parse import quote

from linrep.features.exports.neuronpedia import SCORED_TASKS, Names
from linrep.places import Place

TABLES = (
    ("release.jsonl", "SourceRelease"),
    ("model.jsonl", "Model"),
    ("sourceset.jsonl", "SourceSet"),
    ("source.jsonl", "Source"),
    ("features", "Neuron"),
    ("activations", "Activation"),
)
"""What is read into which table, in an order in which all that a row refers to is there."""
LOCAL = "postgres://postgres:postgres@localhost:5432/postgres"
"""Address of the database that an instance of one's own has, unless its .env.localhost says another."""
METHOD = "linrep-evidence"
"""How explanations were made: from the samples on which a latent fires and is silent."""
SEPARATORS = "(format csv, quote e'\\x01', delimiter e'\\x02')"
"""Of CSV, so that a line of JSON is one cell: these two are never in it."""


def write_load(folder: Place, names: Names) -> Place:
    """Write load.sql for the files of an export; gives the file.

    Args:
        folder: The source's, complete.
        names: What Neuronpedia calls things.
    """
    own = [
        "\\set ON_ERROR_STOP on",
        "-- In this folder: psql ADDRESS -f load.sql",
        "begin;",
        "create temp table linrep_lines (line jsonb) on commit drop;",
    ]
    for name, table in TABLES:
        for file in _files(folder, name):
            own += _read(file) + _insert(table)
    explained = _files(folder, "explanations")
    if explained:
        own += [*_read("names.jsonl"), *_backends(names), *_kinds(names)]
        for file in explained:
            own += [*_read(file), *_insert("Explanation"), *_whose()]
        for file in _files(folder, "scores"):
            own += _read(file) + _insert("ExplanationScore")
    path = folder / "load.sql"
    path.write_bytes("\n".join([*own, "commit;", ""]).encode())
    return path


def _files(folder: Place, name: str) -> list[str]:
    """A file, or the files of a folder, in the order of their numbers."""
    if name.endswith(".jsonl"):
        return [name]
    there = [file for file in (folder / name).names() if file.endswith(".jsonl.gz")]
    return [f"{name}/{file}" for file in sorted(there, key=lambda file: (len(file), file))]


def _read(file: str) -> list[str]:
    how = f"program 'gzip -dc {file}'" if file.endswith(".gz") else f"'{file}'"
    return ["truncate linrep_lines;", f"\\copy linrep_lines from {how} {SEPARATORS}"]


def _insert(table: str) -> list[str]:
    """Rows of a table from lines, with its own defaults where the lines say nothing."""
    return [
        "do $$ declare names text; begin",
        "select string_agg(quote_ident(column_name), ', ') into names from information_schema.columns",
        f"where table_schema = current_schema() and table_name = '{table}'",
        "and column_name in (select jsonb_object_keys(line) from (select line from linrep_lines limit 1) as one);",
        "if names is not null then",
        f"execute format('insert into %1$I (%2$s) select %2$s from linrep_lines, jsonb_populate_record(null::%1$I, line) "
        f"on conflict do nothing', '{table}', names);",
        "end if; end $$;",
    ]


def _backends(names: Names) -> list[str]:
    """Who explained, in the tables of explaining models and of scoring models."""
    row = f"line->>'name', line->>'displayName', line->>'description', {_text(names.author)}"
    columns = '("name", "displayName", "description", "creatorName")'
    return [
        f'insert into "{table}" {columns} select {row} from linrep_lines on conflict do nothing;'
        for table in ("ExplanationModelType", "ExplanationScoreModel")
    ]


def _kinds(names: Names) -> list[str]:
    """How explanations were made, and what their scores are."""
    whose = f"{_text(names.author)}, {_text(names.user)}"
    columns = '("name", "displayName", "description", "creatorName", "creatorId")'
    said = f"{_text(METHOD)}, 'Line of Sight', 'from samples on which a latent fires and is silent', {whose}"
    rows = [f'insert into "ExplanationType" {columns} values ({said}) on conflict do nothing;']
    for task in SCORED_TASKS:
        for modality in ("image", "text"):
            kind = f"linrep-{task}-{modality}"
            said = f"{_text(kind)}, {_text(f'{task} of {modality}s')}, 'balanced accuracy, chance .5', {whose}"
            rows.append(f'insert into "ExplanationScoreType" {columns} values ({said}) on conflict do nothing;')
    return rows


def _whose() -> list[str]:
    """Who made the explanations, where the lines do not say it in names that an instance knows."""
    return [
        f'update "Explanation" set "typeName" = coalesce("typeName", {_text(METHOD)}),',
        """"explanationModelName" = coalesce("explanationModelName", line->>'madeBy')""",
        """from linrep_lines where "id" = line->>'id';""",
    ]


def _text(value: str) -> str:
    """A text of SQL."""
    return "'" + value.replace("'", "''") + "'"


def next_lines(source: Place, names: Names) -> list[str]:
    """What to do next on Neuronpedia's side, in lines.

    Args:
        source: The exported folder.
        names: What Neuronpedia calls things.
    """
    load = f"cd {shlex.quote(str(source))} && psql {LOCAL} -f load.sql"
    asks = f"http://localhost:3000/api/admin/import?modelId={quote(names.model)}&sourceId={quote(source.name)}"
    return [
        "Next, on Neuronpedia's side:",
        f"  an instance of your own, after its `make db-init`: {load}",
        f"  and look at it: http://localhost:3000/{quote(names.model)}/{quote(source.name)}",
        f"  its public bucket: ask johnny@neuronpedia.org to put {source} at v1/{names.model}/{source.name}",
        f"  and import it from there: curl {shlex.quote(asks)}",
    ]
