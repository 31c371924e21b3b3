"""Where an image lies that a list of pairs or of documents names: a list must not lead out of its corpus."""

import os
import posixpath
import re
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import unquote, urlsplit

from linrep.errors import PlaceError
from linrep.places import Place, place, redacted

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_ALIASES = {"gcs": "gs", "s3a": "s3", "s3n": "s3"}
_DOWNLOAD = "download the images"


class Outside(ValueError):
    """Why a path leads to no image of the corpus."""


@dataclass(frozen=True)
class Fence:
    """What a path of a list may lead to.

    Attributes:
        inside: The folder (on a disk) or the folder whose bucket (in an object store) or repository (on the hub) all must lie in.
        open: Whether the recipe lets paths lead out of it.
        field: The recipe's field that the list stands in.
    """

    inside: Place
    open: bool = False
    field: str = "corpora.pairs"

    @property
    def _how(self) -> str:
        return f"{_DOWNLOAD}, or set {self.field}.image_root or {self.field}.outside"

    def find(self, base: Place, path: str) -> Place:
        """The image that a path names.

        Args:
            base: The folder that a relative path starts from.
            path: A relative path, an absolute one, or an address.

        Raises:
            Outside: It leads out of the corpus, or has a scheme that is not read.
        """
        try:
            found = self._address(path) if self._is_address(path) else self._file(base, path)
            if not self.open and not self._holds(found):
                raise Outside(f"the image lies outside the corpus ({self.inside}): {redacted(path)[:100]!r}; {self._how}")
        except ValueError as error:
            if isinstance(error, Outside):
                raise
            raise Outside(f"cannot be read: {error}") from None  # a zero byte in a path, a broken address
        return found

    def _file(self, base: Place, path: str) -> Place:
        root = path if base.local and path.startswith("/") else f"{base.path}/{path}"
        return replace(base, path=posixpath.normpath(root))

    def _is_address(self, path: str) -> bool:
        scheme = _SCHEME.match(path)
        return scheme is not None and (path[scheme.end() :].startswith("//") or scheme[1].lower() in ("data", "file"))

    def _address(self, path: str) -> Place:
        scheme = path.partition(":")[0].lower()
        if scheme in ("http", "https", "ftp", "ftps", "data"):
            raise Outside(f"{scheme} addresses are not fetched ({redacted(path)[:100]!r}): {_DOWNLOAD} and list their paths")
        if scheme == "file":
            parts = urlsplit(path)
            if parts.netloc not in ("", "localhost"):
                raise Outside(f"the image lies on another machine: {redacted(path)[:100]!r}")
            return place(unquote(parts.path))
        here = None if self.inside.local else self.inside.files.type_name.removeprefix("py::")
        if _ALIASES.get(scheme, scheme) == _ALIASES.get(here or "", here):
            if here == "hf":
                return self._of_repository(path)
            # With the corpus's own key and endpoint, whatever the address says: a list brings no others.
            bucket, slash, key = path.partition("://")[2].partition("?")[0].partition("/")
            return replace(self.inside, path=posixpath.normpath(bucket.rpartition("@")[2] + slash + unquote(key)))
        if not self.open:
            raise Outside(f"the image lies outside the corpus ({self.inside}): {redacted(path)[:100]!r}; {self._how}")
        try:
            return place(path)
        except PlaceError as error:
            raise Outside(str(error)) from None

    def _of_repository(self, path: str) -> Place:
        """An address of the corpus's own repository, with or without its commit; no other is read, whatever the recipe says."""
        pinned = _bucket(self.inside)
        below = path.partition("://")[2]
        for root in (pinned, pinned.partition("@")[0]):
            if below.startswith(f"{root}/"):
                return replace(self.inside, path=posixpath.normpath(f"{pinned}/{below.removeprefix(f'{root}/')}"))
        raise Outside(f"the image lies in another repository than {self.inside}: {path[:100]!r}; {_DOWNLOAD}")

    def _holds(self, found: Place) -> bool:
        """Whether a place lies inside, links followed."""
        if found.local != self.inside.local:
            return False
        if not found.local:
            return _bucket(found) == _bucket(self.inside)
        return os.path.commonpath([self._real, os.path.realpath(found.path)]) == self._real

    @cached_property
    def _real(self) -> str:
        return os.path.realpath(self.inside.path)


def _bucket(found: Place) -> str:
    """What a path of a store may not lead out of: the bucket; of the hub, the repository at its commit."""
    parts = found.path.split("/")
    if not found.files.type_name.endswith("hf"):
        return parts[0]
    return "/".join(parts[: 3 if parts[0] == "datasets" else 2])
