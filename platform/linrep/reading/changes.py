"""The edits that a person names on a command line or a page, made by `linrep.steer`: each with its control of the same norm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from linrep.errors import RecipeError
from linrep.fields import nearest
from linrep.reading.read import ReadSae
from linrep.steer.config import Everywhere, ImageTokens, LastToken, Site
from linrep.steer.edits import Clamp, Edit
from linrep.steer.latents import SaeLike
from linrep.steer.vectors import NoDirection, Vectors

SITES: dict[str, Site] = {site.kind: site for site in (ImageTokens(), LastToken(), Everywhere())}
"""Where edits act, by name."""
LATENT = "--latent 309=4.0, or 309@4=4.0 to say the SAE's layer"
EDIT = "--edit boat:tree@4=2: source:target@layer=strength"


@dataclass(frozen=True)
class Change:
    """An edit that was named, ready to run.

    Attributes:
        label: What it is, in words.
        kind: add or clamp.
        site: Where it acts.
        layer: Layer k.
        edit: What is done.
        control: The same with another direction of the same norm.
        control_label: What that is, in words.
        direction: Kind of the direction of an addition.
        strength: Strength of an addition, or the value of a clamped latent.
        latent: Of a clamp.
    """

    label: str
    kind: str
    site: Site
    layer: int
    edit: Edit
    control: Edit
    control_label: str
    direction: str | None
    strength: float
    latent: int | None = None


@dataclass(frozen=True)
class NamedLatent:
    """A latent set to a value; `layer` is the SAE's, None for the first one."""

    latent: int
    value: float
    layer: int | None = None


@dataclass(frozen=True)
class NamedEdit:
    """A class direction to add; layer and strength are None where they are left to the recipe."""

    source: str
    target: str
    layer: int | None = None
    strength: float | None = None


def parse_latent(text: str) -> NamedLatent:
    """A latent as it is typed.

    >>> parse_latent("309=4.0"), parse_latent("12@2=-1")
    (NamedLatent(latent=309, value=4.0, layer=None), NamedLatent(latent=12, value=-1.0, layer=2))

    Raises:
        RecipeError: It is typed in another way.
    """
    which, equals, value = text.partition("=")
    latent, at, layer = which.partition("@")
    try:
        if equals and bool(at) == bool(layer) and math.isfinite(float(value)):
            return NamedLatent(int(latent), float(value), int(layer) if at else None)
    except ValueError:
        pass
    raise RecipeError(f"--latent {text}: no latent with a value; for example {LATENT}")


def parse_edit(text: str, classes: Sequence[str]) -> NamedEdit:
    """A class edit as it is typed; names may hold any sign.

    >>> parse_edit("boat:tree@4=2", ["boat", "tree"])
    NamedEdit(source='boat', target='tree', layer=4, strength=2.0)

    Args:
        text: What was typed.
        classes: Classes that there are directions for.

    Raises:
        RecipeError: It is typed in another way, or a class is unknown.
    """
    pair, strength, layer = text, None, None
    head, equals, tail = pair.rpartition("=")
    if equals and _number(tail) is not None:
        pair, strength = head, _number(tail)
    head, at, tail = pair.rpartition("@")
    if at and tail.isdecimal():
        pair, layer = head, int(tail)
    splits = [(pair[:i], pair[i + 1 :]) for i, sign in enumerate(pair) if sign == ":"]
    for source, target in splits:
        if source in classes and target in classes and source != target:
            return NamedEdit(source, target, layer, strength)
    if not splits:
        raise RecipeError(f"--edit {text}: no pair of classes; for example {EDIT}")
    source, target = splits[0]
    if source == target:
        raise RecipeError(f"--edit {text}: a pair needs two classes")
    wrong = source if source not in classes else target
    hint = f"did you mean {found[0]}?" if (found := nearest(wrong, list(classes))) else f"there are {_some(classes)}"
    raise RecipeError(f"--edit {text}: no class {wrong!r} among the directions; {hint}")


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "") if names else "none"


def clamp_of(named: NamedLatent, saes: Sequence[ReadSae], vectors: Vectors, site: Site) -> Change:
    """The edit of a latent, and another latent that writes as much.

    Raises:
        RecipeError: There is no such SAE or latent.
    """
    own = [one for one in saes if named.layer in (None, one.layer)]
    if not own:
        there = f"there are SAEs of layers {', '.join(str(one.layer) for one in saes)}" if saes else "there is no SAE"
        raise RecipeError(f"--latent {named.latent}: no SAE of layer {named.layer}; {there}")
    sae, encoder = own[0], own[0].encoder
    assert isinstance(encoder, SaeLike)
    if not 0 <= named.latent < encoder.n_latents:
        raise RecipeError(f"--latent {named.latent}: {sae.name} of layer {sae.layer} has latents 0 to {encoder.n_latents - 1}")
    clamp = Clamp(encoder, named.latent, named.value)
    try:
        control = vectors.another_latent(clamp, site.kind, sae.layer, str(named.latent))
    except NoDirection as reason:
        raise RecipeError(f"--latent {named.latent}: {reason}") from None
    return Change(
        label=f"latent {named.latent} = {named.value:g} at layer {sae.layer}, {site.kind}",
        kind="clamp",
        site=site,
        layer=sae.layer,
        edit=clamp,
        control=control,
        control_label=f"latent {control.latent} = {control.value:.3g}, which writes as much",
        direction=None,
        strength=named.value,
        latent=named.latent,
    )


def addition_of(named: NamedEdit, vectors: Vectors, layers: Sequence[int], strength: float, site: Site) -> Change:
    """The edit of a pair of classes, and a random direction of the same norm.

    Args:
        named: What was asked for.
        vectors: Makes edits from the probes' directions.
        layers: Layers that have directions; the middle one is meant where none is named.
        strength: What is meant where none is named.
        site: Where it acts.

    Raises:
        RecipeError: There is no direction there.
        StoreError: The probes have no class means there.
    """
    layer = layers[len(layers) // 2] if named.layer is None else named.layer
    if layer not in layers:
        raise RecipeError(
            f"--edit {named.source}:{named.target}: no directions of layer {layer}: there are {_some(_text(layers))}"
        )
    dose = strength if named.strength is None else named.strength
    try:
        edit, control = (
            vectors.edit("add", kind, dose, site.kind, layer, named.source, named.target) for kind in ("class_mean", "random")
        )
    except NoDirection as reason:
        raise RecipeError(f"--edit {named.source}:{named.target}: {reason}") from None
    unit = "the token's norm" if vectors.dose.relative else "the classes' difference"
    return Change(
        label=f"{named.source} to {named.target}, {dose:g} of {unit} at layer {layer}, {site.kind}",
        kind="add",
        site=site,
        layer=layer,
        edit=edit,
        control=control,
        control_label="a random direction of the same norm",
        direction="class_mean",
        strength=dose,
    )


def _text(layers: Sequence[int]) -> list[str]:
    return [str(layer) for layer in layers]
