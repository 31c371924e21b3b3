"""Runs in MLflow: one per artefact, found again by its key, so that a resumed job continues the run that it began."""

import contextlib
import logging
import math
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv

from linrep.errors import ServiceError
from linrep.places import Place, place, redacted
from linrep.retry import retried
from linrep.store.tables import read_table, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

T = TypeVar("T")

EXPERIMENT = "line-of-sight"
KEY = "linrep.key"
ERROR = "linrep.error"
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 20.0, 20.0, 20.0)
"""Seconds before each further try of a request that failed: a server has a minute and a half to come back."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
"""A server that answers so will do so again."""
LONGEST_PARAM = 500
LONGEST_TAG = 5000
LAYER = re.compile(r"(?:(?<=/)|[_-]|^)layer[-_]?(?P<layer>[0-9]+)(?:/|$|(?=_))")
"""Where a metric's name says its layer: pooled/layer03/top1, fvu_image_topk_layer03."""
_WHICH = ("run", "name", "stage", "status", "parent", "started")
COMMIT = "LINREP_GIT_COMMIT"
"""Environment variable that names the commit where the code is no checkout: in a submitted job, in an image."""


@dataclass(frozen=True)
class Run:
    """An open MLflow run.

    Attributes:
        id: The run's id.
        uri: The tracking server or database.
    """

    id: str
    uri: str
    _client: "MlflowClient"

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers, in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, step) for name, value in values.items()]
        for start in range(0, len(batch), 1000):
            piece = batch[start : start + 1000]
            _patiently(lambda piece=piece: self._client.log_batch(self.id, metrics=piece))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, in one request."""
        from mlflow.entities import RunTag

        batch = [RunTag(name, str(value)) for name, value in values.items()]
        _patiently(lambda: self._client.log_batch(self.id, tags=batch))

    def json(self, value: Any, name: str) -> None:
        """Keep a value as a JSON artifact."""
        _patiently(lambda: self._client.log_dict(self.id, value, name))

    def text(self, value: str, name: str) -> None:
        """Keep a text as an artifact."""
        _patiently(lambda: self._client.log_text(self.id, value, name))

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a figure as an artifact; the name's ending (.png, .svg, .pdf) says in which form."""
        _patiently(lambda: self._client.log_figure(self.id, figure, name))

    def table(self, name: str, table: pa.Table) -> None:
        """Keep a table as two artifacts, name.parquet and name.csv."""
        with tempfile.TemporaryDirectory() as folder:
            base = name.rsplit("/", 1)
            write_table(place(folder), f"{base[-1]}.parquet", table)
            pacsv.write_csv(table, f"{folder}/{base[-1]}.csv")
            where = base[0] if len(base) > 1 else None
            for ending in ("parquet", "csv"):
                path = f"{folder}/{base[-1]}.{ending}"
                _patiently(lambda path=path: self._client.log_artifact(self.id, path, where))

    def folder(self, folder: Place, name: str) -> None:
        """Keep all files of a folder as artifacts, below a name."""
        with tempfile.TemporaryDirectory() as copy:
            for path, _ in folder.walk():
                file = Path(copy) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes((folder / path).read_bytes())
            _patiently(lambda: self._client.log_artifacts(self.id, copy, name))

    def child(
        self,
        stage: str,
        name: str,
        key: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        metrics: Sequence[tuple[int, Mapping[str, float]]],
        failed: bool = False,
    ) -> "Run":
        """A part of this run that is over, as a run below it; one that was logged before is left as it is.

        Args:
            stage: What kind of part.
            name: What people see.
            key: Digest of the part.
            params: What tells it from the others.
            tags: More about it.
            metrics: Step, and numbers by name; what is not finite is left out.
            failed: Whether it failed.
        """
        from mlflow.entities import Metric, Param, RunTag

        client = self._client
        experiment = _patiently(lambda: client.get_run(self.id)).info.experiment_id
        run_id = _begun(client, experiment, stage, key, name, {"mlflow.parentRunId": self.id})
        info = _patiently(lambda: client.get_run(run_id)).info
        if info.status == "RUNNING":
            # One time for all: a driver that died in the middle and logs them again makes no point twice.
            points = [
                Metric(metric, float(value), info.start_time, step)
                for step, values in metrics
                for metric, value in values.items()
                if math.isfinite(value)
            ]
            shown = [Param(param, _shown(value)) for param, value in params.items()]
            told = [RunTag(tag, str(value)[:LONGEST_TAG]) for tag, value in tags.items()]
            _patiently(lambda: client.log_batch(run_id, params=shown, tags=told))
            for start in range(0, len(points), 1000):
                piece = points[start : start + 1000]
                _patiently(lambda piece=piece: client.log_batch(run_id, metrics=piece))
            _patiently(lambda: client.set_terminated(run_id, "FAILED" if failed else "FINISHED"))
        return Run(run_id, self.uri, client)


