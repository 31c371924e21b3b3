"""Which candidate is chosen on validation rows."""

import numpy as np
import pytest
import torch

from linrep.probe.config import ProbeConfig
from linrep.probe.fit import Trial, best
from linrep.probe.linear import Linear
from linrep.probe.score import Tally


def trial(kind: str, setting: float | None, right: int) -> Trial:
    """A probe that is right about a given number of twenty samples."""
    zero = torch.zeros(1, dtype=torch.float64)
    probe = Linear(kind, zero, torch.zeros(1, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), setting)
    tally = Tally(2, 20)
    y = np.arange(20) % 2
    guess = np.where(np.arange(20) < right, y, 1 - y)
    tally.add(torch.from_numpy(guess[:, None] == np.arange(2)).float(), y, np.arange(20))
    return Trial(probe, {}, tally)


@pytest.mark.parametrize("kind", ["ridge", "lda", "softmax"])
def test_of_equally_good_settings_the_most_regularised_is_chosen(kind):
    """In the order that the recipe gives them: penalties of ridge and shrinkages rise, those of softmax fall."""
    config = ProbeConfig()
    assert config.softmax is not None
    settings = {"ridge": config.alphas, "lda": config.shrinkages, "softmax": config.softmax.penalties}[kind]
    assert best([trial(kind, s, 20) for s in settings]).setting == max(settings)


def test_a_better_setting_is_chosen_however_weak_its_penalty():
    assert best([trial("ridge", s, right) for s, right in ((1e-4, 18), (1e-2, 19), (1.0, 17))]).setting == 1e-2
