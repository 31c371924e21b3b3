"""Which files a path, a folder or a glob names, and what lies among them that is no data."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from linrep.corpora.junk import junk
from linrep.errors import CorpusError
from linrep.places import Place
from linrep.repository.streamed import open_place


@dataclass(frozen=True)
class CorpusFiles:
    """The files of a corpus.

    Attributes:
        root: The folder that they are relative to: a file's own; for a glob, the last one without a wildcard.
        files: Relative path and bytes of each, sorted.
        left_out: How many other files lie there, by the reason why they are no data.
    """

    root: Place
    files: list[tuple[str, int]]
    left_out: Counter[str] = field(default_factory=Counter)


def find_files(where: str, unfit: Callable[[str], str | None]) -> CorpusFiles:
    """The files that a path, a folder or a glob (`*` within a name, `**` over folders, `?`) names.

    Args:
        where: A file that is named is taken as it is. Of a folder or a glob, junk and what is `unfit` is left out.
        unfit: Why a file, by its path, is none of the corpus; None if it is one.

    Raises:
        CorpusError: Nothing is there, nothing matches, or a folder may not be opened.
    """
    root, wild = root_of(where)
    if wild is not None and (root / wild).is_file():
        reason = unfit(wild)
        return CorpusFiles(root, [] if reason else [(wild, (root / wild).size())], Counter([reason] if reason else []))
    matches: Callable[[str], object] = re.compile(_pattern(wild)).fullmatch if wild is not None else bool
    files, left_out = [], Counter()
    for path, size in _walk(root):
        if not matches(path):
            continue
        reason = junk(path)
        if reason is None and path.endswith("/"):
            raise CorpusError(f"the folder {root / path} may not be opened: change its permissions, or leave it out with a glob")
        reason = reason or unfit(path) or _unreadable(path, size)
        if reason:
            left_out[reason] += 1
        else:
            files.append((path, size))
    if wild is not None and not files and not left_out:
        raise CorpusError(f"no file matches {root / wild}")
    return CorpusFiles(root, sorted(files), left_out)


def _unreadable(path: str, size: int) -> str | None:
    if size < 0:
        return "no regular file"
    return None if encodes(path) else "name is not UTF-8"


def _walk(root: Place) -> Iterator[tuple[str, int]]:
    """All that lies there; the one error of an unreadable folder is ours."""
    try:
        yield from root.walk(everything=True)
    except PermissionError as error:
        raise CorpusError(f"the folder {root} may not be opened: {error.strerror or error}") from error


def ending(path: str) -> str:
    """The ending of a file's name in lower case with its dot, for counting what is left out."""
    return PurePosixPath(path).suffix.lower() or "no ending"


def root_of(where: str) -> tuple[Place, str | None]:
    """The folder that the files of a path, a folder or a glob are relative to, and the file or glob within it, if any.

    Raises:
        CorpusError: Nothing is there.
    """
    here = open_place(where)
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
