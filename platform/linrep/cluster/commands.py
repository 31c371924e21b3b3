"""Addresses as people paste them: into Python, and into a shell. Any name of a folder comes out as it is."""

import json
import shlex

from linrep.places import place, redacted


def literal(where: object) -> str:
    """As a string of Python in double quotes, so that it can stand in a shell's single ones."""
    return json.dumps(str(where), ensure_ascii=False)


def python(code: str) -> str:
    """A shell command that runs some Python."""
    return f"python -c {shlex.quote(code)}"


def read_parquet(where: object) -> str:
    """A shell command that prints a table."""
    return python(f"import polars as p; print(p.read_parquet({literal(where)}, glob=False))")


def workspace_option(workspace: str) -> str:
    """`--workspace=...`, without secrets."""
    shown = workspace if place(workspace).local else redacted(workspace)
    return shlex.quote(f"--workspace={shown}")
