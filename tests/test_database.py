"""The database of a workspace: whole or not there, at home wherever it lies, refused in one line where it cannot be."""

import random
import shutil
import signal
import socket
import sqlite3
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from linrep import tracking
from linrep.errors import LinrepError, PlaceError, ServiceError
from linrep.places import place
from linrep.tracking import client, database
from linrep.tracking.database import ARTIFACTS, NAME, address, file_of, prepared

ROOT = Path(__file__).parents[1]
ODD = "what? ws%25#é 'q' \"d\" [x]* \U0001f642\n-"
NAMES = ["what? ws", "%25", "a#b", "my runs", "it's", '"d"', "[x]", "*", "été", "\U0001f642", "two\nlines", "-dash", "a&b=c;d",
         "$HOME", "~", "back\\slash", "n" * 255, "\U0001f642" * 60, "file:x", "a:b@c", "{x}", "\x01",
         "100%", "%", "+", "?"]  # fmt: skip
JOB = """
import sys
from linrep import tracking
from linrep.places import place
with tracking.run(place(sys.argv[1]), "harvest", "n", sys.argv[2], {"a": 1}) as run:
    run.text("hello", "notes/hello.txt")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has just made."""
    file = tmp_path_factory.mktemp("whole") / NAME
    prepared(file, tracking.EXPERIMENT)
    return file


def log(workspace: Path, key: str = "k") -> tracking.Run:
    with tracking.run(place(workspace), "harvest", "n", key, {"a": 1}) as run:
        run.text("hello", "notes/hello.txt")
    return run


def notes(uri: str, run: str, folder: Path) -> str:
    """What MLflow itself finds of a run's artifacts."""
    folder.mkdir(exist_ok=True)
    return Path(MlflowClient(uri).download_artifacts(run, "notes/hello.txt", str(folder))).read_text()


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    return text


def tables_of(file: Path) -> set[str]:
    with sqlite3.connect(file) as found:
        return {name for (name,) in found.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_an_end_in_the_middle_leaves_no_database_and_the_next_one_is_whole(tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, "_root", die)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / NAME, "e")
    assert not (tmp_path / NAME).exists()
    assert list(tmp_path.glob(".*.part"))
    prepared(tmp_path / NAME, "e")
    assert not list(tmp_path.glob(".*.part*"))
    assert MlflowClient(address(tmp_path / NAME)).get_experiment_by_name("e") is not None


@pytest.mark.parametrize("n_tables", [0, 3])
def test_a_database_that_was_never_finished_is_set_aside_with_a_line(tmp_path, capsys, n_tables):
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    file = tmp_path / NAME
    file.touch()
    for table in Base.metadata.sorted_tables[:n_tables]:
        table.create(create_engine(address(file)))
    run = log(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert "never finished" in said[0]
    (aside,) = tmp_path.glob(f"{NAME}.unfinished-*")
    assert len(tables_of(aside)) == n_tables
    assert notes(run.uri, run.id, tmp_path / "copy") == "hello"


def test_what_is_no_database_or_somebody_elses_is_refused_and_left_as_it_is(tmp_path):
    file = tmp_path / NAME
    file.write_text("no database at all, but text that is long enough to be read as a page of one")
    with pytest.raises(ServiceError, match=r"mlflow\.db is no database of SQLite's: move it away"):
        prepared(file, "e")
    file.unlink()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(ServiceError, match="no database of MLflow's, it holds birds"):
        prepared(file, "e")
    assert tables_of(file) == {"birds"}
    file.unlink()
    file.mkdir()
    with pytest.raises(ServiceError, match="is no file"):
        prepared(file, "e")


@pytest.mark.parametrize(
    ("version", "with_experiment"), [("ffffffffffff", True), ("ffffffffffff", False), ("451aebb31d03", True)]
)
def test_the_database_of_another_version_is_one_clear_line(tmp_path, whole, version, with_experiment):
    import mlflow

    shutil.copy(whole, tmp_path / NAME)
    with sqlite3.connect(tmp_path / NAME) as found:
        found.execute("UPDATE alembic_version SET version_num = ?", (version,))
        if not with_experiment:
            found.execute("DELETE FROM experiments")
    with pytest.raises(ServiceError) as caught:
        log(tmp_path)
    assert f"another version of MLflow ({version}) than the one installed, {mlflow.__version__}" in one_line(caught.value)
    assert not list(tmp_path.glob("*unfinished*"))


def test_two_that_start_at_once_in_a_new_workspace_both_run(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: prepared(tmp_path / "new" / NAME, "e"), range(2)))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [f".{NAME}.lock", NAME]


