"""Every command of the documents can be pasted into a new shell: what it names is there, and its options are known."""

import ast
import re
import shutil
import sys
from collections.abc import Callable, Sequence

import pytest

from linrep.cluster.reproduce import asked
from linrep.recipe import parse
from tests.house.pasted import PYTHON, ROOT, blocks, commands, mistake, named, wrong_code

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
JOBS = sorted((ROOT / "jobs").glob("*.py"))
Parse = Callable[[str, Sequence[str]], None]


@pytest.fixture
def parsed(tmp_path, monkeypatch) -> Parse:
    """Parses a job's words in a folder that is like the repository after `make demo`: its workspace remembers the recipe."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "runs" / "recipes").mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "demo.yaml", tmp_path / "runs" / "recipes" / "demo-1.yaml")
    monkeypatch.chdir(tmp_path)

    def check(script: str, words: Sequence[str]) -> None:
        monkeypatch.setattr(sys, "argv", [script, *words])
        request = parse("")
        asked(request.recipe, request.until, request.only)

    return check


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_of_a_document_can_be_pasted(document, parsed):
    text = document.read_text()
    found = [command for block in blocks(text) if block.language == "bash" for command in commands(block.text)]
    wrong = {command: said for command in [*found, *named(text)] if (said := mistake(command, parsed))}
    assert wrong == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_snippet_of_python_of_a_document_compiles_and_what_it_imports_is_there(document):
    found = [block.text for block in blocks(document.read_text()) if block.language == "python"]
    assert [said for text in found if (said := wrong_code(text))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_block_of_commands_says_that_it_is_one(document):
    plain = [block.text for block in blocks(document.read_text()) if not block.language]
    assert [text for text in plain if re.search(r"^\s*(\S*/)?(python|make|ray) ", text, re.MULTILINE)] == []


def test_the_readme_shows_every_job_but_the_control_alone_in_blocks():
    text = "".join(block.text for block in blocks((ROOT / "README.md").read_text()))
    assert [job.stem for job in JOBS if f"jobs/{job.name}" not in text] == ["control", "reproduce"]
    assert "make demo" in text


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_the_examples_of_a_job_s_help_can_be_pasted(job, parsed):
    text = ast.get_docstring(ast.parse(job.read_text())) or ""
    joined = text.replace("\\\n", " ")
    examples = [line.strip() for line in joined.splitlines() if line.startswith("  ")]
    assert examples
    assert {line: said for line in examples if (said := mistake(line, parsed))} == {}


def test_nothing_that_is_printed_asks_for_a_python_of_the_path():
    """Texts of the package and of the jobs, docstrings and lines of usage apart."""
    bare = re.compile(r"(?<![\w./-])(python3? (-m|-c|jobs/)|mlflow (ui|server)|pip install)")
    found = []
    for path in [*JOBS, *(ROOT / "platform" / "linrep").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        own = {node.body[0].value for node in ast.walk(tree) if isinstance(node, holders) and ast.get_docstring(node)}  # type: ignore[attr-defined]
        usage = {
            word.value for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords if word.arg == "prog"
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node in own | usage:
                continue
            if bare.search(node.value) and not node.value.startswith("usage: "):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}")
    assert found == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python jobs/probe.py --workspace runs", "not there in a new shell"),
        ("mlflow ui", "not there in a new shell"),
        (f"{PYTHON} jobs/prob.py --workspace runs", "there is no jobs/prob.py"),
        (f"{PYTHON} jobs/probe.py --workspace runs --probe.min_per_clas 5", "no such option"),
        (f"{PYTHON} jobs/probe.py --config recipes/dem.yaml --workspace runs", "cannot read the recipe"),
        (f"{PYTHON} jobs/probe.py --workspace runs --evaluate x", "option of jobs/train_sae.py alone"),
        (f"{PYTHON} jobs/reproduce.py --workspace runs --until harvests", "no such stage"),
        (f"{PYTHON} -m linrep.stor verify runs", "no linrep.stor to run"),
        (f"{PYTHON} -m linrep.features.exports neuronpedia runs x --layers 4", "no --layers"),
        (f"{PYTHON} -c 'import linrep.store as s; print('", "no Python"),
        (f"{PYTHON} -c 'from linrep.store import opened'", "linrep.store.opened"),
        ("make dem", "make knows no dem"),
        ("make demo ARG=x", "make knows no ARG"),
        (".venv/bin/ray job submit --working-dir . --runtime-env deploy/env.yaml -- python jobs/probe.py", "no deploy/env.yaml"),
        (f".venv/bin/ray job submit --working-dir . -- {PYTHON} jobs/probe.py", "not the cluster's python"),
        (".venv/bin/ray job logs --folow JOB", "--folow"),
        (".venv/bin/ray job stop", "JOB_ID"),
    ],
)
def test_a_mistaken_command_is_found(command, said, parsed):
    assert said in (mistake(command, parsed) or "")


def test_commands_are_found_in_a_text():
    text = """
Say `make demo` and `.venv/bin/python
jobs/probe.py --workspace runs`, not `runs/` alone.

```bash
make demo    # a comment
.venv/bin/python jobs/steer.py \\
    --steer.pairs '[["boat","tree"]]'   # another
# alone
```

```python
x = 1
```
"""
    assert list(named(text)) == ["make demo", ".venv/bin/python jobs/probe.py --workspace runs"]
    assert [block.language for block in blocks(text)] == ["bash", "python"]
    assert list(commands(blocks(text)[0].text)) == [
        "make demo",
        """.venv/bin/python jobs/steer.py --steer.pairs '[["boat","tree"]]'""",
    ]
