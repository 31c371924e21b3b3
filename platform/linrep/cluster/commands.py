"""Commands that jobs print, to be pasted into a new shell. Any name of a folder comes out as it is."""

import json
import shlex
import sys
from pathlib import Path

from linrep.places import Place, place, redacted
from linrep.recipe import Request
from linrep.shell import near, python_command

EDITED = "edited.csv"
"""What the sheet of explanations is called in the commands that copy it, and that score it once people have changed it."""


def literal(where: object) -> str:
    """As a string of Python in double quotes, so that it can stand in a shell's single ones."""
    return json.dumps(str(where), ensure_ascii=False)


def python(code: str) -> str:
    """A shell command that runs some Python."""
    return python_command("-c", code)


def read_parquet(where: object) -> str:
    """A shell command that prints a table, also one in an object store."""
    return python(f"import polars as p, linrep.places as l; print(p.read_parquet(l.place({literal(where)}).open()))")


def copy(file: Place, target: str) -> str:
    """A shell command that copies a file, also one in an object store, to this machine."""
    if file.local:
        return shlex.join(["cp", str(file), target])
    return python(f"import linrep.places as l; open({literal(target)}, 'wb').write(l.place({literal(file)}).read_bytes())")


def workspace_option(workspace: str) -> str:
    """`--workspace=...`, without secrets."""
    shown = workspace if place(workspace).local else redacted(workspace)
    return shlex.quote(f"--workspace={shown}")


def job(name: str, request: Request, *more: str) -> str:
    """The shell command of a job for the recipe, the overrides and the workspace of a command line.

    Args:
        name: Of the script in the folder of the job that runs now.
        request: The command line.
        more: Further words.
    """
    script = Path(sys.argv[0]).with_name(f"{name}.py")
    words = [near(str(script)) if script.is_file() else f"jobs/{name}.py", "--config", request.config]
    shown = [redacted(word) if "://" in word else word for word in (*request.overrides, *more)]
    return " ".join([python_command(*words), workspace_option(request.workspace), shlex.join(shown)]).rstrip()
