"""Where runs are kept: on the server or in the database that MLFLOW_TRACKING_URI names, else in the workspace."""

import os
from pathlib import Path

from linrep.config import digest
from linrep.places import Place, redacted
from linrep.shell import python_command
from linrep.tracking.client import FIRST_PAUSES, first_contact, open_client, patiently
from linrep.tracking.database import NAME, address, file_of, prepared, settled

EXPERIMENT = "line-of-sight"


def tracking_uri(workspace: Place) -> str:
    """Where runs are kept: the server that MLFLOW_TRACKING_URI names, else a SQLite file in the workspace. Makes nothing.

    A workspace in an object store cannot hold a database: without a server, runs are kept in the current folder.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    file = _folder(workspace) / NAME
    settled(file)
    return address(file)


def opened_uri(workspace: Place) -> str:
    """The same, and a database there is made, or repaired, before it is opened.

    Raises:
        ServiceError: There is something else in its place, or it cannot be written.
    """
    uri = tracking_uri(workspace)
    file = file_of(uri)
    if file is not None:
        prepared(file, EXPERIMENT)
    return uri


def check(workspace: Place) -> None:
    """Whether runs can be kept where they should be: asked once a job is known to be possible, and before it makes anything.

    Raises:
        ServiceError: The server does not answer, or the address is none.
    """
    uri = opened_uri(workspace)
    if file_of(uri) is None:
        with first_contact(uri):
            client = open_client(uri)
            patiently(lambda: client.get_experiment_by_name(EXPERIMENT), uri, FIRST_PAUSES)


def inside(workspace: Place, thing: Place) -> str:
    """How runs call a thing of a workspace: by its path in the workspace, where the runs lie in that too and move with it."""
    together = workspace.local and not os.environ.get("MLFLOW_TRACKING_URI")
    return thing.within(workspace) if together else str(thing)


def key_of(workspace: Place, thing: Place, *more: str) -> str:
    """The key of the run that makes a thing, or a part of it."""
    return digest(inside(workspace, thing), *more)


def pages(uri: str) -> str:
    """How to look at the runs that are kept at an address: a command, or where the server's pages are."""
    shown = redacted(uri)
    if uri.startswith("http"):
        return f"MLflow's pages are at {shown}"
    return python_command("-m", "mlflow", "ui", "--workers", "1", "--backend-store-uri", shown)


def notice(workspace: Place) -> str | None:
    """What a user should know before a job starts about where its run is kept; None where that is plain."""
    if workspace.local or os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    return (
        f"{workspace} cannot hold MLflow's database: this run is kept in {_folder(workspace) / NAME} of this machine; "
        f"set MLFLOW_TRACKING_URI to a server to keep it elsewhere"
    )


def _folder(workspace: Place) -> Path:
    return Path(workspace.path) if workspace.local else Path.cwd()
