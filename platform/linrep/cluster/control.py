"""The control of a recipe: an untrained model of the same shape, harvested like the trained one, with SAEs of its own.

It lies in the same workspace, under the recipe's name with `-control` at its end.
"""

import shutil
import tempfile
from pathlib import Path

from linrep.contents.sources import located
from linrep.errors import RecipeError
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.records import CONTROL as SUFFIX
from linrep.vlm.card import describe
from linrep.vlm.files import locate
from linrep.vlm.untrained import write_untrained

CONTROL = "control"
"""What `sharing.untrained` calls it."""
MODELS = "models"
"""Folder of the workspace."""


def control_recipe(recipe: Recipe, workspace: Place) -> Recipe:
    """The recipe of the control; its model need not be there yet.

    Args:
        recipe: The recipe whose control it is.
        workspace: Where everything lies.

    Raises:
        RecipeError: The workspace is not on a disk, where a model could be opened.
    """
    model = recipe.model.model_copy(update={"path": str(_folder(recipe, workspace))})
    return recipe.model_copy(update={"name": f"{recipe.name}{SUFFIX}", "model": model})


def make_control(recipe: Recipe, workspace: Place) -> Path:
    """Write the untrained model, unless it is there; the folder appears whole.

    Raises:
        RecipeError: The workspace is not on a disk.
        ModelError: The trained model cannot be used.
    """
    folder = _folder(recipe, workspace)
    if folder.is_dir():
        return folder
    source, _ = locate(located(recipe.model))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".control-") as growing:
        write_untrained(source, Path(growing) / "model")
        try:
            shutil.move(Path(growing) / "model", folder)
        except OSError:
            if not folder.is_dir():  # another process may have been faster
                raise
    return folder


def _folder(recipe: Recipe, workspace: Place) -> Path:
    if not workspace.local:
        raise RecipeError(
            f"the untrained control is written into the workspace, and {workspace} is not on a disk: "
            "name another harvest with sharing.untrained, or set it to null"
        )
    return Path(workspace.path) / MODELS / f"{CONTROL}-{describe(located(recipe.model)).digest}"
