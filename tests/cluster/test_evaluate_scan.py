"""The evaluation of a layer reads its rows once, however many SAEs it has."""

from collections.abc import Iterator

import numpy as np
import torch

from linrep.cluster import evaluate_sae
from linrep.cluster.evaluate_sae import Attribute, EvaluationJob, Truth
from linrep.sae.controls import random_sae
from linrep.sae.report import LayerSae, Report

D, N = 8, 40


def test_known_attributes_are_looked_up_in_one_pass_over_the_layer(monkeypatch):
    x = torch.randn(4 * N, D, generator=torch.Generator().manual_seed(0))
    owner = torch.arange(N).repeat_interleave(4)
    passes: list[int] = []

    def rows(job: object, layer: int, truth: object, device: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        passes.append(layer)
        for start in range(0, len(x), 32):
            yield x[start : start + 32], owner[start : start + 32]

    monkeypatch.setattr(evaluate_sae, "_rows_of_truth", rows)
    ids = tuple(f"s{i}" for i in range(N))
    colour = Attribute("colour", ("red", "blue"), np.arange(N) // 2 % 2)
    truth = Truth(ids, tuple(range(0, N, 2)), tuple(range(1, N, 2)), (colour,))
    both = [LayerSae.of(3, f"sae-{i}", {"": random_sae(x, 16, 3, i)}) for i in range(6)]
    pairs = list(zip(both[::2], both[1::2], strict=True))
    job = object.__new__(EvaluationJob)
    together = Report()
    evaluate_sae._known(together, job, pairs, truth, "cpu")
    assert passes == [3]
    alone = Report()
    for pair in pairs:
        evaluate_sae._known(alone, job, [pair], truth, "cpu")
    assert passes == [3] * 4
    assert together.truth == alone.truth
    assert {row["sae"] for row in together.truth} == {"sae-0", "sae-2", "sae-4"}
    evaluate_sae._known(together, job, [], truth, "cpu")
    assert passes == [3] * 4