@pytest.mark.slow
def test_processes_that_start_at_once_in_a_new_workspace_all_run(tmp_path):
    words = [sys.executable, "-c", JOB, str(tmp_path / "new")]
    started = [subprocess.Popen([*words, key], cwd=ROOT, stderr=subprocess.PIPE, text=True) for key in "abc"]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    client = MlflowClient(address(tmp_path / "new" / NAME))
    (experiment,) = [e for e in client.search_experiments() if e.name == tracking.EXPERIMENT]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["linrep.key"] for run in runs) == ["a", "b", "c"]


@pytest.mark.slow
def test_kills_at_any_moment_leave_a_workspace_in_which_the_next_job_runs(tmp_path):
    """Before, while and after MLflow makes its tables: each kill in a new workspace, and then again in the same one."""
    draw = random.Random(0)
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", JOB, str(tmp_path / "whole"), "k"], cwd=ROOT, check=True, timeout=300)
    takes = time.monotonic() - start
    for i in range(20):
        workspace = tmp_path / str(i)
        for _ in range(2):
            process = subprocess.Popen([sys.executable, "-c", JOB, str(workspace), "k"], cwd=ROOT, stderr=subprocess.DEVNULL)
            time.sleep(draw.uniform(0.3, 1.0) * takes)
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        done = subprocess.run(
            [sys.executable, "-c", JOB, str(workspace), "k"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_copied_workspace_writes_only_into_itself_and_a_moved_one_shows_its_artifacts(tmp_path):
    first = log(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "first").rglob("*")}
    second = log(tmp_path / "copy", "another")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "first").rglob("*")} == before
    assert (tmp_path / "copy" / ARTIFACTS / second.id).is_dir()
    (tmp_path / "first").rename(tmp_path / "moved")
    for where, run in (("copy", first.id), ("copy", second.id), ("moved", first.id)):
        uri = tracking.tracking_uri(place(tmp_path / where))  # as `make ui` asks
        assert MlflowClient(uri).get_run(run).info.artifact_uri.startswith((tmp_path / where).as_uri())
        assert notes(uri, run, tmp_path / "down") == "hello"
    assert not (tmp_path / "first").exists()


def test_tables_of_a_moved_workspace_are_compared_and_its_runs_are_continued(tmp_path):
    with tracking.run(
        place(tmp_path / "old"), "probe", "n", tracking.key_of(place(tmp_path / "old"), place(tmp_path / "old/p")), {}
    ) as run:
        run.table("tables/t", pa.table({"x": [1]}))
    (tmp_path / "old").rename(tmp_path / "new")
    here = place(tmp_path / "new")
    assert tracking.compare_tables(here, "tables/t")["x"].to_list() == [1]
    with tracking.run(here, "probe", "n", tracking.key_of(here, here / "p"), {}) as again:
        pass
    assert again.id == run.id


def test_artifacts_that_a_server_or_a_person_placed_elsewhere_stay_there(tmp_path, whole):
    shutil.copy(whole, tmp_path / NAME)
    with sqlite3.connect(tmp_path / NAME) as found:
        found.execute("UPDATE experiments SET artifact_location = ?", ("mlflow-artifacts:/1",))
    prepared(tmp_path / NAME, tracking.EXPERIMENT)
    with sqlite3.connect(tmp_path / NAME) as found:
        assert {one for (one,) in found.execute("SELECT artifact_location FROM experiments")} == {"mlflow-artifacts:/1"}


def test_looking_makes_nothing(tmp_path):
    here = place(tmp_path / "none")
    assert tracking.tracking_uri(here).endswith(f"none/{NAME}")
    assert tracking.compare(here).is_empty()
    assert not (tmp_path / "none").exists()


