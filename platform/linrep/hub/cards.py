"""Parts that all cards have: metadata that a YAML library writes, tables and blocks whose texts stay texts."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from linrep import __version__
from linrep.explorer.escaped import in_markdown


def front_matter(data: Any) -> list[str]:
    """The lines of a card's metadata.

    Args:
        data: A `huggingface_hub.CardData`.
    """
    return ["---", data.to_yaml(), "---", ""]


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table; whatever a cell holds shows as it is."""
    # After a word, for a cell begins no list: 0.2 stays 0.2.
    lines = [[in_markdown(f"x {cell}").removeprefix("x ") for cell in row] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def block(language: str, text: str) -> list[str]:
    """A block of code, whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]


def made_with() -> list[str]:
    """The last line of a card."""
    return [f"Made with Line of Sight {__version__} (`linrep`).", ""]
