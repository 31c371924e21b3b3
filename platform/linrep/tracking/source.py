"""Where a run comes from, in MLflow's own tags: script, person and commit."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

COMMIT = "LINREP_GIT_COMMIT"
"""Environment variable that names the commit where the code is no checkout: in a submitted job, in an image."""


def source() -> dict[str, str]:
    """The script that runs, as MLflow's pages show it."""
    script = "/".join(Path(sys.argv[0]).parts[-2:])
    return {"mlflow.source.name": script, "mlflow.source.type": "JOB"} if script else {}


def user() -> dict[str, str]:
    """Who runs it; nothing in a container that has no name for its user."""
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):
        return {}


def git() -> dict[str, str]:
    """The commit of the code, and whether files differ from it: from the checkout, else from the environment."""
    here = Path(__file__).parent

    def ask(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = ask("rev-parse", "HEAD")
        changed = bool(commit) and bool(ask("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        commit, changed = "", False
    if not commit:
        said = os.environ.get(COMMIT, "").strip()
        commit, changed = said.removesuffix("-dirty"), said.endswith("-dirty")
    if not commit:
        return {}
    return {"git.commit": commit, "git.changed": str(changed).lower(), "mlflow.source.git.commit": commit}
