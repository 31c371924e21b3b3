"""What import-linter cannot see: the scripts in jobs/, submodules of others' packages, and modules that the diagram forgot."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINREP = ROOT / "platform" / "linrep"
JOBS = sorted((ROOT / "jobs").glob("*.py"))

# A job parses, calls and exits: it may know the recipe, the layers that compose and the plain bottom, none that computes.
JOB_MAY = (
    *("linrep.cluster", "linrep.explorer", "linrep.tracking", "linrep.recipe"),
    *("linrep.places", "linrep.errors", "linrep.config", "linrep.__version__"),
)
JOB_MAY_NOT = {"ray", "torch", "transformers", "mlflow", "pyarrow"}


def imports(path: Path) -> set[str]:
    """Full names of everything that a file imports: `a.b` for `import a.b`, and also `a.b.c` for `from a.b import c`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_a_job_only_composes(job: Path) -> None:
    names = imports(job)
    assert {name for name in names if within(name, ("linrep",)) and not within(name, JOB_MAY)} <= {"linrep"}
    assert {name for name in names if name.split(".")[0] in JOB_MAY_NOT} == set()


@pytest.mark.parametrize("module", ["linrep.recipe", "linrep.cluster.entry"])
def test_a_recipe_is_known_without_the_libraries_that_compute(module: str) -> None:
    """They take seconds to import: help and mistakes of a command line wait for none of them."""
    heavy = {"torch", "PIL", "pyarrow", "ray", "mlflow", "transformers", "polars", "numpy", "matplotlib"}
    code = f"import sys, {module}; print(*(sys.modules.keys() & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_a_job_is_thin(job: Path) -> None:
    assert len(job.read_text().splitlines()) <= 60


def test_only_store_and_corpora_know_parquet() -> None:
    """A format read in two ways is two formats. (import-linter sees other people's packages only as wholes.)"""
    allowed = ("store", "corpora")
    guilty = [
        str(path.relative_to(LINREP))
        for path in [*LINREP.rglob("*.py"), *(ROOT / "schemas").rglob("*.py")]
        if not (path.is_relative_to(LINREP) and path.relative_to(LINREP).parts[0].removesuffix(".py") in allowed)
        and any(within(name, ("pyarrow.parquet",)) for name in imports(path))
    ]
    assert guilty == []


def test_every_module_has_a_place_in_the_diagram() -> None:
    """import-linter's layers say nothing about a module that they do not name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {part.strip(" ()") for layer in layers for part in layer.replace(":", "|").split("|")}
    there = {f"linrep.{path.stem}" for path in LINREP.iterdir() if path.suffix == ".py" and path.stem != "__init__"}
    there |= {f"linrep.{path.name}" for path in LINREP.iterdir() if (path / "__init__.py").exists()}
    assert there <= named
