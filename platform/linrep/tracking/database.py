"""A SQLite file that MLflow keeps runs in: made whole or not at all, by one process at a time, and at home where it lies."""

import contextlib
import fcntl
import os
import re
import secrets
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from linrep.errors import ServiceError
from linrep.tracking.client import open_client, reason

NAME = "mlflow.db"
ARTIFACTS = "mlartifacts"
"""Folder beside the database that holds figures and tables."""
WAIT_SECONDS = 120.0
"""Another process may take as long as this to make the database: a few seconds, on a busy machine many."""
_PLAIN = re.compile(r"[\w/., =+~-]*")
_ADDRESS = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<path>[^?]+)", re.DOTALL)
_MAGIC = b"SQLite format 3\0"
_OURS = {"alembic_version", "experiments", "runs", "metrics", "params", "tags"}
"""Tables that MLflow makes first: a file with tables and none of these is somebody else's."""


def address(file: Path) -> str:
    """The address of a database by which MLflow opens it, whatever its folder is called."""
    path = str(file)
    # With the driver named: MLflow makes the folder of a plain address's path, as it is written there, quoted.
    return f"sqlite:///{path}" if _PLAIN.fullmatch(path) else f"sqlite+pysqlite:///{quote(path)}"


def file_of(uri: str) -> Path | None:
    """The file of a SQLite address; None of any other, and of a database in memory."""
    found = _ADDRESS.fullmatch(uri)
    path = unquote(found["path"]) if found else ""
    return None if path.startswith(("file:", ":memory:")) or not path else Path(path).absolute()


def prepared(file: Path, experiment: str) -> None:
    """Make sure that a database is there, whole, with the experiment in it, and that its artifacts lie beside it.

    Raises:
        ServiceError: Something else is there, of another version, or the folder cannot be written.
    """
    file = _real(file)
    try:
        with _locked(file):
            for left in file.parent.glob(f".{_escaped(file.name)}.*.part*"):
                left.unlink()  # a killed process was making it
            if file.exists() and not _has(file, experiment):
                _judge(file)
            if not file.exists():
                _make(file, experiment)
            _settle(file)
    except OSError as error:
        raise ServiceError(f"cannot keep MLflow's runs in {file}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise ServiceError(f"cannot keep MLflow's runs in {file}: {error}") from error


def settled(file: Path) -> None:
    """Let a database that was moved or copied here know where its artifacts lie; left as it is where it cannot be written."""
    if file.is_file():
        with contextlib.suppress(OSError, sqlite3.Error):
            _settle(_real(file))


def experiment_id(file: Path, experiment: str) -> str | None:
    """The number of an experiment, by which MLflow's pages name it; None where the file cannot say."""
    try:
        with _connected(file) as database:
            found = database.execute("SELECT experiment_id FROM experiments WHERE name = ?", (experiment,)).fetchone()
    except sqlite3.DatabaseError:
        return None
    return None if found is None else str(found[0])


def _real(file: Path) -> Path:
    """Where a link leads: a database that is linked to from several folders has one home."""
    return file.resolve() if file.is_symlink() else file


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("a") as lock:
        last = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > last:
                    raise ServiceError(f"another process has held {lock.name} for {WAIT_SECONDS:.0f} s: end it first") from None
                time.sleep(0.05)
        yield


def _make(file: Path, experiment: str) -> None:
    """MLflow takes seconds and dozens of steps to make its tables, and cannot go on with a half of them."""
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    open_client(address(aside)).create_experiment(experiment)
    with _connected(aside) as database:
        _root(database, "experiments", "artifact_location", _artifacts(file))
    os.replace(aside, file)


def _judge(file: Path) -> None:
    """Look at a database that is not of our making: set it aside if it was never finished, refuse it if it is no MLflow's.

    Raises:
        ServiceError: It is nothing that MLflow can go on with, and holds what must not be lost.
    """
    if not file.is_file():
        raise ServiceError(f"{file} is no file: MLflow's database has that name, move it away")
    with file.open("rb") as content:
        first = content.read(len(_MAGIC))
    if first not in (b"", _MAGIC):  # SQLite takes a very short file for an empty database
        raise ServiceError(f"{file} is no database of SQLite's: move it away")
    try:
        with _connected(file) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            n_runs = database.execute("SELECT count(*) FROM runs").fetchone()[0] if "runs" in tables else 0
            version = (
                database.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
            )
    except sqlite3.DatabaseError as error:
        raise ServiceError(f"{file} cannot be read by SQLite ({error}): move it away") from error
    if tables and not tables & _OURS:
        raise ServiceError(f"{file} is no database of MLflow's, it holds {', '.join(sorted(tables)[:5])}: move it away")
    known, newest = _versions()
    if version is not None and version[0] == newest:
        return
    if n_runs or (version is not None and version[0] not in known):
        found = version[0] if version is not None else "none"
        raise ServiceError(reason(ValueError(f"found version {found}, but expected {newest}"), address(file)))
    away = file.with_name(f"{file.name}.unfinished-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    file.rename(away)
    print(f"{file} was never finished and holds no run: it is set aside as {away.name}", file=sys.stderr, flush=True)


def _versions() -> tuple[set[str], str | None]:
    """Versions of the tables that the installed MLflow knows, and the newest."""
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return {script.revision for script in scripts.walk_revisions()}, scripts.get_current_head()


def _has(file: Path, experiment: str) -> bool:
    try:
        with _connected(file) as database:
            return database.execute("SELECT 1 FROM experiments WHERE name = ?", (experiment,)).fetchone() is not None
    except sqlite3.DatabaseError:
        return False


def _settle(file: Path) -> None:
    """Rewrite the addresses of artifacts, which MLflow keeps whole, in a database that came from elsewhere."""
    here = _artifacts(file)
    with _connected(file) as database:
        asked = database.execute("SELECT DISTINCT artifact_location FROM experiments")
        roots = {one for (one,) in asked if one and _beside(one) and one != here}
        for old in roots:
            if _same(old, here):
                continue
            _root(database, "experiments", "artifact_location", here, old)
            _root(database, "runs", "artifact_uri", here, old)


def _root(database: sqlite3.Connection, table: str, column: str, new: str, old: str | None = None) -> None:
    if old is None:
        database.execute(f"UPDATE {table} SET {column} = ?", (new,))
        return
    changed = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
    database.execute(changed, (new, len(old) + 1, len(old), old))


def _artifacts(file: Path) -> str:
    return "file://" + quote(str(file.parent / ARTIFACTS))


def _beside(location: str) -> bool:
    """Whether artifacts lie, or lay, beside the database, and not where a server or a person wanted them."""
    return re.fullmatch(rf"(?:file://)?/(?:.*/)?{ARTIFACTS}", location, re.DOTALL) is not None


def _same(one: str, other: str) -> bool:
    paths = [unquote(address.removeprefix("file://")) for address in (one, other)]
    return all(map(os.path.exists, paths)) and os.path.samefile(*paths)


@contextlib.contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are kept together, or not at all."""
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database, database:
        yield database


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
