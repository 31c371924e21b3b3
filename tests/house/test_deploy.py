"""The files of deploy/ load, agree with the pins and with each other, and a job submitted with them finds the code."""

import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.runtime_env import RuntimeEnv

from tests.house.kuberay import KEPT, MANIFESTS, manifest, of_kind, used
from tests.house.local_head import local_head
from tests.house.pins import pins

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def rayjob() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())


def test_runtime_env_is_one_that_ray_accepts() -> None:
    fields = yaml.safe_load((DEPLOY / "runtime_env.yaml").read_text())
    assert RuntimeEnv(**fields).env_vars() == {"PYTHONPATH": "platform:.", "RAY_JOB_STOP_WAIT_TIME_S": "120"}


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


@pytest.mark.parametrize(("kind", "name"), MANIFESTS.items())
def test_manifests_pass_kuberays_schema(kind: str, name: str) -> None:
    """The fields that are used, as KubeRay 1.7.0 has them; all fields, where KUBERAY_CRDS names a folder with its files."""
    schemas = {"kept": json.loads(KEPT.read_text())[kind]}
    if folder := os.environ.get("KUBERAY_CRDS"):
        schemas["whole"] = of_kind(Path(folder) / f"ray.io_{kind}.yaml")
        assert used(schemas["whole"], manifest(name)) == schemas["kept"], "renew it: python -m tests.house.kuberay"
    for schema in schemas.values():
        jsonschema.validate(manifest(name), schema)
        cluster = manifest(name)
        spec = cluster["spec"].get("rayClusterSpec", cluster["spec"])
        for change in ({"gcsFaultTolerance": {}}, {"authOptions": {"mode": "tokens"}}, {"workerGroupSpecs": {}}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(cluster | {"spec": spec | change}, schema)


def test_both_clusters_of_kubernetes_are_one_but_for_what_outlives_the_head(rayjob: dict[str, Any]) -> None:
    cluster = manifest("raycluster.yaml")
    kept = cluster["spec"].pop("gcsFaultToleranceOptions")
    assert cluster["spec"] == rayjob["spec"]["rayClusterSpec"]
    redis = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "redis.yaml").read_text())}
    name = redis["Service"]["metadata"]["name"]
    assert kept["redisAddress"] == f"redis://{name}:{redis['Service']['spec']['ports'][0]['port']}"
    container = redis["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
    (password,) = container["env"]
    assert password["valueFrom"] == kept["redisPassword"]["valueFrom"]


def test_mlflow_s_server_is_one_that_the_pinned_mlflow_starts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, of its type hints, where it is imported first
        from mlflow.cli import server

    documents = list(yaml.safe_load_all((DEPLOY / "mlflow.yaml").read_text()))
    services = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in documents if one["kind"] == "Service"}
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    command, *words = container["args"]
    assert command == "server"
    options = server.make_context("server", list(words)).params
    assert (options["host"], options["port"], options["serve_artifacts"]) == ("0.0.0.0", services["line-of-sight-mlflow"], True)
    assert "line-of-sight-mlflow:5000" in options["allowed_hosts"].split(",")
    known = {variable for one in server.params for variable in [one.envvar] if isinstance(variable, str)}
    named = {one["name"] for one in container["env"]} - {"MLFLOW_DISABLE_TELEMETRY"}
    assert named == {"MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"} <= known
    assert f"@line-of-sight-postgres:{services['line-of-sight-postgres']}/" in (DEPLOY / "mlflow.yaml").read_text()


@pytest.mark.parametrize("name", ["mlflow.yaml", "redis.yaml", "raycluster.yaml", "rayjob.yaml"])
def test_no_password_stands_in_a_manifest(name: str) -> None:
    variables: list[dict[str, Any]] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            variables.extend(value["env"] if isinstance(value.get("env"), list) else [])
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    for document in yaml.safe_load_all((DEPLOY / name).read_text()):
        look(document)
    assert variables
    secret = [one for one in variables if re.search("PASSWORD|TOKEN|KEY|STORE_URI", one["name"])]
    assert [one["name"] for one in secret if "secretKeyRef" not in one.get("valueFrom", {})] == []


def test_monitors_find_the_port_of_ray_s_metrics_on_head_and_workers() -> None:
    head, workers = yaml.safe_load_all((DEPLOY / "monitoring.yaml").read_text())
    assert (head["kind"], workers["kind"]) == ("ServiceMonitor", "PodMonitor")
    assert head["apiVersion"] == workers["apiVersion"] == "monitoring.coreos.com/v1"
    assert head["spec"]["selector"] == {"matchLabels": {"ray.io/node-type": "head"}}
    assert workers["spec"]["selector"] == {"matchLabels": {"ray.io/node-type": "worker"}}
    endpoints = [*head["spec"]["endpoints"], *workers["spec"]["podMetricsEndpoints"]]
    assert {one["port"] for one in endpoints} == {"metrics"}


def test_the_dashboard_draws_metrics_that_ray_and_the_jobs_have() -> None:
    import ray.dashboard.modules.metrics.dashboards as dashboards

    from linrep.cluster.meter import NAME

    shown = json.loads((DEPLOY / "grafana.json").read_text())
    drawn = {name for panel in shown["panels"] for one in panel["targets"] for name in re.findall(r"\bray_\w+", one["expr"])}
    of_ray = "".join(path.read_text() for path in Path(dashboards.__path__[0]).glob("*_panels.py"))
    known = set(re.findall(r"\bray_\w+", of_ray)) | {f"ray_{NAME}_total"}
    assert len(drawn) > 8
    assert drawn - known == set()
    assert f"ray_{NAME}_total" in drawn
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in shown["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in shown["panels"]})


def test_prometheus_reads_the_file_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    (scrape,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    assert scrape["file_sd_configs"] == [{"files": [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}]


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
