"""What jobs print to be pasted works for a workspace of any name."""

import random
import shlex
import string
import subprocess

import polars as pl
import pytest

from linrep.cluster.commands import copy, job, literal, python, read_parquet, workspace_option
from linrep.errors import RecipeError
from linrep.places import place
from linrep.recipe import Request, parse, validate
from linrep.shell import python_command
from tests.test_database import NAMES

RECIPE = validate({"name": "t", "corpora": {"text": {"path": "x"}}, "model": {"path": "m"}}, "t")


def odd_names() -> list[str]:
    draw = random.Random(0)
    characters = [*string.printable.replace("/", ""), *"éß\U0001f642\u2028"]
    return [*NAMES, *("".join(draw.choices(characters, k=draw.randint(1, 20))) for _ in range(300))]


def test_a_shell_and_python_read_any_name_as_it_is():
    for name in odd_names():
        where = f"/ws/{name}/x"
        (_, _, code) = shlex.split(python(f"print({literal(where)})"))
        assert eval(code.removeprefix("print")) == where
        (option,) = shlex.split(workspace_option(where))
        assert option == f"--workspace={where}"


def test_a_table_with_wildcards_in_its_path_is_read(tmp_path):
    folder = tmp_path / 'it\'s [x]* "ws"'
    folder.mkdir()
    pl.DataFrame({"planted": [7]}).write_parquet(folder / "t.parquet")
    command = read_parquet(folder / "t.parquet")
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert "planted" in shown.stdout


def test_a_password_is_not_printed():
    assert "secret" not in workspace_option("s3://me:secret@bucket/ws?region=x")
    words = ("--corpora.text.path", "s3://me:secret@bucket/texts?region=x")
    assert "secret" not in job("probe", Request(RECIPE, "s3://me:secret@bucket/ws?region=x", overrides=words))


def test_a_table_and_a_file_in_an_object_store_are_read(bucket, tmp_path, monkeypatch):
    where = place(bucket("commands"))
    pl.DataFrame({"planted": [7]}).write_parquet(tmp_path / "t.parquet")
    (where / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.chdir(tmp_path)  # the Python is named as it is called from here
    command = f"{read_parquet(where / 't.parquet')} && {copy(where / 't.parquet', 'copied')}"
    shown = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "planted" in shown.stdout
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "t.parquet").read_bytes()


def test_a_file_of_any_name_is_copied(tmp_path):
    (tmp_path / "it's [x]* ?.csv").write_text("planted")
    subprocess.run(copy(place(tmp_path / "it's [x]* ?.csv"), "copied"), shell=True, cwd=tmp_path, timeout=60, check=True)
    assert (tmp_path / "copied").read_text() == "planted"


def test_a_command_names_the_python_that_runs_and_is_short_where_that_is_below_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", f"{tmp_path}/.venv/bin/python")
    assert python_command("-m", "x y") == ".venv/bin/python -m 'x y'"
    monkeypatch.setattr("sys.executable", f"{tmp_path}/python")
    assert python_command("-V") == "./python -V"  # without a slash, a shell would look for it in PATH
    monkeypatch.setattr("sys.executable", f"{tmp_path}-2/my env/bin/python")
    assert python_command("-V") == f"'{tmp_path}-2/my env/bin/python' -V"


def test_the_command_of_another_job_has_the_recipe_its_overrides_and_the_workspace(tmp_path, monkeypatch):
    mine = ["--workspace", "my runs", "--reindex", "--until=probe", "--dry-run", "--only", "probe"]
    kept = ["--probe.views", "[pooled,last]", "--corpora.images.path=demo://images", "--sharing.own", "null"]
    request = parse("x", ["--config", "recipes/demo.yaml", *kept[:2], *mine, *kept[2:]])
    assert list(request.overrides) == kept
    words = shlex.split(job("sharing", request, "--reindex"))
    assert words[1] == "jobs/sharing.py"
    again = parse("x", words[2:])
    assert again.reindex
    assert (again.recipe, again.workspace, again.overrides) == (request.recipe, "my runs", request.overrides)
    for name in ("steer.py", "sharing.py"):
        (tmp_path / "elsewhere" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "elsewhere" / name).touch()
    monkeypatch.setattr("sys.argv", [f"{tmp_path}/elsewhere/steer.py"])
    assert shlex.split(job("sharing", request))[1] == f"{tmp_path}/elsewhere/sharing.py"
    monkeypatch.chdir(tmp_path)
    assert shlex.split(job("sharing", request))[1] == "elsewhere/sharing.py"


@pytest.mark.parametrize(
    "name", ["what? ws", "[x]", "{x}", '{"a": 1}', '["a"]', "a,b", '"d"', "null", "true", "1", "-dash", "a=b", "\u00e9\n"]
)
def test_the_command_line_takes_any_name(name):
    assert parse("x", ["--config", "recipes/demo.yaml", f"--workspace={name}"]).workspace == name


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_refused(name):
    with pytest.raises(RecipeError, match="--workspace is empty"):
        parse("x", ["--config", "recipes/demo.yaml", f"--workspace={name}"])
