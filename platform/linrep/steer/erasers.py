"""What an erasure takes out of the stream: a subspace that the probes found, or a random one of the same rank.

An edit acts on single tokens, so subspaces, covariance and the centre are those of single tokens (the view `tokens`; at the last
position the view `last`). Means over an image's tokens have the same class means but a smaller covariance: LEACE fitted to them
would not move tokens least, and random subspaces drawn from it would not be as loud as tokens are.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.directions import Directions, DirectionSet
from linrep.erasure import Eraser, isotropic, like_data, of_means, projection
from linrep.errors import RecipeError, StoreError
from linrep.steer.config import SteerConfig
from linrep.steer.token_latents import VIEW_OF_SITE

FROM_TEXT = "text_"
COINCIDE = 1e-5
"""Class means that are closer than this share of the tokens' norm are one, as for directions."""


def check_erasers(config: SteerConfig, directions: DirectionSet, layers: Sequence[int]) -> None:
    """Refuse a plan whose subspaces are not among the directions.

    Raises:
        RecipeError: One is missing; the message says which, and how to get it.
    """
    if "erase" not in config.edits:
        return
    try:
        for site in config.sites:
            for layer in layers:
                for kind in config.erase.subspaces:
                    _parts(directions, kind, site.kind, layer)
    except StoreError as error:
        raise RecipeError(
            f"steer.erase: {error}. Subspaces are those of single tokens: probe the views {_views(config)} with probe.erasure set"
        ) from None


def centre_of(directions: DirectionSet, site: str, layer: int) -> Float[Tensor, " d"]:
    """What all images' tokens have in common, which no erasure touches: the mean over the class means."""
    return _means(directions, site, layer, "image").vectors.mean(0)


def eraser_of(directions: DirectionSet, kind: str, rank: int | None, site: str, layer: int, draw: torch.Generator) -> Eraser:
    """The eraser of a subspace.

    Args:
        directions: What the probes found.
        kind: class_mean, leace, inlp, each also with text_ before it; random, covariance.
        rank: Dimensions; None for as many as class means span.
        site: Kind of the site.
        layer: Layer k.
        draw: Draws random subspaces.

    Raises:
        LookupError: Class means coincide, or the subspace has fewer dimensions.
        StoreError: The probes have no such subspace, layer or view.
    """
    parts = _parts(directions, kind, site, layer)
    means = _means(directions, site, layer, "text" if kind.startswith(FROM_TEXT) else "image")
    spread = (means.vectors - means.vectors.mean(0)).norm(dim=1).max()
    if spread <= COINCIDE * means.token_norm:
        raise LookupError(f"the class means coincide at layer {layer} of {site}")
    classes = of_means(means.vectors)
    rank = classes.rank if rank is None else rank
    match kind.removeprefix(FROM_TEXT):
        case "class_mean":
            found = classes
        case "leace":
            found = Eraser(parts[0].vectors, parts[1].vectors)
        case "random":
            found = isotropic(rank, means.vectors.shape[1], draw)
        case "covariance":
            found = like_data(parts[0].vectors, rank, draw)
        case _:
            found = projection(parts[0].vectors)
    if found.rank < rank:
        raise LookupError(f"{kind} has {found.rank} dimensions at layer {layer} of {site}, fewer than {rank}")
    first = found.first(rank)
    return Eraser(first.read.float(), first.write.float())


def _parts(directions: DirectionSet, kind: str, site: str, layer: int) -> list[Directions]:
    modality, name = ("text" if kind.startswith(FROM_TEXT) else "image"), kind.removeprefix(FROM_TEXT)
    kinds = {"leace": ["leace", "leace_pattern"], "random": []}.get(name, [name])
    return [directions.select(own, layer, VIEW_OF_SITE[site], modality, "class") for own in kinds]


def _means(directions: DirectionSet, site: str, layer: int, modality: str) -> Directions:
    return directions.select("class_mean", layer, VIEW_OF_SITE[site], modality, "class")


def _views(config: SteerConfig) -> str:
    return " and ".join(dict.fromkeys(VIEW_OF_SITE[site.kind] for site in config.sites))
