"""What the recipe alone decides, the number format of products; and what the machine does, the room for them."""

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from linrep.sae.config import ReLU, SaeDesign, TopK
from linrep.sae.machine import room_bytes
from linrep.sae.study import SaeConfig
from linrep.sae.train import Rows, Trainer, fit
from tests.sae.reference import planted

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_room_follows_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 80 GB a batch of 2,048 rows of 131,072 latents is one product; on a CPU, of 128 rows; a small GPU is no worse."""
    memory = {"total_memory": 80 * 2**30}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**memory))
    assert room_bytes(GPU) >= 2048 * 131072 * 4
    assert room_bytes(CPU) == 128 * 131072 * 4
    memory["total_memory"] = 2**30
    assert room_bytes(GPU) == room_bytes(CPU)


def test_no_product_is_chosen_by_the_machine() -> None:
    """Two sets of bytes under one digest: that is what a format was that a small measured product decided."""
    assert SaeConfig().product == "float32"
    assert SaeConfig().decisive()["product"] == "float32"
    assert SaeConfig(product="bfloat16").decisive() != SaeConfig().decisive()
    with pytest.raises(ValidationError, match="product"):
        SaeConfig.model_validate({"product": "auto"})


@pytest.mark.parametrize("activation", [TopK(k=3), ReLU(l1=0.1)], ids=lambda a: a.kind)
def test_a_resumed_run_keeps_the_format_it_began_with(activation) -> None:
    """Bit for bit the uninterrupted run, whatever the trainer that goes on was made with."""
    x, _ = planted(12 * 32, 16, 24, 3)
    rows = [Rows(part, torch.zeros(32, dtype=torch.bool)) for part in x.split(32)]
    config = SaeDesign(activation=activation, expansion=4)
    whole, first = (Trainer.begin(config, x[:64], 12, product="bfloat16") for _ in range(2))
    list(fit(rows, [whole]))
    list(fit(rows[:6], [first]))
    second, plain = (Trainer.begin(config, x[:64], 12) for _ in range(2))
    second.load_state_dict(first.state_dict())
    list(fit(rows[6:], [second]))
    list(fit(rows, [plain]))
    assert (second.product, plain.product) == ("bfloat16", "float32")
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in whole.weights.items())
    assert not torch.equal(whole.weights["decoder"], plain.weights["decoder"])
