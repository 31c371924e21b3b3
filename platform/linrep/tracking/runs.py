"""A run in MLflow, from its beginning to the mark that says how it ended."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.csv as pacsv

from linrep.errors import ServiceError
from linrep.places import Place, place, redacted
from linrep.sheets import guarded
from linrep.store.tables import write_table
from linrep.tracking.client import open_client, patiently
from linrep.tracking.curves import IN_TABLES_ALONE, MOST_METRICS, Measures, drawn, over_layers
from linrep.tracking.inputs import HARVESTS, datasets_of, harvest_dataset, log_datasets
from linrep.tracking.source import git, source, user
from linrep.tracking.where import EXPERIMENT, opened_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from linrep.tracking.whole import Whole

T = TypeVar("T")

KEY = "linrep.key"
UNDER_WAY = ("RUNNING", "KILLED")
"""How a part's run stands that a driver began to log and did not end."""
ERROR = "linrep.error"
PARENT = "mlflow.parentRunId"
SHARED = ("mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.user")
"""Tags that a part of a run has from it."""
WHOLE: "ContextVar[Whole | None]" = ContextVar("whole", default=None)
"""What the runs that are opened now are parts of."""
LONGEST_PARAM = 500
LONGEST_TAG = 5000


@dataclass(frozen=True)
class Run:
    """An open MLflow run.

    Attributes:
        id: The run's id.
        uri: The tracking server or database.
        experiment: The id of its experiment; empty where nobody asks for its page.
    """

    id: str
    uri: str
    _client: "MlflowClient"
    experiment: str = ""

    @property
    def page(self) -> str | None:
        """Where a server shows the run; None for a database, whose pages nobody serves yet."""
        if not self.uri.startswith("http"):
            return None
        return f"{redacted(self.uri).rstrip('/')}/#/experiments/{self.experiment}/runs/{self.id}"

    def _ask(self, call: Callable[[], T]) -> T:
        return patiently(call, self.uri)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers, in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, step) for name, value in values.items()]
        for start in range(0, len(batch), 1000):
            piece = batch[start : start + 1000]
            self._ask(lambda piece=piece: self._client.log_batch(self.id, metrics=piece))

    def measures(self, values: Measures) -> None:
        """Log numbers, and curves over layers: a mapping from layer to number is one metric with the layer as its step.

        MLflow draws a metric as bars, a bar a run, if all its steps are 0, and as lines over steps otherwise. So:

        - what there is for each layer is a curve, never a metric for each layer;
        - a count, or another number of the whole run, has step 0, where its bars compare runs;
        - a curve of one layer (a recipe of one layer, a measure that is finite at one layer only) is a number with its layer in
          its name: as a curve it would be a single point, and at step 0 under its own name it would pass for layer 0.

        What is not finite is left out. At most `MOST_METRICS` are logged, see `first`. A tag says which metrics are no curves.

        Args:
            values: By name, the most important first.
        """
        all_of_them = drawn(values)
        logged = self.first(list(all_of_them))
        steps: dict[int, dict[str, float]] = {}
        for name in logged:
            value = all_of_them[name]
            for layer, number in (value if isinstance(value, Mapping) else {0: value}).items():
                steps.setdefault(layer, {})[name] = number
        if tags := over_layers(all_of_them, logged):
            self.tags(tags)
        for layer, named in sorted(steps.items()):
            self.metrics(named, layer)

    def first(self, names: Sequence[str]) -> Sequence[str]:
        """The first `MOST_METRICS` of some metrics; a tag counts the others. Nobody reads a page of hundreds of charts.

        Args:
            names: All that could be logged, the most important first.
        """
        if len(names) > MOST_METRICS:
            self.tags({IN_TABLES_ALONE: str(len(names) - MOST_METRICS)})
        return names[:MOST_METRICS]

    def describe(self, text: str) -> None:
        """Set the run's description, which MLflow's pages show on top."""
        self.tags({"mlflow.note.content": text[:LONGEST_TAG]})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, in one request."""
        from mlflow.entities import RunTag

        batch = [RunTag(name, str(value)) for name, value in values.items()]
        self._ask(lambda: self._client.log_batch(self.id, tags=batch))

    def below(self, part: str) -> None:
        """Put another run below this one, by its id."""
        self._ask(lambda: self._client.set_tag(part, PARENT, self.id))

    def reads(self, workspace: Place, stage: str, harvests: Sequence[str]) -> None:
        """Log harvests, by their digests, as the run's inputs. A harvest's run logs its own, and is found with its readers."""
        log_datasets(self._client, self.uri, self.id, stage, [harvest_dataset(workspace, digest) for digest in harvests])

    def json(self, value: Any, name: str) -> None:
        """Keep a value as a JSON artifact."""
        self._ask(lambda: self._client.log_dict(self.id, value, name))

    def text(self, value: str, name: str) -> None:
        """Keep a text as an artifact."""
        self._ask(lambda: self._client.log_text(self.id, value, name))

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a figure as an artifact; the name's ending (.png, .svg, .pdf) says in which form."""
        self._ask(lambda: self._client.log_figure(self.id, figure, name))

    def table(self, name: str, table: pa.Table) -> None:
        """Keep a table as two artifacts: name.parquet, which programs read, and name.csv for people, with guarded texts."""
        with tempfile.TemporaryDirectory() as folder:
            base = name.rsplit("/", 1)
            write_table(place(folder), f"{base[-1]}.parquet", table)
            pacsv.write_csv(_for_spreadsheets(table), f"{folder}/{base[-1]}.csv")
            where = base[0] if len(base) > 1 else None
            for ending in ("parquet", "csv"):
                path = f"{folder}/{base[-1]}.{ending}"
                self._ask(lambda path=path: self._client.log_artifact(self.id, path, where))

    def folder(self, folder: Place, name: str) -> None:
        """Keep all files of a folder as artifacts, below a name."""
        with tempfile.TemporaryDirectory() as copy:
            for path, _ in folder.walk():
                file = Path(copy) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes((folder / path).read_bytes())
            self._ask(lambda: self._client.log_artifacts(self.id, copy, name))

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

        It has the source, the user and the inputs of this run.

        Args:
            stage: What kind of part.
            name: What people see.
            key: Digest of the part.
            params: What separates it from the others.
            tags: More about it.
            metrics: Step, and numbers by name; what is not finite is left out.
            failed: Whether it failed.
        """
        from mlflow.entities import Metric, Param, RunTag

        client = self._client
        above = self._ask(lambda: client.get_run(self.id))
        shared = {tag: value for tag, value in above.data.tags.items() if tag in SHARED}
        run_id = _begun(client, self.uri, above.info.experiment_id, stage, key, name, {PARENT: self.id, **shared})
        part = Run(run_id, self.uri, client)
        try:
            info = self._ask(lambda: client.get_run(run_id)).info
            if info.status in UNDER_WAY:
                # One time for all: a driver that died in the middle and logs them again makes no point twice.
                points = [
                    Metric(metric, float(value), info.start_time, step)
                    for step, values in metrics
                    for metric, value in values.items()
                    if math.isfinite(value)
                ]
                shown = [Param(param, _shown(value)) for param, value in params.items()]
                labels = [RunTag(tag, str(value)[:LONGEST_TAG]) for tag, value in tags.items()]
                self._ask(lambda: client.log_batch(run_id, params=shown, tags=labels))
                log_datasets(client, self.uri, run_id, stage, datasets_of(above))
                for start in range(0, len(points), 1000):
                    piece = points[start : start + 1000]
                    self._ask(lambda piece=piece: client.log_batch(run_id, metrics=piece))
                self._ask(lambda: client.set_terminated(run_id, "FAILED" if failed else "FINISHED"))
        except KeyboardInterrupt as error:
            _close_open(client, self.uri, [client.get_run(run_id)], error)
            raise
        return part


@contextlib.contextmanager
def run(
    workspace: Place, stage: str, name: str, key: str, params: Mapping[str, Any], parents: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """The run of a job: continued where the same key was begun before, else new; closed when the block ends.

    Where a whole is open (see `whole`), the run lies below the whole's.

    Args:
        workspace: Where the database lies, unless a server is named.
        stage: harvest, probe, ...
        name: What people see.
        key: Digest of what the job makes.
        params: The recipe, nested; logged flat, with dots.
        parents: Digests of what the job reads, by stage. The harvests among them are the run's inputs.

    Raises:
        ServiceError: The tracking server does not answer.
    """
    above = WHOLE.get()
    up = {PARENT: above.run().id} if above is not None else {}
    uri = opened_uri(workspace)
    client = open_client(uri)
    experiment = _experiment(client, workspace, uri)
    run_id = _begun(client, uri, experiment, stage, key, name, user())
    opened, parents = Run(run_id, uri, client, experiment), parents or {}
    try:
        patiently(lambda: client.update_run(run_id, status="RUNNING"), uri)
        _log_params(opened, {name: _shown(value) for name, value in flat(params).items()})
        opened.tags({f"linrep.parent.{parent}": digest for parent, digest in parents.items()} | up | source() | git())
        opened.reads(workspace, stage, [digest for parent, digest in parents.items() if parent in HARVESTS])
        yield opened
        _forget_error(opened)
        patiently(lambda: client.set_terminated(run_id, "FINISHED"), uri)
    except BaseException as error:
        _close(opened, error)
        raise


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values with dotted names.

    >>> flat({"a": {"b": 1}, "c": [2, 3]})
    {'a.b': 1, 'c': [2, 3]}
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return out


def _experiment(client: "MlflowClient", workspace: Place, uri: str) -> str:
    found = patiently(lambda: client.get_experiment_by_name(EXPERIMENT), uri)
    if found is not None:
        return found.experiment_id
    # A SQLite database has it from the start, with artifacts beside it; a server says itself where they go.
    local = None if uri.startswith("http") or not workspace.local else (Path(workspace.path) / "mlartifacts").as_uri()
    try:
        return patiently(lambda: client.create_experiment(EXPERIMENT, artifact_location=local), uri)
    except ServiceError:
        again = client.get_experiment_by_name(EXPERIMENT)  # another job may have made it meanwhile
        if again is None:
            raise
        return again.experiment_id


def _begun(client: "MlflowClient", uri: str, experiment: str, stage: str, key: str, name: str, tags: Mapping[str, str]) -> str:
    """The run of a key, begun now if it was not before."""
    query = f"{_has_key(key)} and tags.`linrep.stage` = '{stage}'"

    def find_or_create() -> str:
        # Looked for at each try: a server may have made the run and gone away before it could say so.
        found = client.search_runs([experiment], query, max_results=1)
        run = found[0] if found else client.create_run(experiment, run_name=name, tags={KEY: key, "linrep.stage": stage, **tags})
        return run.info.run_id

    try:
        return patiently(find_or_create, uri)
    except KeyboardInterrupt as error:
        # The run may be there, and nobody knows it yet who could close it.
        _close_open(client, uri, client.search_runs([experiment], query), error)
        raise


def search_key(beside: Run, key: str) -> "Sequence[MlflowRun]":
    """Runs of a key in the experiment of a run."""
    client = beside._client
    experiment = beside._ask(lambda: client.get_run(beside.id)).info.experiment_id
    return beside._ask(lambda: client.search_runs([experiment], _has_key(key)))


def _has_key(key: str) -> str:
    return f"tags.`{KEY}` = '{key}'"


def _forget_error(run: Run) -> None:
    """Take the reason of an earlier failure off a run that has succeeded."""

    def forget() -> None:
        if ERROR in run._client.get_run(run.id).data.tags:
            run._client.delete_tag(run.id, ERROR)

    run._ask(forget)


def _log_params(run: Run, params: dict[str, str]) -> None:
    """Log what the run does not have yet: its first job may have died before it had logged any.

    MLflow's parameters are fixed. One that a later job of the run changed (where it runs, not what it makes) becomes a tag.
    """
    from mlflow.entities import Param

    there = run._ask(lambda: run._client.get_run(run.id)).data.params
    missing = [Param(name, value) for name, value in params.items() if name not in there]
    for start in range(0, len(missing), 100):
        piece = missing[start : start + 100]
        run._ask(lambda piece=piece: run._client.log_batch(run.id, params=piece))
    changed = {f"linrep.now.{name}": value for name, value in params.items() if there.get(name, value) != value}
    if changed:
        run.tags(changed)


def _close(run: Run, error: BaseException) -> None:
    """Mark a run that failed or was interrupted. A server that does not answer now must not hide why the job ended."""
    interrupted = isinstance(error, KeyboardInterrupt)
    try:
        if not interrupted:
            run.tags({ERROR: str(error)[:LONGEST_PARAM]})
        run._ask(lambda: run._client.set_terminated(run.id, "KILLED" if interrupted else "FAILED"))
    except ServiceError as silent:
        error.add_note(f"({silent}; the run is not marked)")


def _close_open(client: "MlflowClient", uri: str, some: "Sequence[MlflowRun]", error: BaseException) -> None:
    """Mark those runs that are still open."""
    for one in some:
        if one.info.status == "RUNNING":
            _close(Run(one.info.run_id, uri, client), error)


def _shown(value: Any) -> str:
    """A parameter as text; a corpus in an object store may carry its key in its URI, which is nobody's to read here."""
    text = str(value)
    return (redacted(text) if "://" in text else text)[:LONGEST_PARAM]


def _for_spreadsheets(table: pa.Table) -> pa.Table:
    """The table with every text guarded that a spreadsheet would run as a formula, or take for a number or a date."""
    for i, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            cells = [None if cell is None else guarded(cell) for cell in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(cells, pa.string()))
        elif pa.types.is_list(kind):
            cells = [None if cell is None else guarded(" ".join(map(str, cell))) for cell in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(cells, pa.string()))
    return table.rename_columns([guarded(name) for name in table.column_names])
