"""What the search page looks in: words of explanations, labels, logit-lens words, classes and captions.

The words stand in buckets by their first two letters, a shard each, so that a search loads what begins like the word and no more.
"""

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from linrep.explorer.site.latents import score_of, studied, told_of
from linrep.explorer.site.pictures import Pictures
from linrep.explorer.site.results import Results
from linrep.explorer.site.shards import Site

HITS = 100
"""Latents listed for a word in an SAE, the best of each kind; the table of latents finds them all."""
OTHER = "other"
WORD = re.compile(r"[^\W_]+")
FIELDS = ("explanation", "label", "words")
"""Where a word of a latent stands."""


def write_search(site: Site, results: Results, pictures: Mapping[str, Pictures]) -> None:
    """Write the buckets, and the list of them.

    Args:
        site: The site.
        results: The workspace's results.
        pictures: By digest of the harvest.
    """
    found: dict[str, list[list[Any]]] = {}
    saes = [one for one in studied(results) if one.features.parents["harvest"] in pictures]
    for number, one in enumerate(saes):
        mine = (pl.col("layer") == one.sae.layer) & (pl.col("sae") == one.sae.name)
        told = told_of(one)
        own: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for row in one.features.frame().filter(mine).iter_rows(named=True):
            latent = row["latent"]
            texts = {
                "explanation": (told.get(latent, {}).get("explanation") or "", score_of(told.get(latent), "own")),
                "label": (row["best_value"] or "", row["f1"]),
                "words": (" ".join((row["words_up"] or [])[:5]), (row["logits_up"] or [0.0])[0] if row["logits_up"] else None),
            }
            for field, (text, rank) in texts.items():
                for word in {w.lower() for w in WORD.findall(text)}:
                    own.setdefault((word, field), []).append((-1.0 if rank is None else float(rank), latent))
        for (word, field), hits in own.items():
            best = sorted(hits, key=lambda hit: (-hit[0], hit[1]))[:HITS]
            found.setdefault(word, []).append([number, FIELDS.index(field), len(hits), [[n, round(rank, 3)] for rank, n in best]])
    buckets: dict[str, dict[str, Any]] = {}
    for word in sorted(found):
        buckets.setdefault(bucket(word), {})[word] = found[word]
    for name, hits in buckets.items():
        site.shard(f"search/{name}", hits)
    site.shard("search", {"fields": list(FIELDS), "buckets": sorted(buckets)})


def bucket(word: str) -> str:
    """The bucket of a word: its first two letters, where these are plain."""
    return word[:2] if re.fullmatch(r"[a-z0-9]{2}", word[:2]) else OTHER
