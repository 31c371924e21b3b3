"""The files of deploy/ load, agree with the pins and with each other, and a job submitted with them finds the code."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.runtime_env import RuntimeEnv

from tests.house.local_head import local_head
from tests.house.pins import pins

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def rayjob() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())


def test_runtime_env_is_one_that_ray_accepts() -> None:
    fields = yaml.safe_load((DEPLOY / "runtime_env.yaml").read_text())
    assert RuntimeEnv(**fields).env_vars() == {"PYTHONPATH": "platform:."}


def test_rayjob_is_a_rayjob(rayjob: dict[str, Any]) -> None:
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    spec = rayjob["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["shutdownAfterJobFinishes"], "a cluster that stays costs money"
    assert spec["backoffLimit"] > 0, "a lost head must not end the harvest"
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == pins()["ray"]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_rayjob_runs_a_script_that_the_image_holds(rayjob: dict[str, Any]) -> None:
    copied = re.findall(r"^COPY --chown=\S+ (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    folders = {name for line in copied for name in line.split()}
    assert {"platform", "schemas", "jobs", "recipes", "pyproject.toml", "constraints.txt"} <= folders
    words = rayjob["spec"]["entrypoint"].split()
    assert words[0] == "python"
    assert all(word.split("/")[0] in folders for word in words if word.endswith((".py", ".yaml")))


def test_rayjob_workers_grow_from_nothing_and_one_group_has_gpus(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert all(group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"] for group in groups.values())
    gpus = {
        name: group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for name, group in groups.items()
    }
    assert gpus == {"reader": None, "gpu": "1"}
    pods = [cluster["headGroupSpec"], *groups.values()]
    assert len({pod["template"]["spec"]["containers"][0]["image"] for pod in pods}) == 1, "Ray wants the same code on every node"


def test_image_has_the_pinned_ray() -> None:
    assert f"FROM rayproject/ray:{pins()['ray']}-py311-" in (DEPLOY / "Dockerfile").read_text()


def test_requirements_are_those_of_the_project() -> None:
    command = [sys.executable, str(DEPLOY / "requirements.py"), str(ROOT / "pyproject.toml")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    assert printed == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


JOB = """
import os, platform, ray, linrep, schemas
assert platform.python_implementation() == "CPython"

@ray.remote
def where():
    import linrep, schemas, platform
    assert platform.python_implementation() == "CPython"
    return linrep.__file__, schemas.__file__

ray.init(log_to_driver=False)
here = os.path.realpath(os.getcwd())
for path in [linrep.__file__, schemas.__file__, *ray.get(where.remote(), timeout=100)]:
    assert os.path.realpath(path).startswith(here), f"{path} is not the uploaded one in {here}"
print("MLFLOW", os.environ["MLFLOW_TRACKING_URI"])
print("EVERYBODY RUNS THE UPLOADED CODE")
"""


@pytest.mark.slow
def test_a_submitted_job_runs_the_uploaded_code_on_driver_and_worker(tmp_path: Path) -> None:
    for package in ("platform/linrep", "schemas"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "where.py").write_text(JOB)
    entrypoint = ["env", "MLFLOW_TRACKING_URI=http://mlflow.test:5000", "python", "jobs/where.py"]
    with local_head() as head:
        done = head.submit(entrypoint, working_dir=tmp_path, runtime_env=DEPLOY / "runtime_env.yaml")
        assert done.returncode == 0, done.stdout
        assert "MLFLOW http://mlflow.test:5000" in done.stdout
        assert "EVERYBODY RUNS THE UPLOADED CODE" in done.stdout

        # A client without the token is turned away.
        stranger = {key: value for key, value in head.env.items() if not key.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
        refused = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "job", "list", "--address", head.address],
            env=stranger, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert refused.returncode != 0
        assert "uthentication" in refused.stdout + refused.stderr
