"""Results of a workspace as a dataset repository: the report, the tables as they lie in the workspace, a card, the recipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from linrep.artefact import Artefact
from linrep.errors import StoreError
from linrep.explorer.escaped import SENTENCES, in_markdown
from linrep.explorer.site.results import Results, headline, open_results
from linrep.hub.bundle import CARD, RECIPE, Bundle, Content, Wishes, content_of, paths_in, recipe_of, recipe_text, without_paths
from linrep.hub.cards import block, front_matter, made_with
from linrep.places import Place
from linrep.records import MANIFEST, SUMMARY, write_record

REPORTS = ("report.html", "report.md")
FIGURES = "figures"
TAGS = ["interpretability", "vision-language", "line-of-sight"]


@dataclass(frozen=True)
class SharedTable:
    """A table that is sent.

    Attributes:
        stage: Of the stage that made it.
        name: Its name.
        path: Where it lies in the repository.
    """

    stage: str
    name: str
    path: str


def bundle_results(workspace: Place, repository: str, stages: Sequence[str], wishes: Wishes, scratch: Place) -> Bundle:
    """The files of a dataset repository of results.

    Args:
        workspace: Where they lie.
        repository: OWNER/NAME, for the card.
        stages: Which stages' results; all where none is named.
        wishes: What the person says about them.
        scratch: An empty folder of this machine, for what is made here.

    Raises:
        StoreError: There are no complete results, or a result is damaged.
    """
    results = open_results(workspace)
    if results.damaged:
        raise StoreError(results.damaged[0])
    there = [stage for stage, found in results.artefacts.items() if found]
    unknown = [stage for stage in stages if stage not in there]
    if unknown or not there:
        which = f" of {unknown[0]}" if unknown else ""
        raise StoreError(f"no complete results{which} in {workspace}: there are {', '.join(there) or 'none'}")
    files: dict[str, Content] = {name: content_of(workspace / name) for name in REPORTS if (workspace / name).is_file()}
    tables, findings = [], []
    for stage in stages or there:
        for one in results.artefacts[stage]:
            key = results.key(one)
            files |= {f"{key}/{name}": content for name, content in _files(one, scratch / key)}
            tables += [SharedTable(stage, name, f"{key}/{name}.parquet") for name in _tables(one)]
            findings.append((stage, key, headline(one.place)))
    names = {one.manifest.name for found in results.artefacts.values() for one in found}
    recipe = recipe_of(workspace, next(iter(names))) if len(names) == 1 else None
    files |= {} if recipe is None else {RECIPE: recipe_text(recipe)}
    files[CARD] = _card(repository, tables, findings, wishes, REPORTS[0] in files).encode()
    notes = [
        *([f"{REPORTS[0]} and {REPORTS[1]} show images and texts of the corpora"] if REPORTS[0] in files else []),
        *([] if wishes.license else ["no licence is named, so nobody may use it: --license cc-by-4.0, for example"]),
        *([] if recipe is not None else ["no recipe is sent: the workspace remembers none of these results, or several"]),
    ]
    return Bundle("dataset", f"results of {', '.join(stages or there)}", files, tuple(notes), _paths(results, recipe))


def _tables(one: Artefact[Any]) -> list[str]:
    return [*one.kind.tables, *one.kind.whole]


def _files(one: Artefact[Any], scratch: Place) -> Iterator[tuple[str, Content]]:
    """Head, summary, tables and figures of a result; the head without paths of this machine."""
    own = one.manifest
    head = replace(own, config=without_paths(own.config), about=without_paths(own.about), saes=without_paths(own.saes))
    write_record(scratch / MANIFEST, head)
    yield MANIFEST, content_of(scratch / MANIFEST)
    for name in (SUMMARY, *(f"{table}.parquet" for table in _tables(one))):
        if (one.place / name).is_file():
            yield name, content_of(one.place / name)
    for name in (one.place / FIGURES).names():
        if name.endswith(".png"):
            yield f"{FIGURES}/{name}", content_of(one.place / FIGURES / name)


def _paths(results: Results, recipe: Any) -> tuple[str, ...]:
    heads = [one.manifest for found in results.artefacts.values() for one in found]
    said = [[head.config, head.about, head.saes] for head in heads]
    return tuple({results.workspace.path, *paths_in(said), *paths_in(recipe or {})})


def _card(
    repository: str, tables: Sequence[SharedTable], findings: Sequence[tuple[str, str, list[str]]], wishes: Wishes, report: bool
) -> str:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(license=wishes.license or None, tags=TAGS, configs=_configs(tables))
    lines = [
        *front_matter(data), "# What a vision-language model represents, and what it shares between image and text", "",
        *(["`report.html` has the claims with figures and examples in one file, as `report.md` does.", ""] if report else []),
        "## Findings", "",
    ]  # fmt: skip
    for stage, key, said in findings:
        lines += [f"### {in_markdown(stage)}", "", *(in_markdown(line, SENTENCES) for line in said), "", f"Tables: `{key}`", ""]
    first = tables[0] if tables else None
    code = [
        f'# .venv/bin/python -m linrep.hub pull hf://datasets/{repository} results',
        "import linrep", "", 'ws = linrep.open("results")  # each stage with its tables, summary and figures', "print(ws)",
        *([] if first is None else [
            "", "import datasets  # or one table alone", "",
            f'datasets.load_dataset("{repository}", "{_config_name(first, tables)}", split="train")',
        ]),
    ]  # fmt: skip
    lines += [
        "## Load", "", *block("python", "\n".join(code)),
        "Every number has its interval and its control in the same row. What a column means, and in what unit, is in the "
        "metadata of its field in the tables' own schemas.", "", *made_with(),
    ]  # fmt: skip
    return "\n".join(lines)


def _configs(tables: Sequence[SharedTable]) -> list[dict[str, Any]]:
    """What the hub's viewer and `datasets` read: a table each, the first by default."""
    return [
        {"config_name": _config_name(one, tables), "data_files": one.path, **({"default": True} if number == 0 else {})}
        for number, one in enumerate(tables)
    ]


def _config_name(one: SharedTable, tables: Sequence[SharedTable]) -> str:
    """Stage and table, and with several results of a stage whose it is."""
    alone = sum((other.stage, other.name) == (one.stage, one.name) for other in tables) == 1
    return f"{one.stage}-{one.name}" + ("" if alone else f"-{one.path.split('/')[-2]}")
