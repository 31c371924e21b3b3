"""What a harvest is said to take, against the harvest itself; its cost by hand, and against operations that torch counts."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from linrep.cluster import run_plan
from linrep.cluster.run_plan import check_room, estimated
from linrep.contents.sources import located
from linrep.errors import CorpusError, RecipeError
from linrep.harvest.chunk import harvest_chunk, prepare_chunk
from linrep.harvest.config import HarvestConfig, Pool
from linrep.harvest.cost import GPUS, Gpu, GpuTable, bills, read_gpus
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from linrep.vlm.batch import collate
from linrep.vlm.hooks import forward
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from linrep.vlm.random import write_random_vlm
from linrep.vlm.size import ModelSize, size_of
from tests.conftest import write_corpora

CONFIGS = {
    "three views": HarvestConfig(chunk_size=8),
    "sites, some layers": HarvestConfig(
        chunk_size=30, layers=(0, 2, 4), sites=("mlp",), views=("tokens", "last"), dtype="float32"
    ),
    "all tokens": HarvestConfig(chunk_size=16, tokens_per_sample=None, views=("tokens",), dtype="bfloat16"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_bytes_and_files_are_those_of_the_harvest(name, random_vlm, tmp_path):
    corpora = write_corpora(tmp_path / "corpora", n_images=40, n_texts=40, n_pairs=20)
    plan = plan_harvest("t", corpora, random_vlm, CONFIGS[name], place(tmp_path / "ws"))
    found = estimated(plan)
    config = plan.job.config
    preparer = Preparer.from_path(random_vlm, **config.preparation)
    harvester = Harvester(load(random_vlm, max(plan.job.layers)), config, plan.job.layers, 4096)
    commits = [
        harvest_chunk(harvester, prepare_chunk(chunk, plan.job.corpora, preparer), plan.place, chunk.number)
        for chunk in plan.chunks
    ]
    files = [file for file in Path(plan.place.path).rglob("*") if file.is_file()]
    assert found.n_objects == len(files)
    n_tokens = sum(commit.n_tokens for commit in commits)
    assert found.n_tokens.low <= n_tokens <= found.n_tokens.high
    assert found.n_tokens.value == pytest.approx(n_tokens)  # all samples were looked at
    assert found.n_bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.1)
    for view in config.views:
        stored = sum(file.bytes for commit in commits for file in commit.files if file.path.startswith(f"{view}/"))
        assert sum(part.bytes_of(view) for part in found.parts) * found.n_stored == pytest.approx(stored, rel=0.1)
    assert run_plan._bound(plan) > sum(file.stat().st_size for file in files)


def test_samples_that_cannot_be_used_count_for_nothing(random_vlm, tmp_path):
    corpora = write_corpora(tmp_path / "corpora", n_images=40, n_texts=2, n_pairs=1)
    for file in sorted((tmp_path / "corpora/images").rglob("*.JPEG"))[::4]:
        file.write_bytes(b"no image")
    (images, *_) = estimated(plan_harvest("t", corpora, random_vlm, HarvestConfig(), place(tmp_path / "ws"))).parts
    assert (images.n_looked, images.n_skipped, images.n_used) == (40, 10, 30)
    for file in (tmp_path / "corpora/images").rglob("*.JPEG"):
        file.write_bytes(b"no image")
    with pytest.raises(CorpusError, match="of 40 samples of images none can be used"):
        estimated(plan_harvest("t", corpora, random_vlm, HarvestConfig(), place(tmp_path / "other")))


def test_operations_are_those_that_torch_counts(tmp_path):
    """Wide enough that what is left out (attention in the tower, norms) is little beside what is counted."""
    from linrep.vlm.config import ModelConfig

    model = ModelConfig(path=str(write_random_vlm(tmp_path / "m", width=128, n_layers=5, vision_width=64, text="llama")))
    corpora = write_corpora(tmp_path / "corpora", n_images=4, n_texts=4, n_pairs=1)
    plan = plan_harvest("t", corpora, model, HarvestConfig(), place(tmp_path / "ws"))
    preparer = Preparer.from_path(model)
    used = [one for chunk in plan.chunks for one in prepare_chunk(chunk, plan.job.corpora, preparer)]
    vlm, size = load(model, 3), size_of(model, 3)
    assert size.n_blocks == 3
    assert size.blocks + size.vision + size.embeddings == sum(p.numel() for p in vlm.model.parameters())
    for one in used:
        batch = collate([one], vlm)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            forward(vlm, batch)
        patches = 0 if one.pixels is None else one.pixels[:, 0].size // vlm.card.patch_size**2
        assert size.flops(len(one), len(one) ** 2, patches) == pytest.approx(counter.get_total_flops(), rel=0.12)


def test_a_bill_by_hand():
    size = ModelSize(blocks=1_000_000, vision=500_000, embeddings=100_000, n_blocks=2, width=64)
    assert size.n_bytes() == 3_200_000
    # 2 x 1e6 x 1,000 and 2 x 2 x 64 x 50,000 and 2 x 5e5 x 300
    assert size.flops(1000, 50_000, 300) == 2e9 + 12.8e6 + 3e8
    table = GpuTable(utilisation=0.5, gpus={"small": Gpu(tflops=1, memory_gb=0.001, usd_per_hour=3)})
    (one,) = bills(3.6e15, size.n_bytes(), table)
    assert (one.cards, one.hours, one.usd) == (4, 2.0, 6.0)  # 3.68 MB on cards of 1 MB


def test_a_table_of_gpus_is_read_or_refused_by_its_field(tmp_path):
    assert set(read_gpus().gpus) >= {"L4", "H100"}
    file = tmp_path / "gpus.yaml"
    for text, match in (
        ("gpus: {}", "utilisation"),
        ("utilisation: 2\ngpus: {x: {tflops: 1, memory_gb: 1, usd_per_hour: 1}}", "utilisation"),
        ("utilisation: 0.4\ngpus: {x: {tflops: 0, memory_gb: 1, usd_per_hour: 1}}", "gpus.x.tflops"),
        ("utilisation: 0.4\ngpus: {x: {tflops: 1, memory_gb: 1, usd_per_hour: 1, colour: red}}", "gpus.x.colour"),
        ("utilisation: [", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(RecipeError, match=match):
            read_gpus(file)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_gpus(tmp_path / "none.yaml")
    assert GPUS.is_file()


def test_a_harvest_that_its_disk_cannot_hold_is_refused_unless_told_to_go_on(random_vlm, tmp_path, monkeypatch):
    corpora = write_corpora(tmp_path / "corpora", n_images=10, n_texts=10, n_pairs=2)
    plan = plan_harvest("t", corpora, random_vlm, HarvestConfig(chunk_size=4), place(tmp_path / "ws"))
    units = [str(chunk.number) for chunk in plan.chunks]
    needed, asked = estimated(plan).n_bytes, []

    def looked(plan):
        asked.append(plan)
        return SimpleNamespace(n_bytes=needed)

    monkeypatch.setattr(run_plan, "estimated", looked)
    check_room(plan, units, Pool())
    assert not asked  # there is room for whatever the samples are
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0.9 * needed))
    with pytest.raises(RecipeError, match=r"the harvest needs about .* left: .*--pool.check_room false"):
        check_room(plan, units, Pool())
    check_room(plan, units[: len(units) // 2], Pool())  # half of it is there
    check_room(plan, units, Pool(check_room=False))
    check_room(plan, [], Pool())
    assert len(asked) == 2
    assert located(plan.job.model) == random_vlm
