"""What an SAE says it is of, held against where it is to be used: the only place that decides whether the two fit.

Layer k is the stream that enters block k, so `blocks.3.hook_resid_post` (SAELens), `layers.3` (sparsify: a module's output) and
`resid_post_layer_3` (dictionary_learning) all are layer 4. What an SAE does not say is unknown, and unknown is no mismatch.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from linrep.errors import RecipeError
from linrep.sae.sae import Sae

INSIST = "insist"
"""The field that takes an SAE against what it says."""
BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,9})(\..+)?$")
NAMED = re.compile(r"^(\w+?)_layer_?(\d{1,9})$")
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "hook_embed")


def layer_of_hook(name: str) -> int | None:
    """The layer that a hook's or a module's name means; None where it names no layer.

    >>> layer_of_hook("blocks.3.hook_resid_pre"), layer_of_hook("blocks.3.hook_resid_post"), layer_of_hook("model.layers.3")
    (3, 4, 4)

    Raises:
        ValueError: It is another place than the stream between blocks.
    """
    if "vision" in name:
        raise ValueError(name)
    if name.rsplit(".", 1)[-1] in EMBEDDINGS:
        return 0
    block, named = BLOCK.search(name), NAMED.match(name)
    if block is not None:
        side = (block[2] or ".hook_resid_post").removeprefix(".")
        if side not in ("hook_resid_pre", "hook_resid_post"):
            raise ValueError(name)
        return int(block[1]) + (side == "hook_resid_post")
    if named is not None:
        if named[1] not in ("resid_pre", "resid_post"):
            raise ValueError(name)
        return int(named[2]) + (named[1] == "resid_post")
    return None


def layers_said(about: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Layers that an SAE may be of, by what says so; none where it is of another place than the stream between blocks."""
    found: dict[str, tuple[int, ...]] = {}
    if isinstance(about.get("layer"), int):
        found[f"layer {about['layer']}"] = (about["layer"],)
    if isinstance(about.get("layers"), list | tuple):
        found[f"layer {' or '.join(map(str, about['layers']))}"] = tuple(about["layers"])
    if isinstance(about.get("hook_layer"), int):  # SAELens' before 6.0.0: the block, on either side of it
        found[f"block {about['hook_layer']}"] = (about["hook_layer"], about["hook_layer"] + 1)
    if isinstance(about.get("hook_name"), str):
        try:
            layer = layer_of_hook(about["hook_name"])
        except ValueError:
            found[f"{about['hook_name']}, which is not the stream between blocks"] = ()
        else:
            if layer is not None:
                found[f"{about['hook_name']}, which is layer {layer}"] = (layer,)
    return found


def layer_said(about: Mapping[str, Any]) -> int | None:
    """The one layer that all that an SAE says agrees on; None where it leaves several, or none."""
    said = [set(layers) for layers in layers_said(about).values()]
    common = set.intersection(*said) if said else set()
    return common.pop() if len(common) == 1 else None


def mismatches(about: Mapping[str, Any], layer: int, model: Mapping[str, Any]) -> list[str]:
    """What an SAE says that does not fit, in words.

    Args:
        about: What it says.
        layer: The layer whose activations go in, of images and texts.
        model: The card of the model whose activations they are.
    """
    found = [f"it says {words}" for words, layers in layers_said(about).items() if layer not in layers]
    digest, name = about.get("model_digest"), about.get("model_name")
    if isinstance(digest, str) and isinstance(model.get("digest"), str):
        if digest != model["digest"]:
            found.append(f"it says model {name or digest} ({digest}), not {model.get('path')} ({model['digest']})")
    elif isinstance(name, str) and isinstance(model.get("path"), str) and _short(name) != _short(model["path"]):
        found.append(f"it says model {name}, not {model['path']}")
    if about.get("modality") in ("image", "text"):
        found.append(f"it says that it takes {about['modality']} tokens alone")
    return found


def check_origin(
    sae: Sae, path: str, layer: int, width: int, model: Mapping[str, Any], field: str, insist: bool
) -> dict[str, Any]:
    """Make sure that an SAE is of the layer, the model and the width that it is to be used on.

    Args:
        sae: The SAE.
        path: Where it lies.
        layer: The layer that it is to be used on.
        width: Of the stream there.
        model: The card of the model there.
        field: Field of the recipe that names it, for messages; its `insist` lies beside.
        insist: Whether to take it against what it says; not against its width, which nothing can be done about.

    Returns:
        What it says, and what of that was insisted on, as results keep it.

    Raises:
        RecipeError: It is not.
    """
    if sae.d_model != width:
        raise RecipeError(f"{field}: {path} is for width {sae.d_model}, the store has {width}")
    wrong = mismatches(sae.about, layer, model)
    if wrong and not insist:
        raise RecipeError(
            f"{field}: {path} is to be used on layer {layer} of {model.get('path')}, but {'; '.join(wrong)}: "
            f"use the SAE of that layer, or insist with {field}.{INSIST}"
        )
    said = layers_said(sae.about)
    return {
        "path": path,
        "layer": layer,
        "says_layer": "; ".join(said) or "unknown",
        "says_model": str(sae.about.get("model_name") or sae.about.get("model_digest") or "unknown"),
        "insisted": wrong,
    }


def origin_lines(saes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for a headline: SAEs that were insisted on, and those that do not say what they are of."""
    lines = []
    for one in saes:
        unknown = [name for name in ("layer", "model") if one[f"says_{name}"] == "unknown"]
        if one["insisted"]:
            lines.append(f"INSISTED on {one['path']} at layer {one['layer']}, although {'; '.join(one['insisted'])}")
        elif unknown:
            lines.append(f"{one['path']}, used on layer {one['layer']}: of {' and '.join(f'{name} unknown' for name in unknown)}")
    return lines


def _short(name: str) -> str:
    """A model's name without owner and folders: `models--owner--name/snapshots/commit` is how the hub's cache spells it."""
    cached = re.search(r"models--[^/]*--([^/]+)", name)
    return (cached[1] if cached else name.rstrip("/").rsplit("/", 1)[-1]).lower()
