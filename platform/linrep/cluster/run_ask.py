"""One question from the command line to its page."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from linrep.cluster.asking import Asker, Query
from linrep.cluster.commands import job
from linrep.cluster.ready import check_writable
from linrep.errors import RecipeError
from linrep.explorer.asked import asked_lines, write_asked
from linrep.places import Place, place
from linrep.reading.asked import Asked
from linrep.recipe import Recipe, Request, load_yaml, remembered, validate
from linrep.sample import LARGEST_IMAGE
from linrep.vlm.image import BadImage, decode

FOLDER = "asked"


@dataclass(frozen=True)
class AskedPage:
    """What came of asking, and the page that shows it.

    Attributes:
        asked: What came of it.
        page: The file to open.
    """

    asked: Asked
    page: Place

    def __str__(self) -> str:
        """What a terminal shows."""
        return "\n".join(asked_lines(self.asked, str(self.page)))

    def _repr_html_(self) -> str:
        """The same in a notebook: text, which no name and no answer can turn into markup."""
        return f"<pre>{escape(str(self))}</pre>"


def run_ask(request: Request, workspace: Place, command: Callable[[str], str]) -> list[str]:
    """Ask once and write the page; gives what to print.

    Args:
        request: The command line.
        workspace: Where everything lies.
        command: The shell command of a job, by the name of its script.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    image, name = (None, "") if request.image is None else read_image(request.image)
    if image is None and not (request.text or "").strip():
        raise RecipeError("there is nothing to ask about: name an image with --image, a text with --text, or both")
    check_writable(workspace)
    query = Query(image, name, request.text, request.latents, request.edits, request.site)
    return str(ask_once(Asker(request.recipe, workspace, command), workspace, query)).splitlines()


def ask_once(asker: Asker, workspace: Place, query: Query) -> AskedPage:
    """Ask and write the page.

    Args:
        asker: Who is asked.
        workspace: Where everything lies.
        query: What is asked.
    """
    asked = asker(query)
    image: Image.Image | None = None if query.image is None else decode(query.image)
    return AskedPage(asked, write_asked(workspace / FOLDER / asker.key(query), asked, asker.card, image))


def ask(
    workspace: str = "runs",
    image: str | Path | bytes | None = None,
    text: str | None = None,
    latents: tuple[str, ...] = (),
    edits: tuple[str, ...] = (),
    site: str = "image",
    config: str | None = None,
) -> AskedPage:
    """Ask the model of a workspace about an image or text of your own, as `jobs/ask.py` does.

    Args:
        workspace: Folder or URI of a workspace with a harvest.
        image: A file, or its bytes.
        text: The question; without it the recipe's. Of a text alone, the text.
        latents: Latents to set to a value: "309=4.0".
        edits: Classes to turn into each other: "boat:tree@4=2".
        site: Where edits act: image, last or everywhere.
        config: The recipe; without it the one that the workspace remembers.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    file = config or remembered(workspace)
    recipe: Recipe = validate(load_yaml(file), file)
    request = Request(recipe, workspace, config=file)
    data, name = (image, "image") if isinstance(image, bytes) else (None, "") if image is None else read_image(str(image))
    asker = Asker(recipe, place(workspace), lambda name: job(name, request))
    return ask_once(asker, place(workspace), Query(data, name, text, latents, edits, site))


def read_image(path: str) -> tuple[bytes, str]:
    """An image file of the user's and its name.

    Raises:
        RecipeError: It is missing, too large, or no image.
    """
    file = place(path)
    if not file.is_file():
        what = "it is a folder" if file.is_folder() else "there is no such file"
        raise RecipeError(f"--image {path}: {what}")
    if file.size() > LARGEST_IMAGE:
        raise RecipeError(f"--image {path}: {file.size():,} bytes, at most {LARGEST_IMAGE:,} are read")
    data = file.read_bytes()
    try:
        decode(data)
    except BadImage as reason:
        raise RecipeError(f"--image {path}: {reason}") from None
    return data, file.name
