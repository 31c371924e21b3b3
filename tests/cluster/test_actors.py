"""What workers that hold a model share: no other device, model or number format than the planned ones, in silence."""

from types import SimpleNamespace

import pytest
import torch

from linrep.cluster import actors
from linrep.cluster.actors import check_format, check_same, gpus_of, own_device, precision
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
    assert (gpus_of(Pool(), {"GPU": 2.0}), gpus_of(Pool(), {}), gpus_of(Pool(gpus=0.5), {})) == (1.0, 0.0, 0.5)
