"""A store whose first image is known, made without Ray."""

from pathlib import Path

from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig
from linrep.harvest.finish import complete_manifest
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.places import Place, place
from linrep.sample import Sample
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
SAMPLE = Sample(
    id="images/n02/p000.JPEG", corpus="images", modality="image", uri="n02/p000.JPEG", split="train", image=encoded_image(0)
)


def write_store(folder: Path, model: ModelConfig, harvest: HarvestConfig = HARVEST) -> Place:
    """A complete harvest of two classes of images, some texts and pairs."""
    corpora = write_corpora(folder / "corpora", n_images=10, n_texts=4, n_pairs=2)
    plan = plan_harvest("t", corpora, model, harvest, place(folder / "ws"))
    harvester = Harvester(load(model, 2), harvest, plan.job.layers, 2000)
    write_manifest(plan.place, plan.manifest)
    preparer = Preparer.from_path(model, **harvest.prompts)
    for chunk in plan.chunks:
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, preparer), plan.place, chunk.number)
    write_manifest(plan.place, complete_manifest(plan.place, read_commits(plan.place)))
    return plan.place
