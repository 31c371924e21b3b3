"""The demo's SAE training as its user runs it: quiet, on a busy machine, and killed and resumed. All end in the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SMALLER = (
    "--demo.n_images", "256", "--demo.n_texts", "256", "--harvest.layers", "2,4", "--harvest.chunk_size", "128",
    "--sae.rows", "81920", "--sae.checkpoint_every", "10", "--sae.design.aux.dead_after", "5000",
    "--sae.evaluation.rows", "1024", "--sae.evaluation.texts", "8",
    "--sae.evaluation.samples", "128",
)  # fmt: skip
"""The recipe as it is shipped, of fewer samples, layers and rows. SAEs die early enough for the auxiliary loss to take part."""
TIMES = {"manifest.json": {"created", "finished"}, "commits": {"seconds"}}
"""Fields that are times, by the name of the file or of its folder. All else in these files is a result, too."""
NICE = 15
"""Of Ray's workers. Beside busy processes of niceness 0 they get hardly any time, and the test takes far longer."""
OF_THE_RUN = {"driver.lock", "checkpoints"}
"""What is no result: the lock, and the folder in which Ray keeps its marks."""


def command(job: str, workspace: Path) -> list[str]:
    return [sys.executable, f"jobs/{job}.py", "--config", "recipes/demo.yaml", "--workspace", str(workspace), *SMALLER]


def run(job: str, workspace: Path) -> None:
    done = subprocess.run(command(job, workspace), cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Processes that do nothing but take the machine's time from Ray's workers: as nice as these, so that they take a share."""
    words = [sys.executable, "-c", f"import os; os.nice({NICE})\nwhile True: pass"]
    burners = [subprocess.Popen(words) for _ in range(n)]
    try:
        yield
        assert all(burner.poll() is None for burner in burners)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait(60)


def kill_in_the_middle(workspace: Path, log: Path) -> None:
    """Start the training, and kill its whole process group after the first checkpoint of a layer."""
    with log.open("w") as stream:
        words = command("train_sae", workspace)
        driver = subprocess.Popen(words, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True)
    end = time.monotonic() + 600
    while not list(workspace.glob("saes/*/checkpoints/layer-*.json")):
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < end
        time.sleep(0.05)
    family = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGKILL)
    assert driver.wait(60) == -signal.SIGKILL
    _, left = psutil.wait_procs(family, timeout=60)  # Ray's own processes end when their driver is gone
    assert not left
    begun = {file.stem for file in workspace.glob("saes/*/checkpoints/layer-*.json")}
    assert begun - {file.stem for file in workspace.glob("saes/*/commits/*.json")}, "no layer is left to resume"


def results(workspace: Path) -> dict[str, bytes]:
    """Every file of the SAEs by its path; in files that have times, all but these and the check over them."""
    found = {}
    for file in sorted((workspace / "saes").rglob("*")):
        path = file.relative_to(workspace / "saes")
        if file.is_dir() or OF_THE_RUN & set(path.parts):
            continue
        found[str(path)] = file.read_bytes()
        times = TIMES.get(file.name, TIMES.get(file.parent.name))
        if times is not None:
            value = json.loads(found[str(path)])
            assert times <= value.keys()
            found[str(path)] = json.dumps({k: v for k, v in value.items() if k not in times | {"check"}}).encode()
    return found


@pytest.mark.slow
def test_a_quiet_a_busy_and_a_killed_and_resumed_training_of_the_demo_end_in_the_same_bytes(tmp_path):
    quiet, loaded, killed = (tmp_path / name / "ws" for name in ("quiet", "loaded", "killed"))
    run("harvest", quiet)
    for copy in (loaded, killed):
        shutil.copytree(quiet, copy)
    run("train_sae", quiet)
    with busy(4):
        run("train_sae", loaded)
    kill_in_the_middle(killed, tmp_path / "log")
    run("train_sae", killed)
    expected = results(quiet)
    names = [Path(path).name for path in expected]
    assert names.count("sae_weights.safetensors") == names.count("cfg.json") == 2 * 2  # layers and sparsities
    assert {"training.parquet", "quality.parquet", "truth.parquet", "summary.txt", "README.md"} < set(names)
    for other in (loaded, killed):
        found = results(other)
        assert found.keys() == expected.keys()
        assert [path for path in expected if found[path] != expected[path]] == []
