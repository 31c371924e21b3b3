"""The report of a recipe as a structure: the paper's four claims, each with its finding, a figure, examples, and its limits.

`linrep.explorer.report_text` and `linrep.explorer.report_page` write it down. All texts in it are plain: data, never markup.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from linrep.explorer.drawing import Drawing


@dataclass(frozen=True)
class Thumbnail:
    """A small image in a report.

    Attributes:
        drawn: The image.
        alt: What it shows, in words.
    """

    drawn: Drawing = field(repr=False)
    alt: str


@dataclass(frozen=True)
class Example:
    """One thing that shows a finding.

    Attributes:
        text: What it is.
        images: Beside the text.
    """

    text: str
    images: Sequence[Thumbnail] = ()


@dataclass(frozen=True)
class Finding:
    """What a stage found, as the report needs it.

    Attributes:
        stage: Its name.
        place: Where its results lie, relative to the workspace.
        name: Name and digest of its artefact; empty where it made none.
        headline: The finding in sentences.
        figure: The one figure, a PNG relative to the workspace; None where there is none.
        examples: What shows it.
        note: What all the examples are.
        facts: What the provenance says of it: a word, and what it is.
    """

    stage: str
    place: str
    name: str
    headline: Sequence[str]
    figure: str | None = None
    examples: Sequence[Example] = ()
    note: str = ""
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        title: The claim in a sentence.
        stages: Stages that speak for or against it; the figure and the examples are the first's that has some.
        limits: What the stages' numbers do not show.
    """

    title: str
    stages: tuple[str, ...]
    limits: str


CLAIMS = (
    Claim(
        "1. Image classes can be read off the residual stream by linear probes",
        ("probe",),
        "That a class can be read does not show that the model uses it: claim 2 asks that. Scores are of held-out samples of the "
        "same corpus; shuffled labels show how much a probe of this size can read by chance.",
    ),
    Claim(
        "2. These directions are causal: adding one changes what the model says",
        ("steer",),
        "Answers are judged by the judge that the recipe names. An edit that turns an answer at one layer says little of how the "
        "unedited model uses that layer. Directions of other norms were not tried beyond the recipe's strengths.",
    ),
    Claim(
        "3. Sparse autoencoders find features of both modalities",
        ("sae", "features", "interpret", "tune"),
        "An SAE with a low FVU need not have latents that mean something; random directions stand beside every number for that "
        "reason. Explanations are scored on samples that the explainer did not see, by the backend that the recipe names.",
    ),
    Claim(
        "4. Image and text share more in deeper layers",
        ("sharing", "control"),
        "Measures of sharing differ in what they count, and pooled vectors hide single tokens. A null above zero, or an "
        "untrained model that shows the same, says that the corpus and the architecture alone give that much.",
    ),
)
STAGE_JOBS = {"sae": "train_sae", "tune": "tune_sae"}


@dataclass(frozen=True)
class Section:
    """A claim with what was found.

    Attributes:
        title: The claim in a sentence.
        headline: What the first of its stages found, in one sentence.
        beside: The other sentences of it.
        others: What its other stages found: name and finding.
        figure: A PNG, relative to the workspace; an SVG of the same name may lie beside it.
        figure_of: The stage that the figure is of.
        examples: What shows it.
        note: What all the examples are.
        limits: What the numbers do not show.
        commands: Shell commands that make it again.
        results: Stages that were measured, each with its artefact and where it lies.
        missing: Why nothing was measured; empty where something was.
    """

    title: str
    headline: str = ""
    beside: Sequence[str] = ()
    others: Sequence[tuple[str, str]] = ()
    figure: str | None = None
    figure_of: str = ""
    examples: Sequence[Example] = ()
    note: str = ""
    limits: str = ""
    commands: Sequence[str] = ()
    results: Sequence[tuple[str, str, str]] = ()
    missing: str = ""


@dataclass(frozen=True)
class Report:
    """A report, before it is written down.

    Attributes:
        title: What stands on top.
        setting: What was harvested, in sentences.
        sections: One for each claim.
        facts: Provenance: a word, and what it is.
        results: All artefacts: stage, name with digest, and where it lies.
        again: The shell command that makes everything, and this report.
    """

    title: str
    setting: Sequence[str]
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]]
    results: Sequence[tuple[str, str, str]]
    again: str


def report_of(
    recipe: str, command: Callable[[str], str], findings: Mapping[str, Finding], facts: Sequence[tuple[str, str]] = ()
) -> Report:
    """The report of a recipe.

    Args:
        recipe: Name of the recipe.
        command: The shell command of a job, by the name of its script.
        findings: By stage; a stage that did not run is left out.
        facts: What the provenance begins with.
    """
    harvest = findings.get("harvest")
    return Report(
        title=f"{recipe}: what its residual stream shows",
        setting=() if harvest is None else harvest.headline,
        sections=[_section(claim, command, [findings[stage] for stage in claim.stages if stage in findings]) for claim in CLAIMS],
        facts=[*facts, *(fact for one in findings.values() for fact in one.facts)],
        results=[(one.stage, one.name, one.place) for one in findings.values() if one.name],
        again=command("reproduce"),
    )


def _section(claim: Claim, command: Callable[[str], str], own: Sequence[Finding]) -> Section:
    if not own:
        jobs = ", ".join(f"jobs/{STAGE_JOBS.get(stage, stage)}.py" for stage in claim.stages)
        return Section(claim.title, missing=f"Not measured: the recipe does not ask for it, or it was stopped before ({jobs}).")
    drawn, shown = (next((one for one in own if getattr(one, what)), None) for what in ("figure", "examples"))
    return Section(
        title=claim.title,
        headline=next(iter(own[0].headline), ""),
        beside=own[0].headline[1:],
        others=[(one.stage, " ".join(one.headline)) for one in own[1:] if one.headline],
        figure=None if drawn is None else drawn.figure,
        figure_of="" if drawn is None else drawn.stage,
        examples=() if shown is None else shown.examples,
        note="" if shown is None else shown.note,
        limits=claim.limits,
        commands=[command(STAGE_JOBS.get(one.stage, one.stage)) for one in own],
        results=[(one.stage, one.name, one.place) for one in own],
    )
