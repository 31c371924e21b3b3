"""A trained SAE whose bytes changed is refused by name, whoever reads it."""

from pathlib import Path

import pytest
import torch

from linrep.errors import StoreError
from linrep.kind import UnitCommit
from linrep.places import place
from linrep.records import write_record
from linrep.sae.artefact import open_saes
from linrep.sae.controls import random_sae
from linrep.sae.formats import read, saelens
from linrep.sae.formats.sums import sums_of
from linrep.sae.sae import Sae


@pytest.mark.parametrize("name", saelens.FILES)
def test_one_flipped_bit_of_a_trained_sae_is_one_line_that_names_the_file_and_the_repair(name: str, tmp_path: Path) -> None:
    layer, commit = place(tmp_path) / "layer-002", place(tmp_path) / "commits" / "layer-002.json"
    saelens.write(layer / "topk", random_sae(torch.randn(64, 16), 48, 4))
    write_record(commit, UnitCommit("layer-002", 0.0, 1, {}, {"sums": sums_of(layer / "topk", saelens.FILES)}))
    read(layer / "topk")
    file = tmp_path / "layer-002" / "topk" / name
    whole = file.read_bytes()
    # The last digit of a number in the settings, a bit of the last weight: both read well without the sum.
    at = max(i for i, byte in enumerate(whole) if chr(byte).isdigit()) if name == saelens.CONFIG else len(whole) - 4
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for reading in (lambda: read(layer / "topk"), lambda: open_saes(layer, "topk")):
        with pytest.raises(StoreError, match=r"is damaged .*delete .*commits/layer-002\.json") as caught:
            reading()
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    saelens.write(place(tmp_path) / "elsewhere", read_without_commit(tmp_path))
    read(place(tmp_path) / "elsewhere")


def read_without_commit(folder: Path) -> Sae:
    """What the changed files say where no commit speaks against them."""
    (folder / "commits" / "layer-002.json").unlink()
    return read(folder / "layer-002" / "topk")
