"""The notebooks: without outputs in git, and executed from top to bottom over a small workspace."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from linrep.recipe import load_yaml, merge
from tests.jobs.test_quick_start import SMALL

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_lies_in_git_without_outputs_and_says_what_it_needs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    assert [cell["metadata"] for cell in notebook["cells"]] == [{}] * len(notebook["cells"])
    assert list(notebook["metadata"]) == ["kernelspec"]
    first = "".join(notebook["cells"][0]["source"])
    assert first.startswith(f"# {int(path.stem[:2])} ")
    assert "`make demo" in first
    assert "`LINREP_WORKSPACE`" in first


def test_there_are_five_and_stripping_takes_outputs_out(tmp_path: Path) -> None:
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == [1, 2, 3, 4, 5]
    sys.path.insert(0, str(ROOT / "notebooks"))
    try:
        import run
    finally:
        sys.path.remove(str(ROOT / "notebooks"))
    path = tmp_path / NOTEBOOKS[0].name
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["outputs"], cell["execution_count"] = [{"output_type": "stream", "name": "stdout", "text": ["secret"]}], 3
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert run.strip(path)
    assert path.read_bytes() == NOTEBOOKS[0].read_bytes()
    assert not run.strip(path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage of the demo, small."""
    folder = tmp_path_factory.mktemp("notebooks")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(merge(load_yaml(str(ROOT / "recipes" / "demo.yaml")), SMALL)))
    words = ["jobs/reproduce.py", "--config", str(recipe), "--workspace", str(folder / "ws")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "ws"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom_and_shows_what_it_promises(path: Path, workspace: Path, tmp_path: Path) -> None:
    words = ["notebooks/run.py", str(tmp_path), path.stem, "--workspace", str(workspace)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = json.loads((tmp_path / path.name).read_text(encoding="utf-8"))
    shown = [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]
    kinds = [kind for output in shown for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 1
    assert kinds.count("text/html") >= 1
    assert [output for output in shown if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    assert path.stat().st_size < 40_000
    assert (tmp_path / path.name).stat().st_size < 2_000_000
