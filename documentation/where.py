"""Where in a scene latents fire: all patches of an image through the model and an SAE, held against where the object is."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from documentation.results import made, markdown, rows
from linrep.demo import model_folder
from linrep.demo.paint import object_mask, patch_shares
from linrep.demo.scene import Scene
from linrep.features.artefact import FEATURES_KIND
from linrep.places import Place, place
from linrep.sae.artefact import SAES
from linrep.sae.formats import read
from linrep.sae.sae import Sae
from linrep.sample import Sample
from linrep.stats.interval import in_brackets, of_mean
from linrep.vlm.batch import collate
from linrep.vlm.card import ModelCard, describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.hooks import forward, record
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared

PROMPT = "<image> what is it ? answer :"
"""As the demo's recipe harvests."""
EACH = 8
"""Images of each value of an attribute."""


@dataclass(frozen=True)
class Activity:
    """Latents on the patches of an image.

    Attributes:
        size: Height and width of the image in pixels.
        crops: Activations on the grid of the crops' patches.
        base: Activations on the grid of the base view's.
    """

    size: tuple[int, int]
    crops: Float[np.ndarray, "rows cols f"]
    base: Float[np.ndarray, "side side f"]


@dataclass(frozen=True)
class Encoded:
    """The demo's model and the SAE that its features are of; called with an encoded image it gives the `Activity`.

    Attributes:
        workspace: Where everything lies.
        recipe: Name of the recipe.
    """

    workspace: str
    recipe: str

    @cached_property
    def name(self) -> tuple[int, str]:
        """Layer and name of the SAE."""
        first = made(FEATURES_KIND, place(self.workspace), self.recipe).about.saes[0]
        return first.layer, first.name

    @cached_property
    def sae(self) -> Sae:
        """The SAE."""
        layer, name = self.name
        return read(made(SAES, place(self.workspace), self.recipe).place / f"layer-{layer:03d}" / name)

    @cached_property
    def vlm(self) -> VLM:
        """The model, as deep as the SAE's layer."""
        return load(ModelConfig(path=str(model_folder())), depth=self.name[0])

    @cached_property
    def card(self) -> ModelCard:
        """The model's card."""
        return describe(ModelConfig(path=str(model_folder())))

    @cached_property
    def preparer(self) -> Preparer:
        """Images to sequences."""
        return Preparer.from_path(ModelConfig(path=str(model_folder())), image_prompt=PROMPT)

    def __call__(self, image: bytes) -> Activity:
        """Run one image."""
        prepared = self.preparer(Sample(id="scene", corpus="images", modality="image", uri="", split="test", image=image))
        assert isinstance(prepared, Prepared)
        assert prepared.grid is not None
        assert prepared.image_size is not None
        layer = self.name[0]
        with torch.inference_mode(), record(self.vlm, [layer]) as streams:
            forward(self.vlm, collate([prepared], self.vlm))
        codes = self.sae.encode(streams[layer][0].float()).numpy()
        crops, base = codes[(prepared.tile > 0) & (prepared.col >= 0)], codes[prepared.tile == 0]
        side = self.card.tile_size // self.card.patch_size
        return Activity(prepared.image_size, crops.reshape(*prepared.grid, -1), base.reshape(side, side, -1))


def scenes(workspace: str) -> dict[str, dict[str, Any]]:
    """The truth of the demo's images, by the name of their sample; `class` is the object."""
    (file,) = Path(workspace).glob("worlds/*/scenes.jsonl")
    rows_of = map(json.loads, file.read_text().splitlines())
    return {row["image"]: {**row, "class": row["object"]} for row in rows_of}


def scene_of(workspace: str, sample: str) -> tuple[dict[str, Any], bytes]:
    """The truth of one image, and its bytes."""
    (file,) = Path(workspace).glob(f"worlds/*/{sample}")
    return scenes(workspace)[sample], file.read_bytes()


def best_latent(workspace: Place, recipe: str, attribute: str, value: str) -> dict[str, Any]:
    """The latent that separates a value of images best, with its F1 on the half of the samples that did not choose it."""
    labels = rows(made(FEATURES_KIND, workspace, recipe), "labels").filter(~pl.col("sae").str.ends_with("/random"))
    of = labels.filter(pl.col("attribute") == attribute, pl.col("value") == value, pl.col("modality") == "image")
    return of.sort("f1_chosen", descending=True).row(0, named=True)


def on_object(activity: Activity, scene: Scene) -> tuple[Float[np.ndarray, " f"], float]:
    """The share of each latent's activation that lies on the main object, and the object's share of the patches.

    The first is NaN for a latent that does not fire in the image.
    """
    mask = object_mask(scene)
    grids = [
        (one.reshape(-1, one.shape[2]), patch_shares(mask, *one.shape[:2]).ravel()) for one in (activity.crops, activity.base)
    ]
    values, covered = (np.concatenate(parts) for parts in zip(*grids, strict=True))
    total = values.sum(0)
    share = np.divide(covered @ values, total, out=np.full(len(total), np.nan), where=total > 0)
    return share, float(covered.mean())


def where_table(workspace: Place, recipe: str) -> str:
    """Where the best latent of each value fires: share of its activation on the object, beside that of all latents."""
    root = str(workspace)
    truth, encoded = scenes(root), Encoded(root, recipe)
    labels = rows(made(FEATURES_KIND, workspace, recipe), "labels").filter(pl.col("modality") == "image")
    lines = []
    for attribute in ("class", "colour", "ground"):
        values = sorted(labels.filter(pl.col("attribute") == attribute)["value"].unique())
        best = {value: best_latent(workspace, recipe, attribute, value)["latent"] for value in values}
        own: dict[str, list[float]] = {value: [] for value in values}
        every, even = [], []
        for value in values:
            for name in [one for one, row in truth.items() if row[attribute] == value and len(row["things"]) == 1][:EACH]:
                found, covered = on_object(encoded(scene_of(root, name)[1]), Scene.from_row(truth[name]))
                own[value] += [float(found[best[value]])] if np.isfinite(found[best[value]]) else []
                every.append(float(np.nanmean(found)))
                even.append(covered)
        mean = of_mean(np.array([np.mean(shares) for shares in own.values() if shares]))
        share = f"{mean.value:.2f}{in_brackets(mean.low, mean.high, '{:.2f}'.format)}"
        count = f"{sum(map(len, own.values()))} of {len(every)}"
        lines.append([attribute, str(len(values)), count, share, f"{np.mean(every):.2f}", f"{np.mean(even):.2f}"])
    head = ["best latents of", "values", "images in which they fire", "share of their activation on the object"]
    return markdown([*head, "all latents", "evenly spread"], lines)
