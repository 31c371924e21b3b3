"""Linear representations in vision-language LLMs: harvest, probe, steer, decompose, compare."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`linrep.ask`, found when it is asked for: importing the package imports nothing else."""
    if name == "ask":
        from linrep.cluster.run_ask import ask

        return ask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
