"""Latents by words: those whose explanation, best label or logit-lens words hold what is asked for, the best first."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from linrep.notebook.markup import number, plain, table, text

Key = tuple[int, str, int]
"""Layer, SAE and number of a latent."""
WORD = re.compile(r"\w+")
COLUMNS = ("latent", "explanation", "label", "f1", "words", "modality score", "on images", "on texts")


@dataclass(frozen=True)
class LatentTable:
    """Latents that were found, the best first.

    Attributes:
        title: What was asked for.
        frame: One row a latent: its rows of the features, with `explanation` and `score`.
    """

    title: str
    frame: pl.DataFrame

    @property
    def latents(self) -> list[int]:
        """Their numbers."""
        return self.frame["latent"].to_list()

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[int]:
        return iter(self.latents)

    def _rows(self) -> Iterator[list[str]]:
        for row in self.frame.iter_rows(named=True):
            label = "" if row["best_value"] is None else f"{row['best_attribute']} {row['best_value']}"
            rates = [f"{row[f'rate_{m}']:.2%}" for m in ("image", "text")]
            words = ", ".join(word.strip() for word in row["words_up"][:5])
            own = [label, number(row["f1"]), words, number(row["modality_score"])]
            yield [str(row["latent"]), row["explanation"] or "", *own, *rates]

    def __repr__(self) -> str:
        lines = [self.title, *(f"  {row[0]:>7}  {plain(row[2], 24):24} {row[3]:>5}  {plain(row[1], 90)}" for row in self._rows())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return table(COLUMNS, ([text(cell, 160) for cell in row] for row in self._rows()), plain(self.title))


def search(features: pl.DataFrame, labels: pl.DataFrame, explanations: Mapping[Key, str], query: str, n: int = 20) -> LatentTable:
    """The latents that fit some words best.

    For each word a latent gets F1 of the label of it that names the word, half a point more where its explanation holds the word,
    and half a point divided by r more where that is the r-th word that the logit lens raises. The score is the mean over the
    words of the query; latents without any of them are left out.

    Args:
        features: Rows of the `FEATURES` contract, of those latents that may be found.
        labels: Rows of the `FEATURE_LABELS` contract of these: the best value of each attribute.
        explanations: What interpretations say, by latent.
        query: One or several words.
        n: How many latents, at most.

    Raises:
        ValueError: The query holds no word.
    """
    asked = [word.lower() for word in WORD.findall(query)]
    if not asked:
        raise ValueError(f"{query!r:.80} holds no word to search for")
    named: dict[int, list[tuple[str, float]]] = {}
    for latent, value, f1 in labels.select("latent", "value", "f1").iter_rows():
        named.setdefault(latent, []).append((value, f1))
    found = []
    for row in features.iter_rows(named=True):
        said = explanations.get((row["layer"], row["sae"], row["latent"]))
        own = named.get(row["latent"], [])
        total = sum(_score(word, own, said, row["words_up"]) for word in asked) / len(asked)
        if total > 0:
            found.append({**row, "explanation": said, "score": total})
    found.sort(key=lambda row: (-row["score"], row["latent"]))
    schema = {**features.schema, "explanation": pl.String(), "score": pl.Float64()}
    title = f"{min(n, len(found))} of {len(found):,} latents for {plain(query, 80)!r}"
    return LatentTable(title, pl.DataFrame(found[:n], schema=schema))


def _score(word: str, labels: Sequence[tuple[str, float]], said: str | None, words_up: Sequence[str]) -> float:
    score = max((f1 for value, f1 in labels if _holds(value, word)), default=0.0)
    score += 0.5 * _holds(said, word)
    ranks = [i for i, one in enumerate(words_up, 1) if one.strip().lower() == word]
    return score + (0.5 / ranks[0] if ranks else 0.0)


def _holds(said: str | None, word: str) -> bool:
    """Whether a text holds a word, in the singular or the plural."""
    forms = {word, f"{word}s", word.removesuffix("s")}
    return said is not None and not forms.isdisjoint(WORD.findall(said.lower()))
