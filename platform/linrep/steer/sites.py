"""Where an edit acts: positions found from the roles that `input_ids` give them, never from fixed numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from linrep.sample import unit_hash
from linrep.steer.config import Everywhere, ImageTokens, LastToken, Patches, Site
from linrep.vlm.card import ModelCard
from linrep.vlm.families import layout
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.tokens import patch_box


@dataclass(frozen=True)
class Elsewhere:
    """As many other patches of the image as a site has positions, drawn by the sample's name: the control of a knock-out.

    Source: Neo et al., "Towards Interpreting Visual Information Processing in Vision-Language Models", ICLR 2025.
    """

    of: Patches | LastToken


class NoControl(ValueError):
    """Why there are not as many other patches; the control is left out, with this reason."""


Area = Site | Elsewhere


def areas(sites: Sequence[Site]) -> tuple[Area, ...]:
    """The sites, in their order, and after them what controls the knock-out of those that leave other patches."""
    return (*sites, *(Elsewhere(site) for site in sites if isinstance(site, Patches | LastToken)))


def positions(site: Area, prepared: Prepared, card: ModelCard) -> Bool[np.ndarray, " t"]:
    """Which positions of a sequence a site names.

    Args:
        site: Where.
        prepared: The sequence.
        card: Of the model, for its tiling.

    Raises:
        NoControl: There are not as many other patches.
        ValueError: The sequence has none: an image site in a text, or a box without a patch's centre.
    """
    match site:
        case ImageTokens():
            found = prepared.role >= Role.IMAGE
        case Patches():
            found = _inside(site, prepared, card)
        case LastToken():
            found = np.zeros(len(prepared), bool)
            last = last_position(prepared)
            if last >= 0:
                found[last] = True
        case Everywhere():
            found = np.ones(len(prepared), bool)
        case Elsewhere():
            return _others(positions(site.of, prepared, card), prepared)
    if not found.any():
        raise ValueError(f"site {site.kind!r} names no position of {prepared.sample.id}: {len(prepared)} positions")
    return found


def last_position(prepared: Prepared) -> int:
    """The last position of a prompt, before the sample's own text if there is one; -1 where nothing comes before it."""
    (text,) = np.nonzero(prepared.role == Role.TEXT)
    return (int(text[0]) if len(text) else len(prepared)) - 1


def _others(taken: Bool[np.ndarray, " t"], prepared: Prepared) -> Bool[np.ndarray, " t"]:
    n, free = int(taken.sum()), np.flatnonzero((prepared.role == Role.IMAGE) & ~taken)
    if len(free) < n:
        raise NoControl(f"the control needs {n} other patches of {prepared.sample.id}, there are {len(free)}")
    # Drawn among the patches by their order, so that every prompt of an image has the same ones.
    drawn = np.random.default_rng(int(unit_hash(prepared.sample.id, "elsewhere") * 2**53)).permutation(len(free))[:n]
    found = np.zeros(len(prepared), bool)
    found[free[drawn]] = True
    return found


def _inside(site: Patches, prepared: Prepared, card: ModelCard) -> Bool[np.ndarray, " t"]:
    found = np.zeros(len(prepared), bool)
    if prepared.image_size is None:
        return found
    plan = layout(prepared.image_size, card)
    height, width = prepared.image_size
    left, top, right, bottom = site.box
    for i in np.flatnonzero(prepared.role == Role.IMAGE):
        x0, y0, x1, y1 = patch_box(plan, int(prepared.tile[i]), int(prepared.row[i]), int(prepared.col[i]))
        found[i] = left <= (x0 + x1) / 2 / width < right and top <= (y0 + y1) / 2 / height < bottom
    return found
