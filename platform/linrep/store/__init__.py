"""The activation store: layout, commits, writing, and reading to torch, numpy and polars."""

from linrep.store.read import Selection, Store, open

__all__ = ["Selection", "Store", "open"]
