"""What a job prints at its end: the finding, where the results lie, and the next command; tables go into files."""

import shlex
from collections.abc import Sequence

from linrep.cluster.stage import Outcome
from linrep.records import SUMMARY
from linrep.tracking import pages

MOST_LINES = 25
"""Of a job's output: what is longer is in `summary.txt`."""


def outcome_lines(outcome: Outcome, more: Sequence[tuple[str, str]] = ()) -> list[str]:
    """The lines of a finished job.

    Args:
        outcome: What it did.
        more: Further words and commands of what to do next, which depend on the command line.
    """
    artefact, shown = outcome.artefact, outcome.shown
    what, are = artefact.kind.what, "is" if artefact.kind.single else "are"
    if shown.waiting is not None:
        state = f"The {what} {are} not complete yet: {shown.waiting}"
    else:
        state = f"The {what} {are} complete." if outcome.n_new else f"Nothing to do: the {what} {are} complete."
    next_ = [*shown.next, *more, ("compare", pages(outcome.uri))]
    wide = max(len(word) for word, _ in next_) + 1
    key = "The address is shown without its key: put it back, or keep it in the environment (AWS_ACCESS_KEY_ID, ...)."
    where = [f"Results  {artefact.place}", *([key] if artefact.place.key else [])]
    tail = ["", *where, "Next:", *(f"  {word + ':':{wide}} {command}" for word, command in next_)]
    head = [state, *shown.headline]
    room = MOST_LINES - len(head) - len(tail) - 1
    lines = list(shown.lines)
    if len(lines) > room:
        file = shlex.quote(str(artefact.place / SUMMARY))
        lines = [*lines[: room - 1], f"  ... {len(lines) - room + 1} more lines in {file}"]
    return [*head, *([""] if lines else []), *lines, *tail]


def report(outcome: Outcome, more: Sequence[tuple[str, str]] = ()) -> None:
    """Print the lines of a finished job."""
    print("\n".join(outcome_lines(outcome, more)))
