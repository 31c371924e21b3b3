"""`make` in a virtual environment whose programs are scripts of the test's own, so that nothing is installed."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def stand_in(folder: Path, programs: Mapping[str, str], stamps: Sequence[str]) -> Path:
    """A virtual environment of these shell scripts, with the stamps of what would be installed; skips where there is no make."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    (folder / "venv" / "bin").mkdir(parents=True)
    for name, script in programs.items():
        program = folder / "venv" / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    for stamp in stamps:
        (folder / "venv" / stamp).touch()
    return folder / "venv"


def run_make(words: Sequence[str], unset: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make in the repository, without what the shell says of arguments or of an outer make."""
    left_out = ("ARGS", "MAKEFLAGS", "MAKELEVEL", *unset)
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(["make", "-s", *words], cwd=ROOT, env=kept | variables, capture_output=True, text=True, timeout=60)
