"""What workers that hold a model share: no other device, model or number format than the planned ones, in silence."""

from types import SimpleNamespace

import pytest
import torch
from ray.core.generated.autoscaler_pb2 import ClusterConfig

from linrep.cluster import actors
from linrep.cluster.actors import (
    actor_counts,
    check_format,
    check_same,
    gpus_of,
    launched,
    one_gpu,
    own_device,
    precision,
    resources,
)
from linrep.errors import ModelError, RecipeError
from linrep.harvest.config import Pool


def with_gpus(monkeypatch: pytest.MonkeyPatch, reserved: list[str], seen: bool) -> None:
    """A worker with these GPUs, whose torch sees them or not."""
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": reserved})
    monkeypatch.setattr(actors.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(actors.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)


def test_a_worker_takes_the_gpu_that_it_was_given_and_no_other(monkeypatch):
    with_gpus(monkeypatch, ["0"], True)
    assert own_device().type == "cuda"
    with_gpus(monkeypatch, [], True)
    assert own_device().type == "cpu"
    with_gpus(monkeypatch, ["0"], False)
    with pytest.raises(ModelError, match="a GPU is reserved for this worker, but torch sees none"):
        own_device()


def test_what_differs_from_the_plan_is_refused():
    check_same("model", "abc", "abc")
    with pytest.raises(ModelError, match="model differs between nodes: abc here, def in the plan"):
        check_same("model", "abc", "def")
    check_format("float32", None)
    check_format("float32", "float32")
    with pytest.raises(
        RecipeError, match=r"begun in bfloat16, this worker would run in float32: set pool\.precision to bfloat16"
    ):
        check_format("float32", "bfloat16")


def test_the_number_format_follows_the_pool_or_the_device(monkeypatch):
    assert precision(Pool(precision="float16"), torch.device("cpu")) == torch.float16
    assert precision(Pool(), torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert precision(Pool(), torch.device("cuda")) == torch.bfloat16


def test_a_machine_of_ones_own_works_on_its_cpus_where_it_has_no_gpu(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert (gpus_of(Pool(), {"GPU": 2.0}), gpus_of(Pool(), {}), gpus_of(Pool(gpus=0.5), {"GPU": 1.0})) == (1.0, 0.0, 0.5)
    assert (one_gpu(Pool(gpus=2), {"GPU": 2.0}), one_gpu(Pool(gpus=0), {"GPU": 2.0})) == (1.0, 0.0)
    with pytest.raises(RecipeError, match=r"pool.gpus is 2 and this machine has 1 GPUs: lower pool.gpus"):
        gpus_of(Pool(gpus=2), {"GPU": 1.0})


def test_a_cluster_without_a_gpu_does_not_become_one_cpu_in_silence(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        RecipeError, match=r"this cluster has no GPU now: set pool.gpus to 0 .*, or pool.gpus to 1 and pool.actors"
    ):
        gpus_of(Pool(), {"CPU": 4.0})
    assert gpus_of(Pool(gpus=0), {"CPU": 4.0}) == 0.0
    assert gpus_of(Pool(), {"GPU": 4.0}) == 1.0
    assert capsys.readouterr().err == ""
    assert gpus_of(Pool(gpus=1), {"CPU": 4.0}) == 1.0
    assert capsys.readouterr().err == "the cluster has 0 GPUs now: waiting for nodes with 1 for each worker\n"


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_actors_follow_what_the_autoscaler_says_that_the_cluster_can_come_to_have(monkeypatch):
    assert "GPU" not in resources()
    config = ClusterConfig()
    config.node_group_configs.add(resources={"GPU": 2, "CPU": 8}, max_count=3)
    monkeypatch.setattr(actors.state, "get_cluster_config", lambda: config)
    there = resources()
    assert (there["GPU"], there["CPU"]) == (6.0, 24.0)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert actor_counts(Pool(), gpus_of(Pool(), there), there["GPU"]) == (6, 6)
    config.node_group_configs[0].max_count = -1
    with pytest.raises(RecipeError, match=r"no end of GPUs: set pool.actors"):
        actor_counts(Pool(), 1.0, resources()["GPU"])


def test_a_cluster_of_ray_up_says_on_its_head_how_far_it_may_grow(monkeypatch, tmp_path):
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(
        "max_workers: 8\nhead_node_type: head\navailable_node_types:\n"
        "  head: {resources: {CPU: 0, GPU: 9}, max_workers: 0}\n"
        "  reader: {resources: {CPU: 16}, max_workers: 20}\n"
        "  gpu: {resources: {CPU: 4, GPU: 2}, max_workers: 3}\n"
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert launched(file) == {}  # whatever an earlier cluster has left
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert launched(file) == {"CPU": 8 * 16 + 3 * 4, "GPU": 6}
    assert launched(tmp_path / "none") == {}
