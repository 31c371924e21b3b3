"""`make demo` and `make smol` work in the folder that is named, or in one of their own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def make(tmp_path):
    """Runs a target in a virtual environment whose Python only says what it was asked for; gives those lines."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    bin_ = tmp_path / "venv" / "bin"
    bin_.mkdir(parents=True)
    for name in ("pip", "python"):
        (bin_ / name).write_text('#!/bin/sh\nprintf "[%s]" "$@"\necho\n')
        (bin_ / name).chmod(0o755)
    for stamp in (".installed", ".installed-smol"):
        (tmp_path / "venv" / stamp).touch()

    def run(target: str, *words: str, **variables: str) -> list[str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKELEVEL", "WORKSPACE")}
        command = ["make", "-s", "-o", "build/smol/.downloaded", target, f"VENV={tmp_path}/venv", *words]
        done = subprocess.run(command, cwd=ROOT, env=kept | variables, capture_output=True, text=True, timeout=60, check=True)
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
