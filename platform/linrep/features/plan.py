"""A features job before it runs: where its artefact will lie, what decides its name, and which runs of latents it takes."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from linrep.config import digest
from linrep.features.artefact import FeaturesManifest, Looked
from linrep.features.study import Study, Unit
from linrep.places import Place
from linrep.store.layout import MODALITIES, Modality
from linrep.store.manifest import now
from schemas.features import VERSION


@dataclass(frozen=True)
class FeaturesPlan:
    """A features job before it runs.

    Attributes:
        place: The artefact.
        study: What to do.
        manifest: The manifest to start with.
    """

    place: Place
    study: Study
    manifest: FeaturesManifest = field(repr=False)


def plan_artefact(workspace: Place, name: str, study: Study, parents: dict[str, str]) -> FeaturesPlan:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
        parents: Digests of dictionaries, attributes and embeddings.
    """
    config = study.config
    parents = {"harvest": study.store.manifest.digest, **parents}
    # What dictionaries and embeddings hold counts, not where they lie; nor does it count in how many passes they are looked into.
    values = config.model_dump(mode="json", exclude={"dictionaries", "embeddings", "memory_gb"})
    values |= {"at": [d.layer for d in config.dictionaries]}
    key = digest(VERSION, parents, values)
    manifest = FeaturesManifest(
        name=name,
        digest=key,
        parents=parents,
        store=study.store.place.within(workspace),
        model=str(study.store.manifest.model.get("path", "")),
        config=config.model_dump(mode="json"),
        dictionaries=[asdict(own) for own in looked_into(study)],
        attributes={m: {a.name: list(a.values) for a in own} for m, own in study.known.attributes.items()},
        units={unit.name: _described(study, unit) for unit in study.units},
        codes={unit.coder: _counted(study, unit) for unit in study.units},
        created=now(),
    )
    return FeaturesPlan(workspace / "features" / f"{name}-{key}", study, manifest)


def resumed(plan: FeaturesPlan, manifest: FeaturesManifest) -> FeaturesPlan:
    """The plan of a study that was begun before, in the runs of latents that it was begun with, whatever the memory is now."""
    cut: dict[str, list[tuple[int, int]]] = {}
    for unit in manifest.units.values():
        cut.setdefault(unit["coder"], []).append((unit["first"], unit["last"]))
    study = replace(plan.study, cut={coder: tuple(own) for coder, own in cut.items()})
    return replace(plan, study=study, manifest=replace(plan.manifest, created=manifest.created, units=manifest.units))


def looked_into(study: Study) -> list[Looked]:
    """The dictionaries of a study, controls after their own."""
    return [
        Looked(study.config.dictionaries[unit.dictionary].layer, study.of(unit).name, unit.coder, study.of(unit).coder.n_latents)
        for unit in {unit.coder: unit for unit in study.units}.values()
    ]


def _described(study: Study, unit: Unit) -> dict[str, Any]:
    layer = study.config.dictionaries[unit.dictionary].layer
    return {"coder": unit.coder, "layer": layer, "dictionary": study.of(unit).name, "first": unit.run[0], "last": unit.run[1]}


def _counted(study: Study, unit: Unit) -> dict[Modality, int]:
    files = [modality for part in study.parts(unit) for modality, _ in part]
    return {modality: files.count(modality) for modality in MODALITIES}
