"""What every job does: locked, resumed, computed, watched, finished, tracked, and marked complete last."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import pyarrow as pa

from linrep import tracking
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress, announce
from linrep.cluster.ready import check_services
from linrep.cluster.session import cluster
from linrep.kind import Kind, UnitCommit
from linrep.places import Place, remove_unfinished
from linrep.records import MANIFEST, SUMMARY

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Product(Protocol):
    """What a stage makes, as far as its life goes: an artefact, or a harvest's store, which has a format of its own."""

    @property
    def kind(self) -> Kind[Any]:
        """Its kind."""
        ...

    @property
    def place(self) -> Place:
        """Where it lies."""
        ...

    @property
    def name(self) -> str:
        """Name of the recipe and digest."""
        ...

    @property
    def digest(self) -> str:
        """Names everything that decides a number."""
        ...

    @property
    def parents(self) -> Mapping[str, str]:
        """Digests of what it is made from, by stage."""
        ...

    @property
    def params(self) -> Mapping[str, Any]:
        """What the recipe says of it."""
        ...

    @property
    def units(self) -> Sequence[str]:
        """Names of its units."""
        ...

    @property
    def manifest(self) -> Any:
        """Its head, a dataclass."""
        ...

    def there(self) -> Any:
        """The one on disk, begun or complete; None where there is none."""
        ...

    def covers(self, planned: Any, /) -> bool:
        """Whether this one is complete and has all that is planned."""
        ...

    def begun(self) -> Any:
        """Write the head, or take over the one on disk."""
        ...

    def todo(self) -> Sequence[str]:
        """Units that are not committed."""
        ...

    def closing(self, **about: Any) -> Any:
        """As it will be once it is complete."""
        ...

    def close(self) -> None:
        """Write that it is complete: the very last write."""
        ...


Made = TypeVar("Made", bound=Product)


@dataclass(frozen=True)
class Counts:
    """How the progress display counts.

    Attributes:
        unit: What is counted.
        rate: What the speed is counted in.
        total: How many units of it there are; None for the artefact's units.
        done: How many of them were done before; None for the committed units.
    """

    unit: str
    rate: str
    total: int | None = None
    done: int | None = None


@dataclass(frozen=True)
class Step:
    """Work that is done, where it is reported more finely than by whole units.

    Attributes:
        amount: How much of what the display counts.
        work: How much of what its speed is counted in.
    """

    amount: int = 0
    work: int = 0


@dataclass(frozen=True)
class Records:
    """What MLflow keeps of an artefact.

    Attributes:
        metrics: By name, the most important first. What there is for each layer is a curve, a mapping from layer to number; a
            count, or another number of the whole, is a number. See `tracking.Run.measures` for what MLflow's pages make of
            them. The first hundred are logged, the tables have all.
        tables: Tables by name.
        figures: Figures by name; they are also kept beside the results.
        texts: Further texts, by file name.
        models: Trained SAEs.
        harvests: Digests of harvests that are inputs of the run, beside those that the artefact is made from.
    """

    metrics: Mapping[str, float | Mapping[int, float]] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    figures: "Mapping[str, Figure]" = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[tracking.Model] = ()
    harvests: Sequence[str] = ()


@dataclass(frozen=True)
class Shown:
    """What people read when a job ends.

    Attributes:
        headline: The finding in sentences.
        lines: The main numbers; kept in `summary.txt`.
        next: What to do next: a word and a command.
        waiting: What must happen before the artefact is complete; None where it is.
    """

    headline: Sequence[str]
    lines: Sequence[str]
    next: Sequence[tuple[str, str]] = ()
    waiting: str | None = None


