"""What became of all that lies in the corpora, in a few lines: read, skipped, left out."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from linrep.corpora.config import corpus_of
from linrep.corpora.names import unspoken
from linrep.store.commit import Commit

_MOST = 5  # reasons that are named
_ONE_OF = re.compile(r"\Aimage \d+ of \d+: ")  # which image of a document is its own
_DOCUMENTS = "SAEs train on tokens of documents; probes, features, sharing, regions and steering leave documents out"


def account(corpora: Mapping[str, Any], commits: Mapping[int, Commit]) -> list[str]:
    """A line for each corpus, and one for its class names where some are no words.

    Args:
        corpora: What the manifest says of the index.
        commits: The store's commits, which name what was skipped.
    """
    skipped = Counter(sample.partition("/")[0] for commit in commits.values() for sample, _ in commit.skipped)
    reasons = Counter(_kind(reason) for commit in commits.values() for _, reason in commit.skipped)
    lines = []
    for corpus, counts in corpora.items():
        if not isinstance(counts, Mapping):
            continue
        n, n_skipped = counts["n_samples"], skipped[corpus]
        line = f"{corpus}: {n - n_skipped:,} of {n:,} samples read, {n_skipped:,} skipped"
        line += f"; {counts['n_unlabelled']:,} without a label" if counts["n_unlabelled"] else ""
        for what, why in counts["left_out"].items():
            line += f"; {sum(why.values()):,} {what} left out ({listed(why)})"
        lines += [line, *unspoken(counts["classes"])]
    if any(corpus_of(corpus) == "documents" for corpus in corpora):
        lines.append(_DOCUMENTS)
    return lines + ([f"skipped: {listed(reasons)}"] if reasons else [])


def listed(counts: Mapping[str, int]) -> str:
    """The most frequent reasons with their counts."""
    some = Counter(counts).most_common(_MOST)
    rest = sum(counts.values()) - sum(n for _, n in some)
    return ", ".join(f"{n:,} {why}" for why, n in some) + (f", {rest:,} for other reasons" if rest else "")


def _kind(reason: str) -> str:
    """A reason without what is one record's own."""
    return _ONE_OF.sub("", reason).split(":")[0].split(" (")[0][:80]
