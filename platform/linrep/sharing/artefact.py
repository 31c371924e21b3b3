"""The sharing results on disk: an artefact with a unit for each model and layer, and for each SAE, see `linrep.artefact`.

sharing/<name>-<digest>/
  units/trained-layer-003/sharing.parquet       rows of one unit; latents.parquet beside it, which only an SAE's unit fills
  units/trained-layer-003/left_out.parquet      values without parts of the data, which stay here
  units/trained-across/across.parquet           images at one layer beside texts at another, which only such a unit fills
  trends.parquet                                how each measure moves over layers, once all are there
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from linrep import artefact
from linrep.artefact import Artefact
from linrep.kind import Kind, UnitCommit
from linrep.places import Place
from linrep.sharing.across import AcrossMeasure
from linrep.sharing.config import SharingConfig
from linrep.sharing.intervals import Measure
from linrep.sharing.latent_lens import LensShare
from linrep.sharing.pooled import VIEWS
from linrep.sharing.steered import TURNED
from linrep.sharing.study import TRAINED, AcrossUnit, Study, Unit
from linrep.sharing.trends import trends
from linrep.store.apart import kept_apart
from linrep.store.layout import MODALITIES
from linrep.store.read import Store
from linrep.store.tables import table_of, write_table
from linrep.vlm.prompts import FIELDS, filled_in, prompts_differ
from schemas.sharing import SHARING, SHARING_ACROSS, SHARING_LATENTS, SHARING_LEFT_OUT, SHARING_LENS, SHARING_TRENDS, VERSION


@dataclass(frozen=True)
class SharingAbout:
    """What was compared.

    Attributes:
        stores: Where the activations lay, by model.
        pairs: Pairs of each store.
        classes: Classes of the concept level.
    """

    stores: dict[str, str]
    pairs: dict[str, int]
    classes: list[str]


LEFT_OUT, TRENDS, ACROSS, LENS = "left_out", "trends", "across", "lens"
SHARING_KIND = Kind(
    "sharing", "sharing", "sharing results", VERSION, SharingAbout,
    {"sharing": SHARING, "latents": SHARING_LATENTS, ACROSS: SHARING_ACROSS, LENS: SHARING_LENS},
    parts={LEFT_OUT: SHARING_LEFT_OUT}, whole={TRENDS: SHARING_TRENDS},
)  # fmt: skip
STEERING = "steering"
"""Among the parents: the steering results that were read."""


def prompt_notes(stores: Mapping[str, Store]) -> list[str]:
    """What is to be said of the prompts of the stores that are compared."""
    notes = [
        f"prompts of the {model} model's harvest differ: {one}"
        for model, store in stores.items()
        for one in prompts_differ(store.manifest.harvest)
    ]
    notes += [f"{model} model: {one}" for model, store in stores.items() for one in store.manifest.notes if "differ" not in one]
    asked = {model: [filled_in(store.manifest.harvest)[name] for name in FIELDS] for model, store in stores.items()}
    if len(set(map(tuple, asked.values()))) > 1:
        notes.append("the models were given different prompts: " + "; ".join(f"{m} {p}" for m, p in asked.items()))
    return notes


def plan_results(
    workspace: Place,
    name: str,
    study: Study,
    weights: tuple[str, ...] = (),
    steering: str | None = None,
    origins: tuple[dict[str, Any], ...] = (),
    attributes: str | None = None,
) -> Artefact[SharingAbout]:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
        weights: Digest of each SAE's weights.
        steering: Digest of the steering results, if any were read.
        origins: What each SAE says that it is of.
        attributes: Digest of the table of attributes, if there is one.
    """
    config: SharingConfig = study.config
    parents = {("harvest" if model == TRAINED else model): store.manifest.digest for model, store in study.stores.items()}
    parents |= {f"sae-{i}": own for i, own in enumerate(weights)}
    parents |= {} if steering is None else {STEERING: steering}
    parents |= {} if study.objects is None else {"regions": study.objects.regions.digest}
    # What stores, SAEs and steering results hold counts, not where they lie.
    values = config.model_dump(mode="json", exclude={"untrained", "saes", "own", "steering", "poolings", "across"})
    values |= {"layers": list(study.layers), "at": [[d.model, d.layer, d.insist] for d in config.saes]}
    values |= {
        "poolings": dict(study.poolings),
        "across": list(study.across),
        "lenses": {model: own.model is not None for model, own in study.lenses.items()},
        "attributes": attributes,
    }
    values |= {"steered": [[layer, repr(own)] for layer, own in study.steered.items()]}
    return artefact.plan(
        SHARING_KIND,
        workspace,
        name,
        decisive=values,
        parents=parents,
        config=config.model_dump(mode="json"),
        units=[unit.name for unit in study.units],
        about=SharingAbout(
            stores={model: store.place.within(workspace) for model, store in study.stores.items()},
            pairs={model: len(pairs) for model, pairs in study.pairs.items()},
            classes=list(study.pairs[TRAINED].classes),
        ),
        saes=origins,
        notes=[*prompt_notes(study.stores), *study.notes],
    )


