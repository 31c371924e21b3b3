"""What a candidate of a search saves while it waits at a rung: its record, and the state of that rung, whatever fails."""

import pytest
import torch

from linrep.errors import StoreError
from linrep.places import PendingFile, place
from linrep.sae.pack import Trial, Waits
from linrep.sae.trials import keep_waiting, read_waits


def waits(rows: int) -> Waits:
    return Waits(Trial("topk-8", "waiting", "", rows, {}), {"step": torch.tensor(rows)})


@pytest.mark.parametrize("failing", [".pt", ".json"])
def test_a_second_wait_that_fails_leaves_the_first(tmp_path, monkeypatch, failing):
    """A record of one rung with the state of another would go on from rows that the record does not count."""
    keep_waiting(place(tmp_path), waits(100))
    real = PendingFile.publish

    def publish(self: PendingFile) -> None:
        if self.target.name.endswith(failing):
            raise OSError("gone away")
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(PendingFile, "publish", publish)
        with pytest.raises(OSError, match="gone away"):
            keep_waiting(place(tmp_path), waits(200))
    found = read_waits(place(tmp_path), "topk-8")
    assert (found.trial.rows, int(found.state["step"])) == (100, 100)
    keep_waiting(place(tmp_path), waits(200))
    found = read_waits(place(tmp_path), "topk-8")
    assert (found.trial.rows, int(found.state["step"])) == (200, 200)
    assert len(list((tmp_path / "waiting").iterdir())) == 2  # the record and its state


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x05N.", b"no state" * 100])
def test_a_damaged_state_is_one_line(tmp_path, content):
    keep_waiting(place(tmp_path), waits(100))
    (file,) = (tmp_path / "waiting").glob("*.pt")
    file.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{file.name} is damaged"):
        read_waits(place(tmp_path), "topk-8")
