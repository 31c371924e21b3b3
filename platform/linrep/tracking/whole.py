"""A whole of several jobs: a run in MLflow with the jobs' runs below it, whether they work now or were complete before."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from linrep.places import Place
from linrep.tracking.runs import PARENT, WHOLE, Run, run, search_key
from linrep.tracking.where import key_of, tracking_uri


@dataclass
class Whole:
    """A whole whose parts run now.

    Attributes:
        begin: Begins or continues its run.
        complete: Keys of parts that had nothing to do.
    """

    begin: Callable[[], Run]
    complete: list[str] = field(default_factory=list)
    _run: Run | None = None

    @property
    def begun(self) -> bool:
        """Whether there was anything to log."""
        return self._run is not None

    def run(self) -> Run:
        """Its run, begun when it is first asked for: where all is complete, nobody asks MLflow."""
        if self._run is None:
            token = WHOLE.set(None)  # its own run is no part of it
            try:
                self._run = self.begin()
            finally:
                WHOLE.reset(token)
        return self._run

    def adopt(self) -> None:
        """Put the runs of the parts that were complete before below its run."""
        if self._run is None:
            return
        for key in self.complete:
            for part in search_key(self._run, key):
                if part.info.run_id != self._run.id and part.data.tags.get(PARENT) != self._run.id:
                    self._run.below(part.info.run_id)


@contextlib.contextmanager
def whole(
    workspace: Place, stage: str, name: str, key: str, params: Mapping[str, Any], first: Callable[[], None]
) -> Iterator[Whole]:
    """A whole: runs that are opened in its block become its parts. An error in the block ends its run as it ends theirs.

    Args:
        workspace: Where the database lies, unless a server is named.
        stage: What kind of whole.
        name: What people see.
        key: Digest of what it makes.
        params: The recipe, nested.
        first: Called before its run is begun or continued.

    Raises:
        ServiceError: The tracking server does not answer.
    """
    with contextlib.ExitStack() as stack:

        def begin() -> Run:
            first()
            return stack.enter_context(run(workspace, stage, name, key, params))

        one = Whole(begin)
        token = WHOLE.set(one)
        try:
            yield one
        finally:
            WHOLE.reset(token)
        one.adopt()


def uri_of(workspace: Place, thing: Place) -> str:
    """Where the run of a complete thing is kept. The run becomes a part of the whole that is open."""
    one = WHOLE.get()
    if one is not None:
        one.complete.append(key_of(workspace, thing))
    return tracking_uri(workspace)
