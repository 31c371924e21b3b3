"""Rows as probes see them: read once where they fit, latents averaged over a sample's tokens wherever blocks are cut."""

import numpy as np
import pytest
import torch

from linrep.probe.rows import LatentRows, StreamRows
from linrep.store.blocks import Block
from linrep.store.layout import MODALITIES
from tests.probe.planted import D, write_planted


class Given:
    """Rows in memory, in blocks of a given size."""

    def __init__(self, x: torch.Tensor, sample: np.ndarray, size: int) -> None:
        self.x, self.sample, self.size = x, sample, size
        self.width = x.shape[1]

    def blocks(self, modality, wanted):
        for i in range(0, len(self.x), self.size):
            yield Block(self.x[i : i + self.size], self.sample[i : i + self.size]).of(wanted[self.sample[i : i + self.size]])


class Squares:
    """Latents are squares: the mean of the latents is not the latents of the mean."""

    d_model = n_latents = 3

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_samples_latents_are_the_mean_of_its_tokens_latents_wherever_blocks_are_cut(size):
    sample = np.repeat([2, 5, 6, 9], [1, 7, 2, 3])
    x = torch.arange(39, dtype=torch.float32).reshape(13, 3)
    wanted = np.ones(10, bool)
    wanted[6] = False
    rows = list(LatentRows(Given(x, sample, size), Squares(), mean=True).blocks("image", wanted))
    assert np.concatenate([block.sample for block in rows]).tolist() == [2, 5, 9]
    means = torch.cat([block.x for block in rows])
    for i, s in enumerate((2, 5, 9)):
        assert torch.allclose(means[i], (x[torch.from_numpy(sample == s)] ** 2).mean(0))


def test_rows_of_another_width_than_the_sae_are_refused():
    with pytest.raises(ValueError, match="rows of width 8 for an autoencoder of width 3"):
        LatentRows(Given(torch.zeros(2, 8), np.zeros(2, np.int64), 2), Squares(), mean=False)


def test_rows_that_are_kept_are_those_of_the_store(tmp_path, monkeypatch):
    store = write_planted(tmp_path, n_images=40, chunk_size=16)
    files = {m: store.select("tokens", 2, m).files for m in MODALITIES}
    wanted = np.arange(store.samples().num_rows) % 3 > 0
    kept = StreamRows(store, "tokens", files)
    monkeypatch.setattr("linrep.probe.rows.KEPT_BYTES", 2**29)
    for m in MODALITIES:
        once, again = (list(kept.blocks(m, wanted)) for _ in range(2))
        monkeypatch.setattr("linrep.probe.rows.KEPT_BYTES", 0)
        anew = list(StreamRows(store, "tokens", files).blocks(m, wanted))
        monkeypatch.setattr("linrep.probe.rows.KEPT_BYTES", 2**29)
        assert len(anew) > len(once) == len(again) == 1
        assert torch.equal(once[0].x, torch.cat([block.x for block in anew]))
        assert torch.equal(once[0].x, again[0].x)
        assert once[0].sample.tolist() == np.concatenate([block.sample for block in anew]).tolist()
        assert once[0].x.shape[1] == D
