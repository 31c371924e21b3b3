"""Cells: everything that is done to one image (or text) for one pair of classes, the unedited run first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from linrep.steer.config import DONORS, INTERCHANGE, SteerConfig
from linrep.steer.sites import Elsewhere, Everywhere, ImageTokens, areas

NO_DIRECTION = "no direction: "
"""Begins the reason of a cell for which there was nothing to run; any other reason is a failure."""


@dataclass(frozen=True)
class Cell:
    """One edited run.

    Attributes:
        site: Number of the place where it acts among `areas` of the recipe's sites; None without an edit.
        site_kind: Kind of the site, or of the one whose control this is.
        layer: Layer k.
        edit: none, add, ablate, swap, clamp, zero, mean, interchange or erase.
        direction: Of an addition; of an interchange whose stream it is; of an erasure the subspace; of other
            edits the control, None for the edit itself.
        strength: Of an addition; of an erasure its rank, None for as many dimensions as classes span.
    """

    site: int | None = None
    site_kind: str | None = None
    layer: int | None = None
    edit: str = "none"
    direction: str | None = None
    strength: float | None = None

    def columns(self) -> dict[str, Any]:
        """The columns that say which cell a row is of."""
        return {
            "site": self.site_kind,
            "layer": self.layer,
            "edit": self.edit,
            "direction": self.direction,
            "strength": self.strength,
        }


UNEDITED = Cell()


def cells(config: SteerConfig, layers: Sequence[int]) -> list[Cell]:
    """All cells of the plan in their fixed order; neighbours share site and layer, so that they share a batch.

    Args:
        config: The plan.
        layers: Layers at which edits act.
    """
    found = [UNEDITED]
    for number, site in enumerate(config.sites):
        for layer in layers:
            has_sae = config.sae is not None and layer == config.sae.layer
            for kind in config.directions:
                if kind.startswith("sae_") and not has_sae:
                    continue
                found += [Cell(number, site.kind, layer, "add", kind, s) for s in config.dose.strengths]
            for edit in config.edits:
                if edit == INTERCHANGE:
                    if site.kind == "last":
                        found += [Cell(number, site.kind, layer, edit, donor) for donor in DONORS]
                elif edit == "erase":
                    ranks = config.erase.ranks or (None,)
                    found += [Cell(number, site.kind, layer, edit, kind, r) for kind in config.erase.subspaces for r in ranks]
                elif edit != "clamp" or has_sae:
                    found.append(Cell(number, site.kind, layer, edit))
                    found += _control(config, number, layer, edit)
    return found


def _control(config: SteerConfig, number: int, layer: int, edit: str) -> list[Cell]:
    """The same edit where it should matter less; nothing is left to compare with where tokens everywhere are knocked out."""
    site = config.sites[number]
    if edit not in ("zero", "mean"):
        return [Cell(number, site.kind, layer, edit, "random")]
    match site:
        case ImageTokens():
            return [Cell(number, site.kind, layer, edit, "shuffled_tokens")]
        case Everywhere():
            return []
    return [Cell(areas(config.sites).index(Elsewhere(site)), site.kind, layer, edit, "other_tokens")]
