"""Cells: everything that is done to one photograph (or text) for one pair of classes, the unedited run first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from linrep.steer.config import SteerConfig


@dataclass(frozen=True)
class Cell:
    """One edited run.

    Attributes:
        site: Number of the site in the recipe; None without an edit.
        site_kind: Its kind.
        layer: Layer k.
        edit: none, add, ablate, swap, clamp, zero or mean.
        direction: Of an addition.
        strength: Of an addition.
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
            has_dictionary = config.sae is not None and layer == config.sae.layer
            for kind in config.directions:
                if kind.startswith("sae_") and not has_dictionary:
                    continue
                found += [Cell(number, site.kind, layer, "add", kind, s) for s in config.dose.strengths]
            found += [Cell(number, site.kind, layer, edit) for edit in config.edits if edit != "clamp" or has_dictionary]
    return found


def damage_cells(config: SteerConfig, layers: Sequence[int]) -> list[Cell]:
    """The cells whose damage is measured: those of the dose-response, and the unedited run that they are compared with."""
    return [cell for cell in cells(config, layers) if cell.edit in ("none", "add")]
