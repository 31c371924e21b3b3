"""Submit a stage, or `reproduce`, to the cluster whose dashboard is at RAY_API_SERVER_ADDRESS: `make submit` calls it.

It prints the line of `ray job submit` that it stands for, and becomes it. Standard library alone.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"sae": "train_sae", "tune": "tune_sae"}
"""Stages whose job has another name."""
SECRET = re.compile(r"://[^/@\s]*:[^/@\s]*@|://\S*[?&][\w-]*(key|token|secret|password|credential|sig)[\w-]*=", re.IGNORECASE)
"""Of an address: a user with a password, and options that open a store or sign a request."""


def entrypoint(stage: str, recipe: str, workspace: str, more: Sequence[str], env: Mapping[str, str], commit: str) -> list[str]:
    """The words that the head runs.

    Args:
        stage: A stage, the name of a job, or reproduce.
        recipe: Of the repository, relative to its root: the upload brings it along.
        workspace: A bucket's address, or a folder that all nodes mount.
        more: Further words of the job.
        env: Of the caller: its MLFLOW_TRACKING_URI goes to the driver, the only process that speaks to MLflow.
        commit: As `git describe` names it; empty if that is not known.

    Raises:
        SystemExit: Something that the caller can mend; the message says what.
    """
    script = f"jobs/{SCRIPTS.get(stage, stage)}.py"
    if not re.fullmatch(r"\w+", stage) or not (ROOT / script).is_file():
        there = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
        raise SystemExit(f"error: STAGE={stage}: there is no such job; name one of {', '.join(there)}")
    inside = not Path(recipe).is_absolute() and ".." not in Path(recipe).parts
    if not inside or not (ROOT / recipe).is_file():
        raise SystemExit(f"error: CONFIG={recipe}: name a recipe of this repository by its path in it: the upload has it")
    if "://" not in workspace and not workspace.startswith("/"):
        raise SystemExit(
            f"error: WORKSPACE={workspace}: a folder of the head goes away with it: name a bucket (s3://bucket/folder), "
            "or the whole path of a folder that every node mounts"
        )
    server = env.get("MLFLOW_TRACKING_URI", "")
    for name, text in (("WORKSPACE", workspace), ("MLFLOW_TRACKING_URI", server), *(("ARGS", word) for word in more)):
        if SECRET.search(text):
            raise SystemExit(
                f"error: {name} holds a key or a password, which all who see the job's command would read: give it to the nodes "
                "by a role, or by their environment (AWS_ACCESS_KEY_ID, MLFLOW_TRACKING_USERNAME, ...), and leave it out here"
            )
    variables = {"MLFLOW_TRACKING_URI": server, "LINREP_GIT_COMMIT": commit}
    named = [f"{name}={value}" for name, value in variables.items() if value]
    return [*(["env", *named] if named else []), "python", script, "--config", recipe, "--workspace", workspace, *more]


def git_commit() -> str:
    """The commit of the code, with "-dirty" where files differ from it; empty outside a checkout."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the line, and become it. What follows `--` goes to the job."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    own, more = words[:end], words[end + 1 :]
    parser = argparse.ArgumentParser(prog="deploy/submit.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("stage", help="a stage, or reproduce")
    parser.add_argument("--config", required=True, help="a recipe of the repository")
    parser.add_argument("--workspace", required=True, help="a bucket, or a folder that every node mounts")
    parser.add_argument("--no-wait", action="store_true", help="return at once and do not follow the job's log")
    asked = parser.parse_args(own)
    if not (os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")):
        raise SystemExit("error: RAY_API_SERVER_ADDRESS is not set: the address of the cluster's dashboard, http://host:8265")
    words = entrypoint(asked.stage, asked.config, asked.workspace, more, os.environ, git_commit())
    options = ["--working-dir", ".", "--runtime-env", "deploy/runtime_env.yaml", *(["--no-wait"] if asked.no_wait else [])]
    line = ["job", "submit", *options, "--", *words]
    os.chdir(ROOT)
    print(f".venv/bin/ray {shlex.join(line)}", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", *line])


if __name__ == "__main__":
    main()
