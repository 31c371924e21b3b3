"""The choice on validation rows: its score, and whether it lies at an end of what was tried."""

import numpy as np
import pytest
import torch

from linrep.probe.config import ProbeConfig, Softmax
from linrep.probe.fit import Trial, chosen
from linrep.probe.linear import Linear
from linrep.probe.score import Tally


def trial(setting: float | None, right: int) -> Trial:
    """A probe that gets a given number of ten validation rows right."""
    y = np.zeros(10, np.int64)
    tally = Tally(2, 10)
    said = np.arange(10) >= right
    tally.add(torch.from_numpy(said[:, None] == np.arange(2)).float(), y, np.arange(10))
    return Trial(Linear("ridge", torch.zeros(3), torch.zeros(3, 2), torch.zeros(2), setting), {"image": y}, tally)


@pytest.mark.parametrize(
    ("right", "setting", "edge"),
    [((5, 8, 6), 1.0, None), ((5, 6, 8), 10.0, "highest"), ((8, 6, 5), 0.1, "lowest"), ((8, 8, 8), 10.0, "highest")],
)
def test_a_choice_knows_its_score_and_whether_it_is_an_end_of_the_grid(right, setting, edge):
    found = chosen([trial(s, n) for s, n in zip((0.1, 1.0, 10.0), right, strict=True)])
    assert (found.probe.setting, found.top1, found.edge) == (setting, max(right) / 10, edge)


def test_one_setting_has_no_edge():
    assert chosen([trial(None, 4)]).edge is None
    assert chosen([trial(1.0, 4)]).top1 == 0.4


def test_the_grids_reach_penalties_at_which_weights_follow_the_class_means():
    config = ProbeConfig()
    assert (min(config.alphas), max(config.alphas)) == (1e-6, 1e3)
    assert Softmax().penalties[0] == 10
