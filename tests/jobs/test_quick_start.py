"""A new user's shell: the README's commands in their order, on a small recipe, and then every command that these print."""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from linrep.recipe import load_yaml, merge
from tests.house.local_head import free_ports
from tests.house.pasted import PYTHON, ROOT, blocks, commands

SMALL = {
    "demo": {"n_images": 256, "n_texts": 128},
    "harvest": {"layers": [2, 4]},
    "probe": {"views": ["pooled", "last"], "min_per_class": 1, "resamples": 50},
    "steer": {
        "pairs": 4,
        "images": 2,
        "directions": ["class_mean", "random"],
        "edits": [],
        "dose": {"strengths": [1.0, 2.0]},
        "damage": {"texts": 0},
    },
    "sae": {"rows": 16000, "layers": [2, 4], "evaluation": {"rows": 512, "texts": 4, "samples": 64}},
    "tune": {"rows": 8192, "space": {"learning_rate": [0.004], "expansion": [4]}},
    "sharing": {"resamples": 50},
    "interpret": {"latents": 8},
}
"""Laid over recipes/demo.yaml; layers and SAEs that the README names are there."""
ELSEWHERE = {
    "make test": "it would run this test",
    "recipes/imagenette.yaml": "its images are not here",
    ".venv/bin/ray job submit": "tests/jobs/test_submit.py submits to a cluster",
    "make submit": "so does that",
}
NO_NEXT = ("jobs/explore.py", "jobs/ask.py")
"""They end with a page to open, not with a command."""
MOST_LINES = 100
"""Of what a printed command prints: a screen or two."""
NEXT = re.compile(r"^  [a-z]+: +(.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as after `make demo` has installed everything, with the small recipe in the place of the demo's."""
    here = tmp_path_factory.mktemp("shell") / "line-of-sight"
    here.mkdir()
    for name in ("platform", "schemas", "jobs", "recipes"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, here / name)
    recipe = merge(load_yaml(str(ROOT / "recipes" / "demo.yaml")), SMALL)
    (here / "recipes" / "demo.yaml").write_text(yaml.safe_dump(recipe))
    venv.create(here / ".venv", symlinks=True)
    (packages,) = (here / ".venv").glob("lib/python3*/site-packages")
    shutil.rmtree(packages)
    packages.symlink_to(sysconfig.get_path("purelib"))
    (here / ".venv" / "bin" / "pip").touch()
    (here / ".venv" / ".installed").touch()  # after the files that say what is to be installed: make installs nothing
    return here


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a login: nothing of the one in which tests run."""
    own = {"HOME": str(folder.parent), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
    # In the place of the editable installation, which is that of the tests' environment.
    return {**own, "PYTHONPATH": f"{folder}/platform:{folder}", "RAY_USAGE_STATS_ENABLED": "0"}


def started(command: str, folder: Path) -> subprocess.Popen[str]:
    """A command in a new shell, as the leader of a group of processes."""
    words = ["bash", "--noprofile", "--norc", "-c", command]
    return subprocess.Popen(
        words, cwd=folder, env=surroundings(folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def shown(command: str, folder: Path, timeout_s: float = 1800) -> str:
    """What a command prints in a new shell.

    Raises:
        AssertionError: It failed; the message ends with what it said.
    """
    start = time.monotonic()
    process = started(command, folder)
    try:
        out, error = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    print(f"{time.monotonic() - start:6.1f} s  {command}")
    assert process.returncode == 0, f"{command}\n{out[-1000:]}\n{error[-3000:]}"
    return out


def quick_start(folder: Path) -> Iterator[str]:
    """The commands of the README that can be run here, and every job on the demo's recipe."""
    text = (ROOT / "README.md").read_text()
    yield from (line for block in blocks(text) if block.language == "bash" for line in commands(block.text))
    for job in sorted((folder / "jobs").glob("*.py")):
        if job.stem != "ask":  # it wants an image or a text: the README has both
            yield f"{PYTHON} jobs/{job.name} --config recipes/demo.yaml --workspace runs"


def answers(command: str, folder: Path, timeout_s: float = 120) -> bool:
    """Whether the pages that a command opens are there; it is ended in any case."""
    (port,) = free_ports(1)
    process = started(f"exec {command} --port {port}", folder)
    try:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    return "MLflow" in page.read().decode()
            except OSError:
                time.sleep(0.3)
        return False
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.slow
def test_commands_of_the_readme_and_those_that_they_print_work_in_a_new_shell(folder):
    printed: dict[str, str] = {}
    for command in dict.fromkeys(quick_start(folder)):
        if any(part in command for part in ELSEWHERE):
            continue
        if "path/to/" in command:
            sae = min(path for path in (folder / "runs" / "saes").glob("*/layer-004/topk-16*") if "-control-" not in str(path))
            command = re.sub(r"path/to/\S+", str(sae.relative_to(folder)), command)
        if "my.jpg" in command:
            shutil.copy(min((folder / "runs" / "worlds").glob("*/images/*/*.JPEG")), folder / "my.jpg")
        out = shown(command, folder)
        assert ("\nNext:\n" in out) != any(job in command for job in NO_NEXT), out
        if any(job in command for job in NO_NEXT):
            continue
        after = re.split(r"^Next:$", out, flags=re.MULTILINE)[1]
        printed |= dict.fromkeys(NEXT.findall(after), command)
    report = (folder / "runs" / "report.md").read_text()
    printed |= {line: "report.md" for block in blocks(report) for line in commands(block.text)}
    pages = {command for command in printed if " -m mlflow ui " in command}
    assert len(pages) == 1
    wrong = {}
    for command, of in printed.items():
        try:
            if command in pages:
                assert answers(command, folder)
            else:
                assert command.split()[0] in (PYTHON, "cp")
                lines = len(shown(command, folder).splitlines())
                assert 0 < lines <= MOST_LINES or command.startswith("cp "), f"{lines} lines"
        except AssertionError as error:
            wrong[command] = f"of {of}: {error}"
    assert wrong == {}


@pytest.mark.slow
def test_the_readme_s_python_runs_on_what_its_commands_made(folder):
    (text,) = [block.text for block in blocks((ROOT / "README.md").read_text()) if block.language == "python"]
    (folder / "tour.py").write_text(text + "\nassert len(x)\nassert len(table.collect())\n")
    shown(f"{PYTHON} tour.py", folder)
