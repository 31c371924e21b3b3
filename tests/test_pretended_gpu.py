"""The pretended GPU is as strict as a real one."""

import pytest
import torch

from tests.pretended_gpu import GPU, pretended_gpu


def test_numbers_go_there_and_come_back():
    x = torch.arange(6.0).reshape(2, 3)
    with pretended_gpu():
        there = x.to(GPU)
        assert there.device == GPU
        assert there.is_cuda
        back = (there @ there.T + 1).relu_().cpu()
    assert back.device.type == "cpu"
    assert torch.equal(back, (x @ x.T + 1).relu())


def test_two_devices_in_one_operation_are_an_error():
    with pretended_gpu():
        x, y = torch.ones(3, device=GPU), torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            x + y
        with pytest.raises(RuntimeError, match="same device"):
            torch.quantile(x, torch.tensor([0.25]))
        assert (x + torch.tensor(1.0)).cpu().tolist() == [2, 2, 2]  # a number may
        assert x[[0, 1]].cpu().tolist() == [1, 1]  # an index may


def test_what_is_changed_in_place_is_changed_for_every_view():
    with pretended_gpu():
        x = torch.zeros(2, 2, device=GPU)
        row = x[1]
        assert row.add_(3) is row
        assert x.cpu().tolist() == [[0, 0], [3, 3]]


def test_a_copy_that_nobody_waited_for_is_not_there():
    with pretended_gpu() as gpu:
        host = torch.empty(2, pin_memory=True)
        assert host.is_pinned()
        host.copy_(torch.ones(2, device=GPU), non_blocking=True)
        assert host.isnan().all()
        assert gpu.waits == []
        torch.cuda.current_stream().record_event().synchronize()
        assert host.tolist() == [1, 1]


def test_waits_are_counted():
    with pretended_gpu() as gpu:
        x = torch.ones(2, device=GPU)
        x.sum().item()
        x.cpu()
        assert len(gpu.waits) == 2


def test_memory_of_a_gpu_is_no_array():
    with pretended_gpu():
        x = torch.ones(2, device=GPU)
        with pytest.raises((RuntimeError, TypeError)):
            x.numpy()