def test_every_name_has_an_address_that_leads_to_the_same_file(tmp_path):
    draw = random.Random(0)
    odd = [*string.printable.replace("/", ""), *"éß中\U0001f642\x7f\xa0\u2028"]
    names = [*NAMES, *odd, *("".join(draw.choices(odd, k=draw.randint(1, 30))) for _ in range(500))]
    for name in names:
        file = tmp_path / f"x{name}" / NAME
        made = address(file)
        url = make_url(made)
        assert url.database == str(file), name
        assert not url.query
        assert file_of(made) == file
        assert made.isprintable()
        if made.startswith("sqlite:///"):  # MLflow makes the folder of what stands behind that, as it is written
            assert made.removeprefix("sqlite:///") == str(file)


def test_a_workspace_with_an_odd_name_keeps_all_in_itself(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    run = log(tmp_path / "in" / ODD)
    assert sorted(path.name for path in (tmp_path / "in" / ODD).iterdir()) == [f".{NAME}.lock", ARTIFACTS, NAME]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cwd", "in"]
    assert not list((tmp_path / "cwd").iterdir())
    assert notes(run.uri, run.id, tmp_path / "down") == "hello"
    (tmp_path / "in" / ODD).rename(tmp_path / "in" / "%3F")
    assert notes(tracking.tracking_uri(place(tmp_path / "in" / "%3F")), run.id, tmp_path / "down") == "hello"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_the_file_system_takes_works(tmp_path, name):
    run = log(tmp_path / "in" / name)
    assert [path.name for path in (tmp_path / "in").iterdir()] == [name]
    assert notes(run.uri, run.id, tmp_path / "down") == "hello"


def test_a_name_that_is_not_utf_8_is_refused_by_name():
    with pytest.raises(PlaceError, match=r"cannot open '/tmp/\\udcff': names of files must be UTF-8"):
        place("/tmp/\udcff")


class Reply(BaseHTTPRequestHandler):
    """Answers every request alike."""

    status, body = 500, b"<html>Internal Server Error</html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[int, bytes], str]]:
    """Starts a server that gives one answer."""
    servers = []

    def start(status: int, body: bytes) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Reply,), {"status": status, "body": body}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSES", ())
    monkeypatch.setattr("linrep.tracking.where.FIRST_PAUSES", ())
    monkeypatch.setattr(client, "PAUSES", ())
    monkeypatch.setattr(client, "FIRST_TIMEOUT_S", 1)


def refused(workspace: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(LinrepError) as caught:
        tracking.check(place(workspace))
    assert not workspace.exists()
    return one_line(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"<html>Internal Server Error</html>"),
        (200, b"<html>Welcome</html>"),
        (200, b"[1]"),
        (404, b""),
        (403, b"{}"),
        (302, b""),
    ],
)
def test_a_server_that_is_no_mlflow_is_one_clear_line(tmp_path, monkeypatch, quick, serve, status, body):
    uri = serve(status, body)
    assert f"MLflow at {uri} does not answer as it should: " in refused(tmp_path / "w", monkeypatch, uri)


def test_a_server_that_never_answers_is_one_clear_line_soon(tmp_path, monkeypatch, quick):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        said = refused(tmp_path / "w", monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - start < 10
        assert "does not answer" in said


def test_an_address_that_is_none_is_one_clear_line(tmp_path, monkeypatch, quick):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    files = sorted(tmp_path.iterdir())
    for uri in (
        *(str(tmp_path / "file"), str(tmp_path / "folder"), "runs", f"file://{tmp_path}/folder"),
        *(f"sqlite:///{tmp_path}/folder", f"sqlite:///{tmp_path}/file", f"sqlite:///{tmp_path}/file/x.db"),
        *("postgresql://me:secret@127.0.0.1:1/db", "foo://x", "http://", "http://[", "databricks", "sqlite:/x", " "),
    ):
        said = refused(tmp_path / "w", monkeypatch, uri)
        assert "secret" not in said
        assert uri.strip().split("@")[-1] in said or "/file" in said or "/folder" in said, said
    assert [path for path in sorted(tmp_path.iterdir()) if not path.name.endswith(".lock")] == files