@runtime_checkable
class Stage(Protocol[Made]):
    """The science of a job. What it reads was resolved when it was planned; nothing here knows in which moment it was stopped."""

    @property
    def artefact(self) -> Made:
        """What it makes."""
        ...

    @property
    def counts(self) -> Counts:
        """How its progress is counted."""
        ...

    @property
    def on_ray(self) -> bool:
        """Whether `compute` needs a cluster."""
        ...

    def of(self, artefact: Made) -> "Stage[Made]":
        """The same stage of the artefact as it lies on disk: begun before, or complete."""
        ...

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Work through some units, on the cluster that this process is connected to."""
        ...

    def finish(self) -> Mapping[str, Any]:
        """Put the whole tables together; returns what only now can be said in the manifest."""
        ...

    def show(self) -> Shown:
        """What people read of the complete artefact."""
        ...

    def records(self) -> Records:
        """What is tracked of the complete artefact."""
        ...


@dataclass(frozen=True)
class Outcome(Generic[Made]):
    """What a job did.

    Attributes:
        artefact: What it made, complete unless `shown.waiting` says what is missing.
        n_new: Units that this run did.
        uri: Where its MLflow run is.
        shown: What people read of it.
    """

    artefact: Made
    n_new: int
    uri: str
    shown: Shown

    @property
    def text(self) -> str:
        """Headline and main numbers."""
        return text_of(self.shown)


def text_of(shown: Shown) -> str:
    """Headline and main numbers, as `summary.txt` has them."""
    return "\n".join([*shown.headline, *([""] if shown.headline else []), *shown.lines])


def run_stage(stage: Stage[Made], workspace: Place) -> Outcome[Made]:
    """Do what is missing of a stage's artefact; nothing, if it is complete.

    Args:
        stage: The stage, planned.
        workspace: Where everything lies.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    planned = stage.artefact
    check_services(workspace, planned.place)
    with sole_driver(planned.place):
        there = planned.there()
        if there is not None and there.covers(planned):
            return Outcome(there, 0, tracking.uri_of(workspace, there.place), stage.of(there).show())
        return _run(stage.of(planned.begun()), workspace)


def _run(stage: Stage[Made], workspace: Place) -> Outcome[Made]:
    begun = stage.artefact
    remove_unfinished(begun.place)
    todo = begun.todo()
    name, key = f"{begun.kind.stage} {begun.name}", tracking.key_of(workspace, begun.place)
    with tracking.run(workspace, begun.kind.stage, name, key, begun.params, begun.parents) as run:
        run.tags({"linrep.artefact": tracking.inside(workspace, begun.place), "linrep.digest": begun.digest})
        if run.page is not None:
            announce(begun.kind.stage, f"its run is {run.page}")
        if todo:
            # Ray starts only where there is work: finished results say so at once.
            with cluster() if stage.on_ray else nullcontext():
                _watch(stage, todo, run)
        stage = stage.of(begun.closing(**stage.finish()))
        shown = stage.show()
        _track(run, workspace, stage, shown)
    if shown.waiting is None:
        # Last, after the run is closed: a driver killed before this line tracks again when it resumes.
        stage.artefact.close()
    return Outcome(stage.artefact, len(todo), run.uri, shown)


def _watch(stage: Stage[Any], todo: Sequence[str], run: tracking.Run) -> None:
    counts, n_units = stage.counts, len(stage.artefact.units)
    total = n_units if counts.total is None else counts.total
    done = n_units - len(todo) if counts.done is None else counts.done
    with Progress(stage.artefact.kind.stage, total, done, unit=counts.unit, rate=counts.rate) as progress:
        for event in stage.compute(todo, run):
            if isinstance(event, Step):
                progress.add(event.amount, event.work)
            else:
                progress.add(1 if counts.total is None else 0, event.work)


def _track(run: tracking.Run, workspace: Place, stage: Stage[Any], shown: Shown) -> None:
    """Keep what is read beside the results, and the same in the run."""
    place, records, text = stage.artefact.place, stage.records(), text_of(shown) + "\n"
    (place / SUMMARY).write_bytes(text.encode())
    run.describe(" ".join(shown.headline))
    run.text(text, SUMMARY)
    run.measures(records.metrics)
    run.json(asdict(stage.artefact.manifest), MANIFEST)
    for name, table in records.tables.items():
        if len(table):
            run.table(f"tables/{name}", table)
    for name, figure in records.figures.items():
        run.figure(f"figures/{name}.png", keep_figures(place, name, figure))
    for name, content in records.texts.items():
        run.text(content, name)
    tracking.log_models(run, records.models)
    if records.harvests:
        run.reads(workspace, stage.artefact.kind.stage, records.harvests)


def keep_figures(place: Place, name: str, figure: "Figure") -> "Figure":
    """Write a figure beside the results, as SVG and PNG; the same figure gives the same bytes. Returns the figure."""
    import io

    import matplotlib

    for form in ("svg", "png"):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "linrep"}):
            figure.savefig(buffer, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
        (place / "figures" / f"{name}.{form}").write_bytes(buffer.getvalue())
    return figure
