"""All stages of a recipe, one after another in the order in which they need each other, and a report at the end, in two forms."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linrep import __version__, tracking
from linrep.cluster.control import CONTROL
from linrep.cluster.findings import StageOutcome, finding
from linrep.cluster.progress import within
from linrep.cluster.run_control import run_control
from linrep.cluster.run_explore import run_explore
from linrep.cluster.run_features import run_features
from linrep.cluster.run_harvest import run_harvest
from linrep.cluster.run_interpret import run_interpret
from linrep.cluster.run_probe import run_probe
from linrep.cluster.run_regions import run_regions
from linrep.cluster.run_sharing import run_sharing
from linrep.cluster.run_steer import run_steer
from linrep.cluster.run_train_sae import run_train_sae
from linrep.cluster.run_tune_sae import run_tune_sae
from linrep.cluster.stage import Outcome
from linrep.cluster.thumbnails import drawer
from linrep.config import digest
from linrep.errors import RecipeError
from linrep.explorer.claims import Finding, Report, report_of
from linrep.explorer.examples import Draw, no_images
from linrep.explorer.report_page import report_page, unfinished_page
from linrep.explorer.report_text import report_text, unfinished_text
from linrep.explorer.site.build import Built
from linrep.fields import nearest
from linrep.harvest.artefact import Harvest
from linrep.places import Place
from linrep.recipe import Recipe

REPORT, PAGE = "report.md", "report.html"
LOGGED = 300_000_000
"""Bytes of a site that MLflow keeps, at most; a larger one is only in the workspace."""


Command = Callable[[str], str]
"""Gives the shell command of a job by the name of its script."""


@dataclass(frozen=True)
class Part:
    """A stage of a recipe.

    Attributes:
        name: Its name.
        run: Its job.
        share: Of the time that all stages take, on the demo: for the time that is left, and for nothing else.
    """

    name: str
    run: Callable[[Recipe, Place, Command], StageOutcome]
    share: float


def _alone(run: Callable[[Recipe, Place], StageOutcome]) -> Callable[[Recipe, Place, Command], StageOutcome]:
    """The job of a stage that says no commands of other jobs."""
    return lambda recipe, workspace, command: run(recipe, workspace)


PARTS = (
    Part("harvest", _alone(run_harvest), 0.07),
    Part("regions", _alone(run_regions), 0.01),
    Part("probe", _alone(run_probe), 0.05),
    Part("steer", _alone(run_steer), 0.13),
    Part("sae", _alone(run_train_sae), 0.27),
    Part("tune", _alone(run_tune_sae), 0.05),
    Part("control", _alone(run_control), 0.15),
    Part("sharing", _alone(run_sharing), 0.11),
    Part("features", _alone(run_features), 0.03),
    Part("interpret", _alone(run_interpret), 0.09),
    Part("explore", run_explore, 0.04),
)
NAMES = tuple(part.name for part in PARTS)


@dataclass(frozen=True)
class Reproduction:
    """What was done.

    Attributes:
        findings: By stage.
        n_new: Stages that had work to do.
        report: Where the report lies, in Markdown.
        page: Where the same lies as one HTML file.
        pages: The first page of the explorer; None where it was not made.
    """

    findings: dict[str, Finding]
    n_new: int
    report: Place
    page: Place
    pages: Place | None = None


def asked(recipe: Recipe, until: str | None = None, only: str | None = None) -> tuple[Part, ...]:
    """The stages that a recipe asks for: those that have a section in it, and the control where sharing is to have it.

    Args:
        recipe: The experiment.
        until: The last one to run.
        only: The one to run.

    Raises:
        RecipeError: There is no such stage, or the recipe does not ask for it.
    """
    sections = recipe.model_fields_set | {"harvest", "explore"}
    if "sharing" in sections and recipe.sharing.untrained == CONTROL:
        sections = sections | {"control"}
    if "features" in sections and not recipe.features.saes:
        sections = sections - {"features", "interpret"}
    if recipe.regions is None:
        sections = sections - {"regions"}
    parts = tuple(part for part in PARTS if part.name in sections)
    there = [part.name for part in parts]
    for option, name in (("--until", until), ("--only", only)):
        if name is not None and name not in there:
            what = "this recipe has no section for it" if name in NAMES else "there is no such stage"
            near = nearest(name, there) if name not in NAMES else []
            hint = f"did you mean {option} {near[0]}?" if near else f"name one of {', '.join(there)}"
            raise RecipeError(f"{option} {name}: {what}; {hint}")
    if only is not None:
        return tuple(part for part in parts if part.name == only)
    if until is not None:
        return parts[: there.index(until) + 1]
    return parts


def reproduce(
    recipe: Recipe,
    workspace: Place,
    command: Command,
    parts: Sequence[Part],
    say: Callable[[str], None] | None = None,
    alone: bool = False,
) -> Reproduction:
    """Run some stages, each of which does what is missing of it, and write the report.

    In MLflow the stages' runs lie below one run. While stages work, both forms of the report say that it is not finished; they
    are written last.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        command: The shell command of a job, by the name of its script.
        parts: The stages, in their order.
        say: Gets a line at a time on how far it is; standard error if None.
        alone: The stages were asked for without those before them. A report of them would lack the others: none is written, and
            one that is there says that it is not finished if they had work to do.

    Raises:
        LinrepError: Something that the user can mend; the message says what. What is complete stays so.
    """
    say = _say if say is None else say
    findings: dict[str, Finding] = {}
    clock, n_new, report = Clock(parts), 0, workspace / REPORT
    values = recipe.model_dump(mode="json", exclude={"pool"})
    name, key = f"reproduce {recipe.name}", tracking.key_of(workspace, report, digest(values))
    draw: Draw = no_images
    site: Built | None = None
    again = command("reproduce")
    unfinished = {REPORT: unfinished_text(recipe.name, again), PAGE: unfinished_page(recipe.name, again)}
    with tracking.whole(workspace, "reproduce", name, key, values, lambda: _write(workspace, unfinished)) as whole:
        for number, part in enumerate(parts, 1):
            say(f"reproduce: stage {number} of {len(parts)}, {part.name}{clock.left(part)}")
            clock.begin()
            with within(f"{number}/{len(parts)} "):
                outcome = part.run(recipe, workspace, command)
            n_new += bool(outcome.n_new)
            clock.end(part, bool(outcome.n_new))
            if isinstance(outcome, Outcome) and isinstance(outcome.artefact, Harvest):
                draw = drawer(outcome.artefact)
            site = outcome if isinstance(outcome, Built) else site
            findings[part.name] = finding(part.name, outcome, workspace, draw)
            for line in findings[part.name].headline:
                say(f"  {line}")
        written = _written(report_of(recipe.name, command, findings, _facts(recipe, values)), workspace)
        speaks = not (set(NAMES) - {"harvest", "explore"}).isdisjoint(findings)
        told_anew = speaks and any(_bytes(workspace / file) != text.encode() for file, text in written.items())
        changed = whole.begun or told_anew or (site is not None and site.new)
        is_new = changed and not alone
        if is_new:
            run = whole.run()
            run.describe("\n\n".join(f"**{stage}** {' '.join(one.headline)}" for stage, one in findings.items() if one.headline))
            for file, text in written.items():
                run.text(text, file)
            if site is not None and site.size <= LOGGED:
                run.folder(site.index.parent, site.index.parent.name)
    if is_new:
        _write(workspace, written)
    return Reproduction(findings, n_new, report, workspace / PAGE, None if site is None else site.index)


def _written(report: Report, workspace: Place) -> dict[str, str]:
    """Both forms of a report, by the names of their files."""
    return {REPORT: report_text(report), PAGE: report_page(report, lambda path: _bytes(workspace / path))}


def _write(workspace: Place, texts: Mapping[str, str]) -> None:
    for file, text in texts.items():
        (workspace / file).write_bytes(text.encode())


def _bytes(file: Place) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _facts(recipe: Recipe, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What decides the numbers and is no artefact: the recipe, and the code that wrote the report."""
    git = tracking.git()
    commit = f", commit {git['git.commit']}{' with changes' if git['git.changed'] == 'true' else ''}" if git else ""
    return [
        ("recipe", f"{recipe.name}, digest {digest(values)}; the workspace keeps it in recipes/"),
        ("report written by", f"line-of-sight {__version__}{commit}; each run in MLflow names the commit that computed it"),
    ]


