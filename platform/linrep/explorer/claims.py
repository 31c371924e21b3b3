"""The report of a recipe: the paper's four claims, each with its finding, a figure, examples, and what it does not show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What a stage found, as the report needs it.

    Attributes:
        stage: Its name.
        place: Where its results lie, relative to the workspace.
        name: Name and digest of its artefact.
        headline: The finding in sentences.
        figure: The one figure, relative to the workspace; None where there is none.
        examples: Lines that show it.
    """

    stage: str
    place: str
    name: str
    headline: Sequence[str]
    figure: str | None = None
    examples: Sequence[str] = ()


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


def report_lines(
    recipe: str, command: Callable[[str], str], findings: Mapping[str, Finding], setting: Sequence[str] = ()
) -> list[str]:
    """The report in Markdown; paths of figures are relative to the workspace, where it lies.

    Args:
        recipe: Name of the recipe.
        command: The shell command of a job, by the name of its script.
        findings: By stage; a stage that did not run is left out.
        setting: What was harvested, in lines.
    """
    lines = [f"# {recipe}: what its residual stream shows", "", *setting, ""]
    for claim in CLAIMS:
        own = [findings[stage] for stage in claim.stages if stage in findings]
        lines += [f"## {claim.title}", ""]
        if not own:
            jobs = ", ".join(f"jobs/{STAGE_JOBS.get(stage, stage)}.py" for stage in claim.stages)
            lines += [f"Not measured: the recipe does not ask for it, or it was stopped before ({jobs}).", ""]
            continue
        lines += [f"**{' '.join(own[0].headline)}**" if own[0].headline else "", ""]
        for other in own[1:]:
            if other.headline:
                lines += [f"*{other.stage}*: {' '.join(other.headline)}", ""]
        figure = next((one.figure for one in own if one.figure), None)
        lines += [f"![{claim.title}]({figure})", ""] if figure else []
        examples = next((one.examples for one in own if one.examples), ())
        lines += [*(f"- {line}" for line in examples), ""] if examples else []
        lines += [f"What this does not show: {claim.limits}", "", "```bash"]
        lines += [command(STAGE_JOBS.get(one.stage, one.stage)) for one in own]
        lines += ["```", "", *(f"`{one.stage}` {one.name}: {one.place}" for one in own), ""]
    return lines
