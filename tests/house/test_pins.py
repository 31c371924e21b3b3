"""constraints.txt, pyproject.toml, the images and the imports agree with each other."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import linrep
from tests.house.pins import pins

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def asked() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for line in [*PROJECT["dependencies"], *(line for lines in extras for line in lines)]]


@pytest.mark.parametrize("requirement", asked(), ids=str)
def test_every_requirement_has_a_pin_within_its_range(requirement: Requirement) -> None:
    pinned = pins()
    name = canonicalize_name(requirement.name)
    assert name in pinned
    assert requirement.specifier.contains(pinned[name])


def test_no_cuda_and_no_torchvision_among_the_pins() -> None:
    """CUDA comes with the torch that the machine's index offers; a torchvision that does not match torch fails at import."""
    assert [
        name for name in pins() if name.startswith(("nvidia-", "cuda-")) or name in {"torchvision", "torchaudio", "triton"}
    ] == []


def test_version_is_the_same_everywhere() -> None:
    assert PROJECT["version"] == linrep.__version__
    assert f":{linrep.__version__}\n" in (ROOT / "deploy" / "rayjob.yaml").read_text()


def test_this_python_is_allowed() -> None:
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


def imported(folder: Path) -> set[str]:
    """Top-level names of all absolute imports below a folder, wherever in a file they stand."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names)


def test_everything_imported_is_asked_for() -> None:
    """A package that comes only because another one needs it may be gone with that one's next release."""
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    names = set().union(*(imported(ROOT / folder) for folder in ("platform", "schemas", "jobs"))) - {"linrep", "schemas"}
    names -= {"boto3", "botocore"}  # the lease on S3 is sure with them; linrep.cluster.lease_file looks for them and does without
    names -= {"triton"}  # comes with CUDA builds of torch; linrep.sae.kernels looks for it and does without
    where = packages_distributions()
    unasked = {name: where.get(name, ["not installed"]) for name in names}
    unasked = {name: dists for name, dists in unasked.items() if not declared & {canonicalize_name(dist) for dist in dists}}
    assert unasked == {}
