"""How many tokens a store keeps apart for their norm, and where they stand: what result tables say beside their numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from linrep.store.layout import LAST_GROUPS, MODALITIES, Modality, View, site_group
from linrep.store.read import Store

POSITIONS = 8
"""Positions that are named, the most frequent first."""


@dataclass(frozen=True)
class Apart:
    """Tokens of high norm that are in no mean, variance, direction, correlation or ranking.

    Attributes:
        n: How many there are, in all splits.
        positions: Places in the sequence where most of them stand, with how many; the most first.
    """

    n: int
    positions: tuple[tuple[int, int], ...] = ()

    @classmethod
    def together(cls, parts: Iterable["Apart"]) -> "Apart":
        """Those of several parts."""
        n, places = 0, Counter[int]()
        for part in parts:
            n += part.n
            places.update(dict(part.positions))
        return cls(n, tuple(sorted(places.items(), key=lambda place: (-place[1], place[0]))[:POSITIONS]))

    def columns(self, modality: str = "") -> dict[str, object]:
        """The columns that say so; of one modality where the row is about both."""
        ending = f"_{modality}" if modality else ""
        return {f"n_high_norm{ending}": self.n, f"high_norm_positions{ending}": [place for place, _ in self.positions]}


def kept_apart(store: Store, view: View, layer: int, modalities: Sequence[Modality]) -> Apart:
    """The tokens of some modalities that the rows of a view and layer are without; of last positions, those alone.

    The manifest says it of all tokens that went through the model. Where it has no statistics, the store's rows are counted.
    """
    return Apart.together(_of_one(store, view, layer, modality) for modality in modalities)


def _of_one(store: Store, view: View, layer: int, modality: Modality) -> Apart:
    group = site_group(LAST_GROUPS[MODALITIES.index(modality)] if view == "last" else modality, store.site)
    if store.manifest.statistics:
        for own in store.manifest.statistics:
            if (own["layer"], own["group"]) == (layer, group):
                return Apart(own["n_high_norm"], tuple((int(i), int(n)) for i, n in own["high_norm_positions"]))
        return Apart(0)
    if view == "pooled" and "tokens" not in store.manifest.views:
        counts = store.select(view, layer, modality).table(["n_high_norm"])["n_high_norm"]
        return Apart(sum(count or 0 for count in counts.to_pylist()))
    rows = store.select("last" if view == "last" else "tokens", layer, modality, special=False, high_norm=True)
    places = Counter(place for place in rows.table(["position"])["position"].to_pylist())
    found = [(place, n) for place, n in places.items() if place is not None]
    return Apart(places.total(), tuple(sorted(found, key=lambda place: (-place[1], place[0]))[:POSITIONS]))
