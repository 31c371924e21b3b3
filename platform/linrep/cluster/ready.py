"""What a job asks of its surroundings once its request is known to be possible, and before it makes anything."""

import os
from pathlib import Path

from linrep import tracking
from linrep.cluster.session import check_address
from linrep.errors import PlaceError
from linrep.places import Place
from linrep.store.layout import MANIFEST


def check_services(workspace: Place, artefact: Place) -> None:
    """Make sure that an artefact which has not been begun can be: the cluster answers, files and runs can be written.

    Raises:
        LinrepError: They cannot; nothing was made.
    """
    if (artefact / MANIFEST).is_file():
        return  # whatever is wrong now, traces of it are there; and what is complete needs nothing
    check_address()
    check_writable(workspace)
    tracking.check(workspace)


def check_writable(workspace: Place) -> None:
    """Make sure that a folder on a disk can be written, or made.

    Raises:
        PlaceError: It is a file, or may not be written.
    """
    if not workspace.local:
        return
    folder = Path(workspace.path)
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not there.is_dir():
        raise PlaceError(f"the workspace {folder} cannot be made: {there} is a file, name another with --workspace")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PlaceError(f"the workspace {folder} cannot be written: {there} is read-only for this user")
