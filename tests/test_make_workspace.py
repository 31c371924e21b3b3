"""`make demo` and `make smol` work in the folder that is named, or in one of their own."""

import pytest

from tests.make import run_make, stand_in


@pytest.fixture
def make(tmp_path):
    """Runs a target in a virtual environment whose Python only says what it was asked for; gives those lines."""
    echo = 'printf "[%s]" "$@"\necho'
    venv = stand_in(tmp_path, {"pip": echo, "python": echo}, (".installed", ".installed-smol"))

    def run(target: str, *words: str, **variables: str) -> list[str]:
        done = run_make(["-o", "build/smol/.downloaded", target, f"VENV={venv}", *words], ("WORKSPACE",), **variables)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "jobs/reproduce.py" in line or "smol_training.build" in line]

    return run


@pytest.mark.parametrize(("target", "own"), [("demo", "runs"), ("smol", "runs-smol")])
@pytest.mark.parametrize("given", [None, "command line", "environment"])
def test_a_target_works_in_the_folder_that_is_named_or_in_its_own(make, target, own, given):
    folder = own if given is None else "my results"
    words = [f"WORKSPACE={folder}"] if given == "command line" else []
    lines = make(target, *words, **({"WORKSPACE": folder} if given == "environment" else {}))
    assert f"[--workspace={folder}]" in lines[-1]
    if target == "smol":
        assert f"[--out={folder}/model]" in lines[0]
        assert f"[--model.path={folder}/model]" in lines[-1]
