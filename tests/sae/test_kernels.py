"""The CUDA kernels give what the CPU gives: on a GPU where there is one, else under Triton's interpreter where Triton is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from linrep.sae import kernels
from linrep.sae.architecture import Step
from linrep.sae.architectures import architecture_of
from linrep.sae.config import TopK
from linrep.sae.select import scratch
from linrep.workers import Alone
from tests.sae.reference import planted, random_weights

CHECK = """
import torch
from linrep.sae import kernels, ops
offsets = ops.offsets_of(torch.tensor([2, 0, 3, 1, 0, 4]))
for d in (5, 1500):
    table, indices, weights, a = torch.randn(9, d), torch.randint(9, (10,)), torch.randn(10), torch.randn(6, d)
    for mine, theirs in (
        (kernels.gather_sum(table, indices, weights, offsets), ops.gather_sum(table, indices, weights, offsets)),
        (kernels.sampled_dots(a, table, indices, offsets), ops.sampled_dots(a, table, indices, offsets)),
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
print("equal")
"""


def test_kernels_under_the_interpreter_equal_the_cpu() -> None:
    if not kernels.AVAILABLE:
        pytest.skip("Triton is not installed (it comes with CUDA builds of PyTorch)")
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "platform")}
    done = subprocess.run([sys.executable, "-c", CHECK], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_pass_on_a_gpu_equals_the_cpu() -> None:
    x, weights = planted(64, 48, 96, 4)[0], random_weights(300, 48, dtype=torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        w = {name: tensor.to(device) for name, tensor in weights.items()}
        done = architecture_of(TopK(k=6)).pass_over(w, x.to(device), Step(scratch(64, 300, 1 << 16, w["b_enc"]), Alone()))
        results.append([done.residual.cpu(), *(grad.cpu() for grad in done.gradients.whole().values())])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
