"""The frame of the site: what there is, the paper's claims with what was found, where everything came from, and all figures."""

from collections.abc import Callable
from typing import Any

from linrep.artefact import Artefact
from linrep.explorer.claims import CLAIMS, STAGE_JOBS
from linrep.explorer.site.results import Results, headline
from linrep.explorer.site.shards import Site
from linrep.places import Place
from linrep.records import SUMMARY
from linrep.store.read import Store

ORDER = ("harvest", "regions", "probe", "steer", "sae", "evaluate", "tune", "sharing", "features", "interpret")
TABLES = {"probe": "probes", "steer": "steering", "sharing": "sharing", "sae": "saes", "tune": "saes", "evaluate": "saes",
          "features": "latents", "interpret": "latents"}  # fmt: skip
"""The page that shows a stage's evidence."""


def artefact_rows(site: Site, results: Results, command: Callable[[str], str]) -> list[dict[str, Any]]:
    """One record for each result of the workspace, in the order of the stages; its figures are copied to the site.

    Args:
        site: The site.
        results: The workspace's results.
        command: The shell command of a job, by the name of its script.
    """
    rows = [_row(site, results, "harvest", store.place, _of_store(store), command) for store in results.harvests.values()]
    for stage in ORDER[1:]:
        for one in results.artefacts[stage]:
            inner = results.numbers(stage, one)[1].place  # what speaks of edited runs are the verdicts, of SAEs the evaluation
            rows.append(_row(site, results, stage, one.place, _of_artefact(one), command, None if inner == one.place else inner))
    return rows


def claim_rows() -> list[dict[str, Any]]:
    """The paper's claims: which stages speak for or against each, and what their numbers do not show."""
    return [{"title": claim.title, "stages": list(claim.stages), "limits": claim.limits} for claim in CLAIMS]


def _of_store(store: Store) -> dict[str, Any]:
    head = store.manifest
    return {
        "digest": head.digest,
        "parents": {"model": str(head.model["digest"]), "corpora": str(head.corpora.get("digest", ""))},
        "created": head.created,
        "finished": head.finished,
        "notes": list(head.notes),
        "config": head.harvest,
        "counts": head.counts,
        "model": {key: head.model.get(key) for key in ("path", "class_name", "n_layers", "width")},
        "layers": list(head.layers),
    }


def _of_artefact(one: Artefact[Any]) -> dict[str, Any]:
    head = one.manifest
    return {
        "digest": head.digest,
        "parents": head.parents,
        "created": head.created,
        "finished": head.finished,
        "notes": list(head.notes),
        "config": head.config,
        "saes": head.saes,
    }


def _row(
    site: Site,
    results: Results,
    stage: str,
    place: Place,
    head: dict[str, Any],
    command: Callable[[str], str],
    inner: Place | None = None,
) -> dict[str, Any]:
    key = place.within(results.workspace)
    places = [place] if inner is None else [inner, place]
    figures = []
    for one in places:
        for name in (one / "figures").names():
            if name.endswith(".svg"):
                path = f"figures/{stage}/{one.name}/{name}"
                site.file(path, (one / "figures" / name).read_bytes())
                figures.append({"name": name.removesuffix(".svg"), "file": path})
    return {
        "key": key,
        "stage": stage,
        "name": place.name,
        "headline": next((found for found in map(headline, places) if found), []),
        "summary": "\n\n".join(text for text in map(_summary, places) if text),
        "figures": figures,
        "page": TABLES.get(stage),
        "command": command(STAGE_JOBS.get(stage, "train_sae" if stage == "evaluate" else stage)),
        **head,
    }


def _summary(place: Place) -> str:
    file = place / SUMMARY
    return file.read_bytes().decode("utf-8", "replace") if file.is_file() else ""
