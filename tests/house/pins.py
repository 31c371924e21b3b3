"""constraints.txt, read."""

import re
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def pins() -> dict[str, str]:
    """The exact version of each package in constraints.txt."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
            assert match, f"not an exact pin: {line}"
            name = canonicalize_name(match[1])
            assert name not in found, f"pinned twice: {name}"
            found[name] = match[2]
    return found