def tracking_uri(workspace: Place) -> str:
    """Where runs are kept: the server that MLFLOW_TRACKING_URI names, else a SQLite file in the workspace.

    A workspace in an object store cannot hold a database: without a server, runs are kept in the current folder.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    return f"sqlite:///{_database_folder(workspace)}/mlflow.db"


def pages(uri: str) -> str:
    """How to look at the runs that are kept at an address: a command, or where the server's pages are."""
    shown = redacted(uri)
    return f"MLflow's pages are at {shown}" if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def notice(workspace: Place) -> str | None:
    """What a user should know before a job starts about where its run is kept; None where that is plain."""
    if workspace.local or os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    database = _database_folder(workspace) / "mlflow.db"
    return (
        f"{workspace} cannot hold MLflow's database: this run is kept in {database} of this machine; "
        f"set MLFLOW_TRACKING_URI to a server to keep it elsewhere"
    )


def _database_folder(workspace: Place) -> Path:
    folder = Path(workspace.path) if workspace.local else Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def run(
    workspace: Place, stage: str, name: str, key: str, params: Mapping[str, Any], parents: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """The run of a job: continued where the same key was begun before, else new; closed when the block ends.

    Args:
        workspace: Where the database lies, unless a server is named.
        stage: harvest, probe, ...
        name: What people see.
        key: Digest of what the job makes.
        params: The recipe, nested; logged flat, with dots.
        parents: Digests of what the job reads, by stage.

    Raises:
        ServiceError: The tracking server does not answer.
    """
    uri = tracking_uri(workspace)
    client = _client(uri)
    experiment = _experiment(client, workspace, uri)
    run_id = _begun(client, experiment, stage, key, name, {})
    _patiently(lambda: client.update_run(run_id, status="RUNNING"))
    opened = Run(run_id, uri, client)
    _log_params(opened, {name: _shown(value) for name, value in flat(params).items()})
    opened.tags({f"linrep.parent.{parent}": digest for parent, digest in (parents or {}).items()} | _git())
    try:
        yield opened
    except BaseException as error:
        _close(opened, error)
        raise
    _forget_error(opened)
    _patiently(lambda: client.set_terminated(run_id, "FINISHED"))


def compare(workspace: Place, stages: Sequence[str] = (), where: str = "") -> pl.DataFrame:
    """All runs side by side: a row a run, the newest first.

    Args:
        workspace: Where they are kept, unless a server is named.
        stages: Which ones (harvest, probe, sae, steer, tune, trial, sharing ...); empty for all.
        where: What else they must satisfy, in MLflow's language: `metrics.fvu_image < 0.1 and params.width = '16384'`.

    Returns:
        `run`, `name`, `stage`, `status`, `parent` (the run that it is part of), `started`, and each parameter, metric (its last
        value) and tag of ours as `params.width`, `metrics.fvu_image`, `tags.linrep.harvest`; null where a run has none.
    """
    rows = [
        {
            **_which(run),
            **{f"params.{name}": value for name, value in sorted(run.data.params.items())},
            **{f"metrics.{name}": value for name, value in sorted(run.data.metrics.items())},
            **{f"tags.{name}": value for name, value in sorted(run.data.tags.items()) if not name.startswith("mlflow.")},
        }
        for run in _runs(workspace, stages, where)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def compare_metrics(workspace: Place, stages: Sequence[str] = (), where: str = "") -> pl.DataFrame:
    """The same with a row for each run and metric, so that layers and stages stand below each other.

    Returns:
        `run`, `name`, `stage`, `status`, `parent`, `started`, `layer` (from the metric's name, else the run's parameter; null
        where neither says), `metric` (its name without the layer) and `value`.
    """
    rows = []
    for run in _runs(workspace, stages, where):
        own = run.data.params.get("layer", "")
        for name, value in sorted(run.data.metrics.items()):
            found = LAYER.search(name)
            layer = int(found["layer"]) if found else int(own) if own.isdigit() else None
            rows.append({**_which(run), "layer": layer, "metric": LAYER.sub("", name), "value": value})
    kinds = {**dict.fromkeys(_WHICH, pl.String), "started": pl.Int64, "layer": pl.Int64, "metric": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=kinds)


def compare_tables(workspace: Place, name: str, stages: Sequence[str] = (), where: str = "") -> pl.DataFrame:
    """A table that several runs keep (`tables/front`, `tables/quality` ...), one below the other, with `run_id`, `run_name`."""
    found, client = [], _client(tracking_uri(workspace))
    for run in _runs(workspace, stages, where):
        folder = name.rpartition("/")[0]
        if f"{name}.parquet" in {file.path for file in client.list_artifacts(run.info.run_id, folder or None)}:
            with tempfile.TemporaryDirectory() as copy:
                path = Path(client.download_artifacts(run.info.run_id, f"{name}.parquet", copy))
                frame = pl.DataFrame(pl.from_arrow(read_table(place(path.parent), path.name)))
            own = (pl.lit(run.info.run_id).alias("run_id"), pl.lit(run.info.run_name).alias("run_name"))
            found.append(frame.with_columns(*own))
    return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()


def _which(run: Any) -> dict[str, Any]:
    tags, info = run.data.tags, run.info
    own = (info.run_id, info.run_name, tags.get("linrep.stage"), info.status, tags.get("mlflow.parentRunId"), info.start_time)
    return dict(zip(_WHICH, own, strict=True))


def _runs(workspace: Place, stages: Sequence[str], where: str) -> list[Any]:
    client = _client(tracking_uri(workspace))
    experiment = _patiently(lambda: client.get_experiment_by_name(EXPERIMENT))
    if experiment is None:
        return []
    found: list[Any] = []
    # MLflow's language has `in`, but not for every store's tags: one question a stage.
    for stage in stages or ("",):
        query = " and ".join(filter(None, [f"tags.`linrep.stage` = '{stage}'" if stage else "", where]))
        token = None
        while True:
            page = _patiently(lambda q=query, t=token: client.search_runs([experiment.experiment_id], q, page_token=t))
            found += page
            token = page.token
            if not token:
                break
    return sorted(found, key=lambda run: -run.info.start_time)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values with dotted names.

    >>> flat({"a": {"b": 1}, "c": [2, 3]})
    {'a.b': 1, 'c': [2, 3]}
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return out


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    if uri.startswith("http"):
        # MLflow's own retries last for minutes; `_patiently` decides instead.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _experiment(client: "MlflowClient", workspace: Place, uri: str) -> str:
    found = _patiently(lambda: client.get_experiment_by_name(EXPERIMENT))
    if found is not None:
        return found.experiment_id
    # A database keeps artifacts beside it; a server says itself where they go.
    location = None if uri.startswith("http") else (_database_folder(workspace) / "mlartifacts").as_uri()
    try:
        return _patiently(lambda: client.create_experiment(EXPERIMENT, artifact_location=location))
    except ServiceError:
        again = client.get_experiment_by_name(EXPERIMENT)  # another job may have made it meanwhile
        if again is None:
            raise
        return again.experiment_id


def _begun(client: "MlflowClient", experiment: str, stage: str, key: str, name: str, tags: Mapping[str, str]) -> str:
    """The run of a key, begun now if it was not before."""
    query = f"tags.`{KEY}` = '{key}' and tags.`linrep.stage` = '{stage}'"

    def find_or_create() -> str:
        # Looked for at each try: a server may have made the run and gone away before it could say so.
        found = client.search_runs([experiment], query, max_results=1)
        run = found[0] if found else client.create_run(experiment, run_name=name, tags={KEY: key, "linrep.stage": stage, **tags})
        return run.info.run_id

    return _patiently(find_or_create)


def _forget_error(run: Run) -> None:
    """Take the reason of an earlier failure off a run that has succeeded."""

    def forget() -> None:
        if ERROR in run._client.get_run(run.id).data.tags:
            run._client.delete_tag(run.id, ERROR)

    _patiently(forget)


def _git() -> dict[str, str]:
    """The commit of the code, and whether files differ from it: from the checkout, else from the environment."""
    here = Path(__file__).parent

    def ask(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = ask("rev-parse", "HEAD")
        changed = bool(commit) and bool(ask("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        commit, changed = "", False
    if not commit:
        said = os.environ.get(COMMIT, "").strip()
        commit, changed = said.removesuffix("-dirty"), said.endswith("-dirty")
    return {"git.commit": commit, "git.changed": str(changed).lower()} if commit else {}


def _log_params(run: Run, params: dict[str, str]) -> None:
    """Log what the run does not have yet: its first job may have died before it had logged any.

    MLflow's parameters are fixed. One that a later job of the run changed (where it runs, not what it makes) becomes a tag.
    """
    from mlflow.entities import Param

    there = _patiently(lambda: run._client.get_run(run.id)).data.params
    missing = [Param(name, value) for name, value in params.items() if name not in there]
    for start in range(0, len(missing), 100):
        piece = missing[start : start + 100]
        _patiently(lambda piece=piece: run._client.log_batch(run.id, params=piece))
    changed = {f"linrep.now.{name}": value for name, value in params.items() if there.get(name, value) != value}
    if changed:
        run.tags(changed)


def _close(run: Run, error: BaseException) -> None:
    """Mark a run that failed or was interrupted. A server that does not answer now must not hide why the job ended."""
    interrupted = isinstance(error, KeyboardInterrupt)
    try:
        if not interrupted:
            run.tags({ERROR: str(error)[:LONGEST_PARAM]})
        _patiently(lambda: run._client.set_terminated(run.id, "KILLED" if interrupted else "FAILED"))
    except ServiceError as silent:
        error.add_note(f"({silent}; the run is not marked)")


def _shown(value: Any) -> str:
    """A parameter as text; a corpus in an object store may carry its key in its URI, which is nobody's to read here."""
    text = str(value)
    return (redacted(text) if "://" in text else text)[:LONGEST_PARAM]


def _patiently(call: Callable[[], T]) -> T:
    """The call's result; tried again, after a pause, while a server is away."""
    from mlflow.exceptions import MlflowException

    def away(error: Exception) -> bool:
        return isinstance(error, MlflowException | OSError) and getattr(error, "error_code", "") not in REFUSALS

    try:
        return retried(call, PAUSES, away)
    except (MlflowException, OSError) as error:
        where = redacted(os.environ.get("MLFLOW_TRACKING_URI", "")) or "the workspace"
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ServiceError(f"MLflow at {where} does not answer as it should: {said}") from error
