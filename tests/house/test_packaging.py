"""What an installation holds: the packages that pyproject.toml names, and nothing that is needed only in the repository."""

import ast
import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]


def installed() -> dict[str, Path]:
    """Every package that setuptools would install, with its folder."""
    found = {}
    for folder in SETTINGS["where"]:
        for name in find_packages(str(ROOT / folder), include=SETTINGS["include"]):
            found[name] = ROOT / folder / name.replace(".", "/")
    return found


def roots(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0]}
    return found


def test_only_the_two_packages_are_installed() -> None:
    assert {name.split(".")[0] for name in installed()} == {"linrep", "schemas"}


def test_no_installed_module_needs_what_is_only_in_the_repository() -> None:
    only_here = {"bench", "demo_training", "documentation", "jobs", "smol_training", "tests"}
    guilty = [path for folder in installed().values() for path in folder.glob("*.py") if roots(path) & only_here]
    assert guilty == []


def test_the_demo_is_installed_without_what_trained_its_model() -> None:
    """The world needs no torch: only training does. Its model is loaded like any other, by linrep.vlm."""
    modules = sorted(installed()["linrep.demo"].glob("*.py"))
    assert [path.stem for path in modules] == ["__init__", "config", "language", "paint", "scene", "shapes", "world"]
    assert [path for path in modules if roots(path) & {"torch", "transformers", "tokenizers"}] == []
