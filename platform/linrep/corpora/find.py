"""Which files a path, a folder or a glob names."""

import re
from dataclasses import replace

from linrep.errors import CorpusError
from linrep.places import URI, Place, place


def resolve(root: Place, path: str) -> Place:
    """A path relative to `root`; one that is absolute or a URI stands for itself."""
    return place(path) if URI.match(path) or (root.local and path.startswith("/")) else root / path


def find(where: str) -> tuple[Place, list[tuple[str, int]]]:
    """The files that a path, a folder or a glob (`*` within a name, `**` over folders, `?`) names.

    Returns:
        The folder that they are relative to (a file's own; for a glob, the last one without a wildcard), and every file's
        relative path and bytes, sorted.

    Raises:
        CorpusError: Nothing is there, or nothing matches.
    """
    root, wild = root_of(where)
    if wild is None:
        return root, sorted(root.walk())
    if (root / wild).is_file():
        return root, [(wild, (root / wild).size())]
    matches = re.compile(_pattern(wild)).fullmatch
    found = sorted((relative, size) for relative, size in root.walk() if matches(relative))
    if not found:
        raise CorpusError(f"no file matches {root / wild}")
    return root, found


def root_of(where: str) -> tuple[Place, str | None]:
    """The folder that the files of a path, a folder or a glob are relative to, and the file or glob within it, if any.

    Raises:
        CorpusError: Nothing is there.
    """
    here = place(where)
    if here.is_file():
        return here.parent, here.name
    if here.is_folder():
        return here, None
    fixed, wild = _before_wildcard(here.path)
    root = replace(here, path=fixed)
    if not wild or not root.is_folder():
        raise CorpusError(f"nothing at {here}: give a file, a folder or a glob")
    return root, wild


def encodes(text: str) -> bool:
    """Whether a text can be written as UTF-8; one with half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _before_wildcard(path: str) -> tuple[str, str]:
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return "/".join(parts[:first]) or "/", "/".join(parts[first:])


def _pattern(wild: str) -> str:
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(meaning.get(token) or re.escape(token) for token in re.split(r"(\*\*/|\*\*|\*|\?)", wild))
