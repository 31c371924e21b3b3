"""The activation store: layout, commits, writing, and reading to torch, numpy and polars."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linrep.store.read import Store, open
    from linrep.store.selection import Selection

__all__ = ["Selection", "Store", "open"]


def __getattr__(name: str) -> Any:
    """What reads is imported when it is first asked for: a recipe needs the layout's names alone, and no pyarrow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from linrep.store import read

    return getattr(read, name)