class Clock:
    """How much time is gone, and about how much is left; no number depends on it.

    Args:
        parts: The stages that are to run.
        now: Seconds on a clock.
    """

    def __init__(self, parts: Sequence[Part], now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._parts, self._start = now, list(parts), now()
        self._began = self._start
        self._worked: list[tuple[float, float]] = []

    def begin(self) -> None:
        """A stage begins."""
        self._began = self._now()

    def end(self, part: Part, is_new: bool) -> None:
        """It has ended; one that had nothing to do says nothing of how fast this machine is."""
        if is_new:
            self._worked.append((part.share, self._now() - self._began))

    def left(self, part: Part) -> str:
        """What to say of the time before a stage begins."""
        gone = self._now() - self._start
        text = f"; {_minutes(gone)} gone" if gone >= 1 else ""
        if self._worked:
            share, seconds = (sum(column) for column in zip(*self._worked, strict=True))
            rest = sum(other.share for other in self._parts[self._parts.index(part) :])
            text += f", about {_minutes(seconds / share * rest)} left"
        return text


def planned_lines(recipe: Recipe, workspace: Place, parts: Sequence[Part]) -> Iterator[str]:
    """What would run, and what lies there already, with sizes; nothing is made.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        parts: The stages.
    """
    folders = {"harvest": "harvests", "probe": "probes", "steer": "steering", "sae": "saes", "tune": "tunes", "control": "models",
               "sharing": "sharing", "features": "features", "interpret": "interpretations", "explore": "",
               "regions": "regions"}  # fmt: skip
    for part in parts:
        folder = workspace / folders[part.name]
        own = (f"{recipe.name}-", f"{CONTROL}-") if part.name != "explore" else ("explorer",)
        there = [name for name in folder.names() if name.startswith(own)]
        size = sum(n for name in there for _, n in (folder / name).walk())
        lies = f"{len(there)} in {folder}, {size / 1e6:,.1f} MB" if there else "nothing there yet"
        yield f"  {part.name:10} {lies}; it does what is missing" if there else f"  {part.name:10} {lies}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
