"""What runs on a GPU, run on a pretended one: the CPU's numbers, no mixed devices, nothing read before it is there."""

import collections
import copy
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import embedding_bag

from linrep.corpora import Corpora
from linrep.corpora.index import build_index
from linrep.corpora.read import read
from linrep.harvest.config import HarvestConfig
from linrep.harvest.harvester import Harvester
from linrep.sae import kernels, ops
from linrep.sae.architectures import Largest
from linrep.sae.config import BatchTopK, Gated, JumpReLU, TopK
from linrep.sae.layer import train_layer
from linrep.sae.sae import Sae
from linrep.sae.splice import splice_each
from linrep.steer.steerer import Steerer
from linrep.steer.vectors import Vectors
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from tests.pretended_gpu import GPU, Gpu, pretended_gpu
from tests.sae.reference import random_weights
from tests.sae.test_layer import CONFIG, job_of, planted_store
from tests.steer.conftest import sample
from tests.steer.test_steerer import CONFIG as STEERING
from tests.steer.test_steerer import directions


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """A GPU for which Triton's two kernels are the plain products that tests/sae/test_kernels.py compares them with."""
    monkeypatch.setattr(kernels, "AVAILABLE", True)
    monkeypatch.setattr(kernels, "gather_sum", plain_gather_sum)
    monkeypatch.setattr(kernels, "sampled_dots", plain_sampled_dots)
    with pretended_gpu() as found:
        yield found


def plain_gather_sum(table: Tensor, indices: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    return embedding_bag(indices, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def plain_sampled_dots(a: Tensor, b: Tensor, columns: Tensor, offsets: Tensor) -> Tensor:
    return ops.gathered_dots(a, b, columns, ops.bag_of_each(offsets, len(columns)))


@pytest.fixture(scope="module")
def prepared(random_vlm: ModelConfig, corpora: Corpora) -> list[Prepared]:
    preparer = Preparer.from_path(random_vlm)
    samples = [preparer(s) for chunk in build_index(corpora).chunks(1000) for s in read(chunk, corpora)]
    return [s for s in samples if isinstance(s, Prepared)]


def own_waits(gpu: Gpu) -> list[str]:
    """Those of this package; transformers looks at numbers of its own in each pass."""
    return [wait for wait in gpu.waits if "/linrep/" in wait]


def moved(vlm: VLM, device: str | torch.device = GPU) -> VLM:
    """The same model there."""
    return replace(vlm, model=vlm.model.to(device), devices=(torch.device(device),))


def test_a_harvest_stores_the_same_rows_and_waits_for_its_copies_alone(random_vlm, prepared, gpu):
    config = HarvestConfig(layers=(0, 2, 3), tokens_per_sample=None, dtype="float32", chunk_size=1000, sites=("attention", "mlp"))

    def rows(vlm: VLM) -> list[tuple[dict[tuple, pa.Table], dict]]:
        return [(rows.tables, rows.sums) for rows in Harvester(vlm, config, (0, 2, 3), 500)(prepared)]

    expected = rows(load(random_vlm, 4))
    there = moved(load(random_vlm, 4))
    rows(there)  # brings there what stays there
    gpu.waits.clear()
    found = rows(there)
    assert len(found) == len(expected) > 3
    for (tables, sums), (own_tables, own_sums) in zip(expected, found, strict=True):
        assert own_tables == tables
        assert own_sums.keys() == sums.keys()
    assert own_waits(gpu) == []


def test_an_sae_costs_the_model_the_same_where_it_is_spliced_in(random_vlm, prepared, gpu):
    w = random_weights(64, 32, dtype=torch.float32)
    sae = Sae(w["encoder"], w["b_enc"], w["decoder"], w["b_dec"], Largest(5), True)
    pairs = [one for one in prepared if one.sample.modality == "pair"][:4]
    assert len(pairs) > 2

    def cost(vlm: VLM, device: str | torch.device) -> list[float]:
        there = sae.to(device)
        means = dict.fromkeys(("image", "text"), torch.zeros(sae.d_model, device=device))
        replaced = {"": dict.fromkeys(("image", "text"), lambda h: there.decode(there.encode(h)))}
        losses = splice_each(vlm, pairs, 2, replaced, ("image", "text", "both"), means)
        return [float(x) for one in losses.values() for x in one.sums.cpu().flatten()]

    expected = cost(load(random_vlm, None), "cpu")
    assert cost(moved(load(random_vlm, None)), GPU) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("activation", [TopK(k=4), BatchTopK(k=4), JumpReLU(), Gated()], ids=lambda a: a.kind)
def test_an_sae_trains_to_the_same_weights(activation, tmp_path, gpu):
    store = planted_store(tmp_path / "store")
    aux = None if activation.kind == "jumprelu" else CONFIG.design.aux
    design = CONFIG.design.model_copy(update={"activation": activation, "aux": aux})
    config = CONFIG.model_copy(update={"design": design, "rows": 12 * 64})
    list(train_layer(job_of(store, tmp_path / "cpu", config)))
    gpu.waits.clear()
    list(train_layer(job_of(store, tmp_path / "gpu", config), device=GPU))
    # What is reported is waited for; of a step, that it must be known how many latents are dead.
    steps = [wait for wait in own_waits(gpu) if "window.py" not in wait and "nonzero" not in wait and "train.py" not in wait]
    assert len(steps) < 12, collections.Counter(steps)
    for file in sorted((tmp_path / "cpu").rglob("*.safetensors")):
        expected, found = load_file(file), load_file(tmp_path / "gpu" / file.relative_to(tmp_path / "cpu"))
        for name, value in expected.items():
            assert torch.allclose(found[name], value, atol=1e-6), name


def test_answers_are_steered_alike(random_vlm, gpu):
    steer_vlm = load(random_vlm, None)
    vectors = Vectors(directions(), STEERING.dose)
    asked = [sample(0), sample(1), sample(6)]
    expected = Steerer(steer_vlm, STEERING, (2,), vectors, 1500).answers(asked, "boat", "tall tree")
    there = moved(copy.deepcopy(steer_vlm))
    gpu.waits.clear()
    found = Steerer(there, STEERING, (2,), vectors, 1500).answers(asked, "boat", "tall tree")
    assert not found.failed
    assert found.n_done == expected.n_done
    for name, rows in expected.tables.items():
        for one, other in zip(rows, found.tables[name], strict=True):
            assert one.keys() == other.keys()
            for column, value in one.items():
                assert other[column] == (pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value)
