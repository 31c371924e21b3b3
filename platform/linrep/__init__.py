"""Linear representations in vision-language LLMs: harvest, probe, steer, decompose, compare."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def ask(workspace: Any = "runs", image: Any = None, text: str | None = None, **options: Any) -> Any:
    """Ask the model of a workspace about an image or a text of your own, as `jobs/ask.py` does.

    Args:
        workspace: Folder or URI of a workspace with a harvest.
        image: A file, or its bytes.
        text: The question; the recipe's if left out. Of a text alone, the text.
        options: latents, edits, site and config, see `linrep.cluster.run_ask.ask`.

    Returns:
        A `linrep.cluster.run_ask.AskedPage`: what came of it, and the page that was written.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return import_module("linrep.cluster.run_ask").ask(workspace, image, text, **options)


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
