"""Addresses of the hub: hf://OWNER/NAME/FOLDER, hf://datasets/OWNER/NAME, with @REVISION after the name where it matters."""

from dataclasses import dataclass
from typing import Literal

from linrep.errors import HubError
from linrep.records import is_inside

Kind = Literal["model", "dataset"]
PREFIX = "hf://"


@dataclass(frozen=True)
class Address:
    """A repository, or a folder of it.

    Attributes:
        kind: Its kind.
        name: OWNER/NAME.
        revision: Branch, tag or commit; None for the main branch.
        folder: Path within it; empty for all of it.
    """

    kind: Kind
    name: str
    revision: str | None = None
    folder: str = ""

    def __str__(self) -> str:
        at = "" if self.revision is None else f"@{self.revision}"
        return "/".join(
            part for part in (f"{PREFIX}{'datasets/' * (self.kind == 'dataset')}{self.name}{at}", self.folder) if part
        )


def is_address(path: object) -> bool:
    """Whether a path is an address of the hub."""
    return isinstance(path, str) and path.startswith(PREFIX)


def parse(text: str) -> Address:
    """The address that a text is.

    >>> parse("hf://someone/saes@v1/layer-004/topk")
    Address(kind='model', name='someone/saes', revision='v1', folder='layer-004/topk')

    Raises:
        HubError: It is none, or of neither a model nor a dataset.
    """
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    shape = "an address reads hf://OWNER/NAME/FOLDER, or hf://datasets/OWNER/NAME"
    try:
        found = parse_hf_uri(text)
    except HfUriError:
        raise HubError(f"{text!r:.200} is no address of the hub: {shape}") from None
    folder = found.path_in_repo.strip("/")
    if found.type not in ("model", "dataset") or (folder and not is_inside(folder)):
        raise HubError(f"{text!r:.200} is no folder of a model's or a dataset's repository: {shape}")
    return Address(found.type, found.id, found.revision, folder)
