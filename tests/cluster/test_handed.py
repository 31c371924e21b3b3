"""SAEs travel to tasks once: as a reference in what every task gets, as shared memory where they are read."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import torch

from linrep.cluster.fan_out import fetch, task
from linrep.cluster.handed import handed
from linrep.encoder import Latents, active
from linrep.features.study import plan_study as plan_features
from linrep.sae.controls import random_sae
from tests.features.planted import CONFIG, draw, write_store


def private_bytes() -> int:
    """Memory of this process that no other one shares."""
    return psutil.Process().memory_full_info().uss


def growth(study: Any) -> tuple[int, float]:
    """What a task's private memory grows by when it uses its SAE, and a number that the SAE gives."""
    before = private_bytes()
    (own, _), *_ = study.latents
    found = active(own.sae, torch.ones(2, own.sae.d_model))
    return private_bytes() - before, float(found.value.sum())


@pytest.mark.quick
@pytest.mark.usefixtures("local_ray")
def test_a_study_with_large_saes_travels_without_them(tmp_path):
    """Two SAEs of 12,000 latents at width 512 and their controls: 98 MB in all."""
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    saes = [random_sae(x, 12_000, 4, seed) for seed in range(4)]
    own = [Latents(f"sae-{i}", sae, sae.decoder) for i, sae in enumerate(saes)]
    own[1] = replace(own[1], of_texts=saes[2])  # a control is another one for texts
    store = write_store(tmp_path / "store", draw(8, 8, 1), draw(8, 8, 2), np.arange(8) % 4, chunk=9)
    study = replace(plan_features(store, CONFIG), latents=((own[0], own[1]), (own[2], own[3])))
    assert len(pickle.dumps(study)) > 90e6
    lean = replace(study, latents=handed(study.latents))
    assert len(ray.cloudpickle.dumps(lean)) < 5e6
    assert [one.name for pair in lean.latents for one in pair] == [one.name for one in own]
    measured = task(growth, num_cpus=0.1)
    fetch(measured.remote(lean))  # torch's own first use of memory
    grown, value = fetch(measured.remote(lean))
    assert grown < 50e6
    assert value == float(active(saes[0], torch.ones(2, 512)).value.sum())
    (_, control), (_, plain) = lean.latents
    assert torch.equal(control.of("text").b_dec, saes[2].b_dec)
    assert torch.equal(control.of("image").b_dec, saes[1].b_dec)
    assert plain.of_texts is None
