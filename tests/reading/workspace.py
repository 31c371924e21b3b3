"""A store whose first image is known, and a workspace with probes, an SAE and its features; made without Ray."""

import time
from pathlib import Path

import torch

from linrep.cluster.features import find_plainly
from linrep.cluster.run_features import plan_features
from linrep.cluster.run_probe import plan_probe
from linrep.corpora import Corpora
from linrep.features.artefact import finish as finish_features
from linrep.features.config import FeaturesConfig
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig
from linrep.harvest.finish import complete_manifest
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.named_sae import NamedSae
from linrep.places import Place, place
from linrep.probe.artefact import finish as finish_probes
from linrep.probe.artefact import write_unit
from linrep.probe.config import ProbeConfig
from linrep.probe.unit import gather_part, parts_of, probe_unit
from linrep.recipe import Recipe
from linrep.sae.controls import random_sae
from linrep.sae.formats import saelens
from linrep.sample import Sample
from linrep.steer.config import Asking, Dose, Question, SteerConfig
from linrep.store.commit import read_commits
from linrep.store.manifest import write_manifest
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from tests.conftest import encoded_image, write_corpora

HARVEST = HarvestConfig(
    layers=(0, 2),
    views=("pooled", "tokens", "last"),
    tokens_per_sample=None,
    dtype="float32",
    image_prompt="a <image> what is it ?",
    high_norm=None,
    chunk_size=8,
)
ASK = Asking(questions=(Question(prompt="a <image> what is it ?"),), choice="<image> a {first} or a {second} ?", max_new_tokens=3)
SAMPLE = Sample(
    id="images/n02/p000.JPEG", corpus="images", modality="image", uri="n02/p000.JPEG", split="train", image=encoded_image(0)
)


def write_store(folder: Path, model: ModelConfig, harvest: HarvestConfig = HARVEST) -> Place:
    """A complete harvest of two classes of images, some texts and pairs."""
    corpora = write_corpora(folder / "corpora", n_images=10, n_texts=4, n_pairs=2)
    return harvested(folder / "ws", model, harvest, corpora)


def harvested(workspace: Path, model: ModelConfig, harvest: HarvestConfig, corpora: Corpora) -> Place:
    """A complete harvest of some corpora."""
    plan = plan_harvest("t", corpora, model, harvest, place(workspace))
    harvester = Harvester(load(model, 2), harvest, plan.job.layers, 2000)
    write_manifest(plan.place, plan.manifest)
    preparer = Preparer.from_path(model, **harvest.prompts)
    for chunk in plan.chunks:
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, preparer), plan.place, chunk.number)
    write_manifest(plan.place, complete_manifest(plan.place, read_commits(plan.place)))
    return plan.place


def write_recipe(folder: Path, model: ModelConfig) -> Recipe:
    """The recipe of a workspace in `folder`/ws whose probes, SAE and features are there; nothing is interpreted."""
    corpora = write_corpora(folder / "corpora", n_images=40, n_texts=4, n_pairs=2)
    corpora = corpora.model_copy(update={"splits": corpora.splits.model_copy(update={"val": 0.2, "test": 0.2})})
    workspace, harvest = place(folder / "ws"), HARVEST.model_copy(update={"chunk_size": 64})
    store = harvested(folder / "ws", model, harvest, corpora)
    saelens.write(place(folder / "sae"), random_sae(torch.randn(64, 32, generator=torch.Generator().manual_seed(1)), 24, 4))
    recipe = Recipe(
        name="t",
        corpora=corpora,
        model=model,
        harvest=harvest,
        probe=ProbeConfig(softmax=None, curve=(), sparse=(1,), resamples=20, views=("pooled", "last")),
        steer=SteerConfig(dose=Dose(strengths=(1.0, 3.0), relative=False), ask=ASK),
        features=FeaturesConfig(saes=(NamedSae(path=str(folder / "sae"), layer=2),), min_samples=2),
    )
    probes = plan_probe(recipe, workspace)
    here = probes.artefact.begun()
    for unit in probes.study.units:
        gathered = [gather_part(probes.study, unit, part) for part in parts_of(probes.study, unit)]
        write_unit(here, unit, probe_unit(probes.study, unit, gathered), 0, time.monotonic())
    finish_probes(here, probes.study)
    here.closing().close()
    features = plan_features(recipe, workspace)
    looked = features.artefact.begun()
    list(find_plainly(features.study, looked.todo(), looked))
    looked.closing(**finish_features(looked)).close()
    assert store.name.startswith("t-")
    return recipe
