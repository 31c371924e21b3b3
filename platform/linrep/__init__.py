"""Linear representations in vision-language LLMs: harvest, probe, steer, decompose, compare."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`linrep.ask`, found when it is asked for: importing the package imports nothing else."""
    if name == "ask":
        from linrep.cluster.run_ask import ask

        return ask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open(where: Any = "runs", recipe: str | None = None) -> Any:
    """The results in a workspace, for notebooks: store, probes, steering, SAEs, features, interpretations and sharing.

    Each is opened when it is first asked for; in a notebook they show themselves.

    Args:
        where: Folder or URI of the workspace.
        recipe: A recipe's file, for what asks the model or a judge again; the one that the workspace remembers if left out.

    Returns:
        A `linrep.notebook.workspace.Workspace`.
    """
    # By name, when it is called: nobody else who imports linrep waits for all of its stages.
    return import_module("linrep.notebook.workspace").Workspace(where, recipe)
