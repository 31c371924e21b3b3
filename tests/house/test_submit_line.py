"""`make submit`: the line of `ray job submit` that it stands for, and what goes along in the upload."""

import os
import shlex
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package

from linrep.cluster.reproduce import NAMES
from tests.house.pasted import mistake
from tests.house.programs import program
from tests.make import run_make, stand_in

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
BUCKET = "s3://bucket/folder"


@pytest.fixture(scope="module")
def submit() -> ModuleType:
    return program("submit")


@pytest.mark.parametrize("stage", sorted({*NAMES, *JOBS, "reproduce"}))
def test_every_stage_and_job_gives_words_that_its_script_takes(submit, stage, monkeypatch):
    words = submit.entrypoint(stage, "recipes/demo.yaml", BUCKET, ["--pool.gpus", "0"], {}, "")
    script = words[1]
    assert words[0] == "python"
    assert (ROOT / script).is_file()
    parsed: list[tuple[str, Sequence[str]]] = []
    line = [".venv/bin/ray", "job", "submit", "--working-dir", ".", "--runtime-env", "deploy/runtime_env.yaml", "--", *words]
    assert mistake(shlex.join(line), lambda script, rest: parsed.append((script, rest))) is None
    assert parsed == [(script, ["--config", "recipes/demo.yaml", "--workspace", BUCKET, "--pool.gpus", "0"])]


def test_server_and_commit_go_to_the_driver(submit):
    words = submit.entrypoint("probe", "recipes/demo.yaml", BUCKET, [], {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}, "ab-dirty")
    assert words[:5] == ["env", "MLFLOW_TRACKING_URI=http://mlflow:5000", "LINREP_GIT_COMMIT=ab-dirty", "python", "jobs/probe.py"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "harvests"}, "no such job; name one of ask"),
        ({"stage": "../deploy/submit"}, "no such job"),
        ({"recipe": "recipes/none.yaml"}, "CONFIG=recipes/none.yaml"),
        ({"recipe": "/etc/hostname"}, "name a recipe of this repository"),
        ({"recipe": "../recipes/demo.yaml"}, "name a recipe of this repository"),
        ({"workspace": "runs"}, "WORKSPACE=runs: a folder of the head goes away"),
        ({"workspace": "s3://me:hunter2@bucket/folder"}, "WORKSPACE holds a key"),
        ({"workspace": "s3://bucket/folder?region=x&secret_key=hunter2"}, "WORKSPACE holds a key"),
        ({"more": ["--corpora.text.path", "https://host/x.jsonl?X-Amz-Signature=hunter2"]}, "ARGS holds a key"),
        ({"more": ["--corpora.text", '{"path": "s3://me:hunter2@b/x.jsonl"}']}, "ARGS holds a key"),
        ({"env": {"MLFLOW_TRACKING_URI": "http://me:hunter2@mlflow:5000"}}, "MLFLOW_TRACKING_URI holds a key"),
    ],
)
def test_what_cannot_work_or_would_show_a_secret_is_refused_in_one_line_without_it(submit, change, said):
    words = {"stage": "probe", "recipe": "recipes/demo.yaml", "workspace": BUCKET, "more": [], "env": {}, "commit": ""} | change
    with pytest.raises(SystemExit) as refused:
        submit.entrypoint(**words)
    assert str(refused.value).startswith("error: ")
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "fine", ["s3://bucket/a?region=eu-west-1&scheme=http&endpoint_override=host:9000", "/mnt/all nodes/runs"]
)
def test_addresses_without_secrets_pass_as_they_are(submit, fine):
    assert submit.entrypoint("probe", "recipes/demo.yaml", fine, [], {}, "")[-1] == fine


def test_no_cluster_is_one_line(submit, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SystemExit, match="RAY_API_SERVER_ADDRESS is not set"):
        submit.main(["probe", "--config", "recipes/demo.yaml", "--workspace", BUCKET])


def test_the_line_that_is_printed_is_the_one_that_runs(submit, monkeypatch, capsys):
    ran: list[list[str]] = []
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setattr(os, "execv", lambda program, words: ran.append(words))
    monkeypatch.setattr(submit, "git_commit", lambda: "")
    monkeypatch.setattr(os, "chdir", lambda where: None)
    submit.main(["probe", "--config", "recipes/demo.yaml", "--workspace", BUCKET, "--", "--probe.min_per_class", "5"])
    assert ran == [[sys.executable, "-m", "ray.scripts.scripts", *shlex.split(capsys.readouterr().err)[1:]]]
    assert ran[0][-4:] == ["--workspace", BUCKET, "--probe.min_per_class", "5"]


def test_make_submit_hands_over_stage_recipe_workspace_and_words(tmp_path):
    venv = stand_in(tmp_path, {"pip": "true", "python": 'printf "[%s]" "$@"'}, (".installed-test",))
    words = ["submit", f"VENV={venv}", "STAGE=harvest", "WORKSPACE=s3://bucket/my folder", "ARGS=--pool.gpus 0"]
    done = run_make(words, ("STAGE", "CONFIG", "WORKSPACE"))
    expected = "[deploy/submit.py][harvest][--config=recipes/demo.yaml][--workspace=s3://bucket/my folder][--][--pool.gpus][0]"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


@pytest.fixture
def uploaded(tmp_path: Path) -> Callable[[Path], set[str]]:
    """Files that Ray would upload of a folder, by its own packaging."""
    excludes = yaml.safe_load((ROOT / "deploy" / "runtime_env.yaml").read_text())["excludes"]

    def names(folder: Path) -> set[str]:
        package = tmp_path / "package.zip"
        create_package(str(folder), package, include_gitignore=True, excludes=list(excludes))
        with zipfile.ZipFile(package) as found:
            return {name for name in found.namelist() if not name.endswith("/")}

    return names


def test_weights_data_keys_and_environments_stay_here(uploaded, tmp_path):
    root = tmp_path / "repository"
    code = ["platform/linrep/__init__.py", "platform/linrep/explorer/assets/core.css", "schemas/x.py", "jobs/harvest.py"]
    code += ["recipes/own/x.yaml", "platform/linrep/demo/weights/model.safetensors", "platform/linrep/demo/weights/config.json"]
    here = [
        ".venv/bin/python",
        ".venv-peers/x.py",
        ".git/HEAD",
        ".env",
        "id.pem",
        "runs/a.json",
        "runs-smol/x",
        "data/n01/a.JPEG",
    ]
    here += ["models/llava/config.json", "model.safetensors", "platform/model.safetensors", "recipes/activations.parquet"]
    here += ["platform/linrep/pytorch_model.bin", "jobs/__pycache__/x.pyc", "mlflow.db", "tests/x.py", "platform/linrep/x.npz"]
    for name in (*code, *here):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    assert uploaded(root) == set(code)


def test_the_upload_is_small_and_whole(uploaded):
    names = uploaded(ROOT)
    assert sum((ROOT / name).stat().st_size for name in names) < 20e6
    assert {name.split("/")[0] for name in names} == {"platform", "schemas", "jobs", "recipes"}
    wanted = (path for top in ("platform", "schemas", "jobs", "recipes") for path in (ROOT / top).rglob("*") if path.is_file())
    left = {str(path.relative_to(ROOT)) for path in wanted if "__pycache__" not in path.parts} - names
    assert {name for name in left if ".egg-info" not in name} == set()
