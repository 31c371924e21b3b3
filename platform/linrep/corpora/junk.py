"""What operating systems, editors and downloads leave among data: never data itself."""

import re

_FOLDERS = frozenset(
    {
        "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "lost+found", "system volume information",
        "__pycache__", "found.000", ".appledouble", ".cache", ".dvc", ".fseventsd", ".git", ".hg", ".ipynb_checkpoints",
        ".spotlight-v100", ".svn", ".temporaryitems", ".thumbnails", ".trashes", ".trash", ".documentrevisions-v100",
    }
)  # fmt: skip
_FILES = frozenset(
    {".ds_store", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", ".directory", ".gitkeep"}
)
_PATTERNS = re.compile(
    r"\._.*"  # AppleDouble: a Mac's second half of a file
    r"|~\$.*|\.~lock\..*#|#.*#|\.#.*|.*~"  # locks and copies of editors and offices
    r"|.*\.(part|partial|crdownload|download|filepart|aria2|tmp|temp|icloud|sw[a-px]|bak|orig)"
    r"|\.nfs[0-9a-f]+|\.fuse_hidden.*|\.trash-\d+"
)

JUNK, HIDDEN = "left by an operating system or a tool", "hidden (its name begins with a dot)"


def junk(path: str) -> str | None:
    """Why a path, relative to its corpus or within an archive, names no data; None if it may.

    >>> junk("__MACOSX/n01/._a.jpg"), junk("n01/.mine.jpg"), junk("n01/a.jpg")
    ('left by an operating system or a tool', 'hidden (its name begins with a dot)', None)
    """
    parts = [part for part in path.lower().split("/") if part not in ("", ".", "..")]
    if not parts:
        return None
    if any(part in _FOLDERS or re.fullmatch(r"\.trash-\d+", part) for part in parts):
        return JUNK
    if parts[-1] in _FILES or _PATTERNS.fullmatch(parts[-1]):
        return JUNK
    return HIDDEN if any(part.startswith(".") for part in parts) else None
