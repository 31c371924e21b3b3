"""What a search says of workers that end early, and that it cleans up after Tune."""

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayTaskError

from linrep.cluster import tune_sae
from linrep.cluster.run_tune_sae import front_table, printable, trials_table
from linrep.cluster.tune_sae import clear, reason_of
from linrep.explorer.fronts import search_lines
from linrep.places import place
from linrep.sae.pack import Trial


def traceback_of(error: Exception) -> RayTaskError:
    """As it comes back from a worker: the text of a traceback that names files and lines of code."""
    kind = f"{type(error).__module__}.{type(error).__name__}"
    text = (
        'ray::ImplicitFunc.train() (pid=7)\n  File "/work/room/doom.py", line 3, in make_room\n'
        f"    scratch(n, self._room_bytes)  # until it died, out of memory\n{kind}: {error}"
    )
    return RayTaskError("train", text, error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (traceback_of(ValueError("the room is too small")), "builtins.ValueError: the room is too small"),
        (traceback_of(MemoryError("")), "out of memory: builtins.MemoryError:"),
        (traceback_of(torch.OutOfMemoryError("tried 2 GiB")), "out of memory: torch.OutOfMemoryError: tried 2 GiB"),
        (traceback_of(RuntimeError("CUDA: out of memory")), "out of memory: builtins.RuntimeError: CUDA: out of memory"),
        (OutOfMemoryError("Task was killed:\nthe node is low on memory."), "out of memory: the node is low on memory."),
        (tune_sae.RayActorError(), "its worker was killed"),
        (KeyError(), "KeyError"),
    ],
)  # fmt: skip
def test_the_reason_comes_from_the_type_and_the_last_line(error, reason):
    assert reason_of(error) == reason


def test_what_tune_wrote_is_deleted_from_disks_and_object_stores(bucket, tmp_path):
    for folder in (place(tmp_path), place(bucket("search"))):
        (folder / "ray/run-1/trial/params.json").write_bytes(b"{}")
        (folder / "trials/a.json").write_bytes(b"{}")
        clear(folder / "ray")
        clear(folder / "ray")  # where there is none there is nothing to do
        assert [path for path, _ in folder.walk()] == ["trials/a.json"]


def test_an_interval_that_is_not_known_does_not_end_a_search_at_its_last_line():
    values = {"layer": 1, "architecture": "topk", "sparsity": 2, "width": 32, "learning_rate": 1e-3, "text_share": None}
    scores = ({"rows": 64.0, "fvu": 0.5, "fvu_image": 0.5, "l0": 2.0, "l0_image": 2.0},)
    trial = Trial("a", "finished", "", 64, values, "b", scores, control={"fvu": 0.9, "fvu_image": 0.9})
    front = front_table([trial], {"a"})
    assert front["fvu_low"].null_count == 2
    text = "\n".join(search_lines(printable(front), trials_table({"a": trial}), 64, 64, {1: "a: the only one"}))
    assert "image 0.500 [nan, nan] (0.900)" in text
