"""What each stage's outcome says in the report: the headline, the one figure, what shows it, and where it comes from."""

from linrep.artefact import find
from linrep.cluster.run_control import ControlOutcome
from linrep.cluster.stage import Outcome
from linrep.explorer.claims import Finding
from linrep.explorer.examples import Draw, Shown, TopOf, of_explanations, of_features, of_probes, of_sharing, of_steering
from linrep.explorer.site.build import Built
from linrep.features.artefact import FEATURES_KIND, readable
from linrep.harvest.account import account
from linrep.harvest.artefact import Harvest
from linrep.places import Place, place
from schemas.features import FEATURE_EXAMPLES

StageOutcome = Outcome | ControlOutcome | Built
MAIN_FIGURES = {
    "probe": ("layers_class", "layers_"),
    "steer": ("trade", "layers_success", "layers_turned", "layers_p_target", "dose_"),
    "sae": ("front", "layers_fvu"),
    "features": ("",),
    "interpret": ("",),
    "tune": ("",),
    "sharing": ("sharing_poolings", "sharing_geometry", "sharing_"),
}
"""Beginnings of the names of a stage's figures, the best for the report first."""


def finding(stage: str, outcome: StageOutcome, workspace: Place, draw: Draw) -> Finding:
    """What a stage's outcome says in the report.

    Args:
        stage: Its name.
        outcome: What its job did.
        workspace: Where everything lies.
        draw: Gives small images of samples.
    """
    match outcome:
        case Outcome():
            here, name = outcome.artefact.place, outcome.artefact.name
            note, examples = _examples(stage, outcome, workspace, draw)
            return Finding(
                stage,
                here.within(workspace),
                name,
                outcome.shown.headline,
                _figure(stage, here, workspace),
                examples,
                note if examples else "",
                _facts(outcome),
            )
        case ControlOutcome():
            return Finding(stage, outcome.place.within(workspace), outcome.place.name, [])
        case Built():
            pages = outcome.index.within(workspace)
            return Finding(stage, pages, "", [], facts=[("pages to browse", f"{pages} in the workspace, opened from disk")])


def _figure(stage: str, here: Place, workspace: Place) -> str | None:
    names = [name for name in (here / "figures").names() if name.endswith(".png")]
    for beginning in MAIN_FIGURES.get(stage, ()):
        for name in names:
            if name.startswith(beginning):
                return (here / "figures" / name).within(workspace)
    return None


def _examples(stage: str, outcome: Outcome, workspace: Place, draw: Draw) -> Shown:
    made = outcome.artefact
    match stage:
        case "probe":
            return of_probes(made.table("probes"), made.table("classes"))
        case "steer":
            return of_steering(made.table("effects"), made.table("verdicts"), draw)
        case "features":
            return of_features(made.table("labels"), _top_of(made.place), draw)
        case "interpret":
            return of_explanations(made.table("explanations"), _top_of(_lies(workspace, made.about.features)), draw)
        case "sharing":
            return of_sharing(made.table())
        case _:
            return "", []


def _lies(workspace: Place, path: str) -> Place:
    """Where something lies by what an artefact says: its path in the workspace, or a whole address."""
    return place(path) if "://" in path or path.startswith("/") else workspace / path


def _top_of(features: Place) -> TopOf:
    there = find(FEATURES_KIND, features)
    if there is None or not there.complete:
        return lambda sae, layer, latent: FEATURE_EXAMPLES.empty_table()
    return lambda sae, layer, latent: readable(there).examples(sae, latent, latent + 1, layer)


def _facts(outcome: Outcome) -> list[tuple[str, str]]:
    """What the provenance says of a harvest: the model, what was read, and what was skipped and why."""
    made = outcome.artefact
    if not isinstance(made, Harvest):
        return []
    manifest, counts = made.store.manifest, made.store.manifest.counts
    model, layers = manifest.model, ", ".join(map(str, manifest.layers))
    return [
        ("model", f"{model['path']}: {model['n_layers']} blocks, width {manifest.width}, digest {model['digest']}"),
        ("layers", f"{layers} (layer k is the residual stream entering block k)"),
        *(("corpus", line) for line in account(manifest.corpora, made.store.commits)),
        ("harvested", f"{counts['n_samples']:,} samples, {counts['n_tokens']:,} tokens"),
        ("skipped", f"{counts['n_skipped']:,} samples"),
    ]