def rows_of(
    study: Study, unit: Unit, level: str, measures: Sequence[Measure], parents: dict[str, str], more: tuple[str, ...] = ()
) -> list[dict[str, object]]:
    """Measures as rows of the `SHARING` contract; what is not finite becomes null.

    Args:
        study: What is compared.
        unit: Of which the measures are.
        level: Of the measures.
        measures: The numbers.
        parents: Digests of harvests and SAEs, and of what else was read.
        more: Which of them the rows name beside their harvest and their SAE.
    """
    store = study.stores[unit.model]
    sae = None if unit.sae is None else study.latents[unit.sae][unit.control].name
    own = [store.manifest.digest, *([parents[f"sae-{unit.sae}"]] if unit.sae is not None else [])]
    own += [parents[name] for name in more]
    view = "tokens" if unit.sae is not None else VIEWS[unit.pooling]
    apart = [kept_apart(store, view, unit.layer, (modality,)).columns(modality) for modality in MODALITIES]
    rows = []
    for m in measures:
        halves = m.halves or (None, None)
        numbers = {
            "value": m.value, "low": m.low, "high": m.high, "null": m.null, "null_low": m.null_low, "null_high": m.null_high,
            "half_one": halves[0], "half_two": halves[1],
        }  # fmt: skip
        rows.append(
            {
                "model": unit.model,
                "layer": unit.layer,
                "level": level,
                "sae": sae,
                "metric": m.metric,
                **_which(unit, m),
                "n": m.n,
                "note": m.why,
                "parents": " ".join(own),
                **apart[0],
                **apart[1],
                **{name: None if v is None or v - v != 0 else v for name, v in numbers.items()},
            }
        )
    return rows


def _which(unit: Unit, m: Measure) -> dict[str, object]:
    """Tokens and attribute that a measure is of; what a steering job found is of no pair's rows."""
    made_of_rows = unit.sae is None and not m.metric.startswith(TURNED)
    return {"pooling": unit.pooling if made_of_rows else None, "attribute": m.attribute}


def left_out_rows(study: Study, unit: Unit, level: str, measures: Sequence[Measure]) -> list[dict[str, object]]:
    """Values without parts of the data as rows of the `SHARING_LEFT_OUT` contract."""
    sae = None if unit.sae is None else study.latents[unit.sae][unit.control].name
    head: dict[str, object] = {"model": unit.model, "layer": unit.layer, "level": level, "sae": sae}
    return [
        {**head, "metric": m.metric, **_which(unit, m), "part": part, "value": value if value - value == 0 else None}
        for m in measures
        for part, value in m.left_out.items()
    ]


def across_rows(study: Study, unit: AcrossUnit, found: Iterable[AcrossMeasure]) -> list[dict[str, object]]:
    """Measures as rows of the `SHARING_ACROSS` contract; what is not finite becomes null."""
    rows = []
    for one in found:
        m = one.measure
        numbers = {
            "value": m.value,
            "low": m.low,
            "high": m.high,
            "null": m.null,
            "null_low": m.null_low,
            "null_high": m.null_high,
        }
        rows.append(
            {
                "model": unit.model, "metric": m.metric, "pooling": unit.pooling, "attribute": m.attribute,
                "image_layer": one.image_layer, "text_layer": one.text_layer, "best": one.best, "n": m.n, "note": m.why,
                "parents": study.stores[unit.model].manifest.digest,
                **{name: None if v is None or v - v != 0 else v for name, v in numbers.items()},
            }
        )  # fmt: skip
    return rows


def lens_rows(study: Study, unit: AcrossUnit, found: Iterable[LensShare]) -> list[dict[str, object]]:
    """Shares as rows of the `SHARING_LENS` contract; what is not finite becomes null."""
    head: dict[str, object] = {"model": unit.model, "parents": study.stores[unit.model].manifest.digest}
    return [dict(head, **{name: None if v != v else v for name, v in asdict(one).items()}) for one in found]


def finish(here: Artefact[SharingAbout], base: int | None) -> None:
    """Put the tables together, and say how each measure moves over the layers.

    Args:
        here: The artefact; all units are committed.
        base: Layer that trends count from, None for the first above 0.
    """
    here.finish()
    left_out = [row for unit in here.units for row in here.part(unit, LEFT_OUT).to_pylist()]
    found = trends(here.table().to_pylist(), left_out, base)
    write_table(here.place, f"{TRENDS}.parquet", table_of(found, SHARING_TRENDS))


def write_unit(
    here: Artefact[SharingAbout],
    unit: Unit | AcrossUnit,
    rows: list[dict[str, object]],
    latents: list[dict[str, object]],
    left_out: list[dict[str, object]],
    pairs: int,
    seconds: float,
    across: Sequence[dict[str, object]] = (),
    lens: Sequence[dict[str, object]] = (),
) -> UnitCommit:
    """Write what a unit found, and commit it."""
    tables = {
        "sharing": table_of(rows, SHARING),
        "latents": table_of(latents, SHARING_LATENTS),
        ACROSS: table_of(list(across), SHARING_ACROSS),
        LENS: table_of(list(lens), SHARING_LENS),
        LEFT_OUT: table_of(left_out, SHARING_LEFT_OUT),
    }
    return here.write(unit.name, tables, seconds, pairs)
