"""Commands of Python that work as pasted in a new shell, where no environment is active: they name the Python that runs now."""

import os
import shlex
import sys


def python_command(*words: str) -> str:
    """A shell command of this Python.

    Args:
        words: What follows the Python; they are quoted where a shell needs it.
    """
    return shlex.join([near(sys.executable) if sys.executable else "python3", *words])


def near(path: str) -> str:
    """A path as it is called from the current folder: relative, with a slash in it, where it lies below that; else absolute."""
    path, here = os.path.abspath(path), os.path.join(os.getcwd(), "")
    if not path.startswith(here):
        return path
    below = path.removeprefix(here)
    return below if os.sep in below else os.path.join(os.curdir, below)
