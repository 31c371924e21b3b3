"""How jobs end: after a signal, after what a user can mend, after a fault of ours."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from linrep import __version__
from linrep.cluster import entry
from linrep.cluster.stop import Stop, kept_handlers, listen
from linrep.errors import ServiceError, StoreError
from tests.signals import hangups_heard

PLATFORM = Path(__file__).parents[2] / "platform"
SCRIPT = """
import sys, time, types
from linrep.cluster.entry import run_job

def wait(what):
    try:
        print(what, flush=True)
        time.sleep(60)
    finally:
        print("noise while it ends", flush=True)
        open("closed", "w").close()

if sys.argv[1] == "silence":
    from linrep.cluster.session import _silent

def main(request):
    if sys.argv[1] == "silence":
        try:
            with _silent():
                wait("ready")
        finally:
            print("noise after it", file=sys.stderr, flush=True)
    wait("ready")

def parse(*_):
    if sys.argv[1] == "start":
        wait("ready")
    return types.SimpleNamespace(recipe=None, workspace=".")

# What a job imports first takes seconds; here it is timed apart.
sys.modules["linrep.recipe"] = types.SimpleNamespace(parse=parse, remember=lambda *_: None)
sys.modules["linrep.places"] = types.SimpleNamespace(place=lambda where: where)
sys.modules["linrep.tracking"] = types.SimpleNamespace(notice=lambda where: None)
sys.exit(run_job(__doc__, main))
"""


def job(folder: Path, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    with hangups_heard():
        process = subprocess.Popen(
            [*before, sys.executable, "-c", SCRIPT, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(PLATFORM)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("moment", ["start", "work", "silence"])
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
def test_a_signal_closes_what_is_open_and_ends_in_one_line(tmp_path, moment, number, status, word):
    process = job(tmp_path, moment)
    process.send_signal(number)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (status, "", f"{word}: run the same command again to resume\n")
    assert (tmp_path / "closed").exists()


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    process = job(tmp_path, "work", before=("nohup",))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_ends_at_once(monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        stop.hear(signal.SIGTERM)
    stop.hear(signal.SIGHUP)
    assert not ended
    monkeypatch.setattr("linrep.cluster.stop.PATIENCE_S", -1.0)
    stop.hear(signal.SIGINT)
    assert (ended, stop.status) == ([130], 143)


def test_an_exit_that_a_replaced_handler_asks_for_is_the_signal_that_it_was():
    """As Ray's handler does, which it puts in the place of ours when it starts."""

    def start() -> None:
        with kept_handlers():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            signal.raise_signal(signal.SIGTERM)

    stop = Stop()
    end = listen(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert stop.status == 143
        assert signal.getsignal(signal.SIGTERM) == stop.hear
    finally:
        end()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Task(Exception):
    """As Ray wraps what a task raised."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("Traceback of a worker\nin many\nlines")
        self.cause = cause


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreError("the file is damaged"), "the file is damaged"),
        (Task(StoreError("the file is damaged")), "the file is damaged"),
        (Task(Task(StoreError("the file is damaged"))), "the file is damaged"),
        (raised(RuntimeError("x"), ServiceError("no server")), "no server"),
        (OSError(errno.ENOSPC, "No space left on device", "/ws/file"), "/ws/file: No space left on device"),
        (Task(PermissionError(errno.EACCES, "Permission denied", "/ws")), "/ws: Permission denied"),
        (OSError(errno.ENOSPC, "[Errno 28] Error writing bytes to file"), "[Errno 28] Error writing bytes to file"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/ws/x"), "/ws/x: Not a directory"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_a_user_can_mend_is_its_line_alone(monkeypatch, capsys, error, line):
    def main(_: object) -> None:
        raise error

    monkeypatch.setattr("linrep.recipe.parse", lambda *_: type("Request", (), {"workspace": "."}))
    assert entry.run_job("x", main, []) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert said[0].endswith(line)


SWALLOWS = {
    "nothing": "try:\n        wait()\n    except BaseException:\n        pass\n    wait()",
    "another error": "try:\n        wait()\n    except BaseException as error:\n        raise ImportError('x') from None",
    "the end": "try:\n        wait()\n    except BaseException:\n        pass",
    "slow closing": "try:\n        wait()\n    finally:\n        time.sleep(2)\n        open('closed', 'w').close()",
}
"""What libraries make of an interrupt that comes at a bad moment."""


@pytest.mark.parametrize("case", SWALLOWS)
def test_a_stop_that_a_library_swallows_is_heard_all_the_same(tmp_path, case):
    body = SWALLOWS[case].replace("wait()", "print('ready', flush=True); time.sleep(30)")
    script = SCRIPT.partition("if sys.argv[1]")[0] + f"""
def main(request):
    {body}

parse = lambda *_: types.SimpleNamespace(recipe=None, workspace=".")
""" + SCRIPT.partition("# What a job imports first")[2].partition("\n")[2]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PLATFORM)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (143, "terminated: run the same command again to resume\n")
    assert (tmp_path / "closed").exists() == (case == "slow closing")


def test_advice_to_run_a_job_of_the_recipe_is_a_command_to_paste(monkeypatch, tmp_path, capsys):
    """Of the same recipe, overrides and workspace, whose name a shell would take apart."""
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(sys, "argv", ["jobs/probe.py"])

    def main(_: object) -> None:
        raise StoreError("no harvest: run jobs/harvest.py with the same recipe first")

    words = ["--config", "recipes/demo.yaml", "--workspace", f"{tmp_path}/a b", "--probe.layers", "2"]
    assert entry.run_job("", main, words) == 1
    command = capsys.readouterr().err.strip().partition("error: no harvest: run first: ")[2]
    own = ["jobs/harvest.py", "--config", "recipes/demo.yaml", f"--workspace={tmp_path}/a b", "--probe.layers", "2"]
    assert shlex.split(command)[1:] == own


@pytest.mark.parametrize(
    "error", [KeyError("fvu"), AssertionError(), FileNotFoundError(2, "No such file", "x"), Task(TypeError("x"))]
)
def test_a_fault_of_ours_keeps_its_traceback_and_says_that_it_is_one(monkeypatch, capsys, error):
    def main(_: object) -> None:
        raise error

    monkeypatch.setattr("linrep.recipe.parse", lambda *_: type("Request", (), {"workspace": "."}))
    assert entry.run_job("x", main, []) == 70
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Traceback")
    assert "in main" in "\n".join(said)
    assert f"a fault in linrep {__version__}" in said[-1]


def test_signals_are_left_to_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: listen(Stop())())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_any_name_is_printed_under_any_locale(tmp_path, locale):
    code = "import sys; from linrep.cluster import entry; entry._in_utf8(); open(sys.argv[1]).close(); print(sys.argv[1])"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_") and key != "PYTHONUTF8"}
    (tmp_path / "résumé\U0001f642").touch()
    done = subprocess.run(
        [sys.executable, "-c", code, "résumé\U0001f642"], cwd=tmp_path, capture_output=True, timeout=60, check=False,
        env={**environment, **locale, "PYTHONPATH": str(PLATFORM)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"r")
