"""What jobs print to be pasted works for a workspace of any name."""

import random
import shlex
import string
import subprocess
import sys

import polars as pl
import pytest

from linrep.cluster.commands import literal, python, read_parquet, workspace_option
from linrep.errors import RecipeError
from linrep.recipe import parse
from tests.test_database import NAMES


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
    command = read_parquet(folder / "t.parquet").replace("python ", f"{sys.executable} ", 1)
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert "planted" in shown.stdout


def test_a_password_is_not_printed():
    assert "secret" not in workspace_option("s3://me:secret@bucket/ws?region=x")


@pytest.mark.parametrize(
    "name", ["what? ws", "[x]", "{x}", '{"a": 1}', '["a"]', "a,b", '"d"', "null", "true", "1", "-dash", "a=b", "\u00e9\n"]
)
def test_the_command_line_takes_any_name(name):
    assert parse("x", ["--config", "recipes/demo.yaml", f"--workspace={name}"]).workspace == name


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_refused(name):
    with pytest.raises(RecipeError, match="--workspace is empty"):
        parse("x", ["--config", "recipes/demo.yaml", f"--workspace={name}"])
