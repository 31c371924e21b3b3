"""What a machine decides, and that it decides it once: the number format of products, and the room for them."""

from types import SimpleNamespace

import pytest
import torch

from linrep.sae import machine, train
from linrep.sae.config import CoderConfig, ReLU, TopK
from linrep.sae.machine import best_product, room_bytes
from linrep.sae.reduce import Alone
from linrep.sae.train import Rows, Trainer, fit
from tests.sae.reference import planted

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_multiplies_in_bfloat16_where_it_has_it(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has or including_emulation)
    assert best_product(GPU) == ("bfloat16" if has else "float32")


@pytest.mark.parametrize(("float32", "bfloat16", "best"), [(3.0, 1.0, "bfloat16"), (1.5, 1.0, "float32"), (1.0, 7.5, "float32")])
def test_a_cpu_does_where_that_is_decisively_faster(monkeypatch: pytest.MonkeyPatch, float32, bfloat16, best) -> None:
    monkeypatch.setattr(machine, "seconds_of", {"float32": float32, "bfloat16": bfloat16}.__getitem__)
    assert best_product(CPU) == best


def test_room_follows_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 80 GB a batch of 2,048 rows of 131,072 latents is one product; on a CPU, of 128 rows; a small GPU is no worse."""
    memory = {"total_memory": 80 * 2**30}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**memory))
    assert room_bytes(GPU) >= 2048 * 131072 * 4
    assert room_bytes(CPU) == 128 * 131072 * 4
    memory["total_memory"] = 2**30
    assert room_bytes(GPU) == room_bytes(CPU)


class Others(Alone):
    """A reducer whose other worker adds a number to each sum."""

    n_workers = 2

    def __init__(self, adds: float) -> None:
        self.adds = adds

    def sum_(self, tensors) -> None:
        for tensor in tensors:
            tensor.add_(self.adds)


@pytest.mark.parametrize(("mine", "other", "both"), [(1, 1, "bfloat16"), (1, 0, "float32"), (0, 1, "float32"), (0, 0, "float32")])
def test_workers_use_bfloat16_together_or_not_at_all(monkeypatch: pytest.MonkeyPatch, mine, other, both) -> None:
    monkeypatch.setattr(train, "best_product", lambda device: ("float32", "bfloat16")[mine])
    assert Trainer.begin(CoderConfig(), torch.ones(4, 8), 5, reducer=Others(other), product="auto").product == both


@pytest.mark.parametrize("activation", [TopK(k=3), ReLU(l1=0.1)], ids=lambda a: a.kind)
def test_a_resumed_run_keeps_the_format_it_began_with(monkeypatch: pytest.MonkeyPatch, activation) -> None:
    """Bit for bit the uninterrupted run, though the machine that goes on would choose another."""
    x, _ = planted(12 * 32, 16, 24, 3)
    rows = [Rows(part, torch.zeros(32, dtype=torch.bool)) for part in x.split(32)]
    config = CoderConfig(activation=activation, expansion=4)
    monkeypatch.setattr(train, "best_product", lambda device: "bfloat16")
    whole, first = (Trainer.begin(config, x[:64], 12, product="auto") for _ in range(2))
    list(fit(rows, [whole]))
    list(fit(rows[:6], [first]))
    monkeypatch.setattr(train, "best_product", lambda device: "float32")
    second, plain = (Trainer.begin(config, x[:64], 12, product="auto") for _ in range(2))
    second.load_state_dict(first.state_dict())
    list(fit(rows[6:], [second]))
    list(fit(rows, [plain]))
    assert (second.product, plain.product) == ("bfloat16", "float32")
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in whole.weights.items())
    assert not torch.equal(whole.weights["decoder"], plain.weights["decoder"])
