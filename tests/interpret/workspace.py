"""A workspace with a harvest and the features of a random SAE, made without Ray."""

from pathlib import Path

import torch

from linrep.cluster.features import find_plainly
from linrep.cluster.run_features import plan_features
from linrep.features.artefact import finish
from linrep.features.config import FeaturesConfig
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig
from linrep.harvest.finish import complete_manifest
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.interpret.config import Chat, InterpretConfig, Scored, Shown
from linrep.named_sae import NamedSae
from linrep.places import place
from linrep.recipe import Recipe
from linrep.sae.controls import random_sae
from linrep.sae.formats import saelens
from linrep.store.commit import read_commits
from linrep.store.manifest import write_manifest
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from tests.conftest import write_corpora

HARVEST = HarvestConfig(layers=(2,), views=("tokens",), tokens_per_sample=12, chunk_size=32)


def write_recipe(folder: Path, model: ModelConfig) -> Recipe:
    """The recipe of a workspace in `folder`/ws whose features are complete."""
    corpora = write_corpora(folder / "corpora", n_images=48, n_texts=40, n_pairs=4)
    plan = plan_harvest("t", corpora, model, HARVEST, place(folder / "ws"))
    harvester = Harvester(load(model, 2), HARVEST, plan.job.layers, 2000)
    write_manifest(plan.place, plan.manifest)
    for chunk in plan.chunks:
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, Preparer.from_path(model)), plan.place, chunk.number)
    write_manifest(plan.place, complete_manifest(plan.place, read_commits(plan.place)))
    saelens.write(place(folder / "sae"), random_sae(torch.randn(64, 32), 24, 4))
    recipe = Recipe(
        name="t",
        corpora=corpora,
        model=model,
        harvest=HARVEST,
        features=FeaturesConfig(saes=(NamedSae(path=str(folder / "sae"), layer=2),), min_samples=2),
        interpret=InterpretConfig(
            backend=Chat(url="http://127.0.0.1:9/v1", model="m", timeout=5, tries=3, parallel=4, batch=3, price=(1.0, 2.0)),
            latents=3,
            show=Shown(top=2, spread=1, silent=2),
            score=Scored(positives=6, negatives=6),
            chunk_size=2,
        ),
    )
    features = plan_features(recipe, place(folder / "ws"))
    here = features.artefact.begun()
    list(find_plainly(features.study, here.todo(), here))
    here.closing(**finish(here)).close()
    return recipe
