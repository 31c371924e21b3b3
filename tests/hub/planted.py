"""A workspace with SAEs, their evaluation, probes, a recipe and a report, as no stage has made them; its names are hostile."""

from pathlib import Path

from linrep import artefact
from linrep.artefact import write_unit
from linrep.places import place
from linrep.sae.artefact import EVALUATIONS, SAES, EvaluationAbout, SaeAbout, Saes
from linrep.sae.formats import saelens
from linrep.sae.formats.sums import sums_of
from linrep.sae.study import Evaluation, Grid, SaeConfig
from linrep.store.tables import table_of
from schemas.saes import TRAINING
from tests.explorer.site.planted import planted_probes
from tests.sae.saes import make_sae

HOME = "/srv/somebody/secret project"
HOSTILE = "<script>alert(1)</script> | [x](javascript:y) `z`\n---\nlicense: mit"
RECIPE = f"""name: t
corpora:
  images:
    kind: folder
    path: {HOME}/imagenet/train
  text:
    path: s3://bucket-of-mine/texts.jsonl
model:
  path: {HOME}/models/llava
interpret:
  backend: {{kind: chat, url: 'http://gpu-box.internal:8000/v1', model: m}}
"""
CONFIG = SaeConfig(layers=(2, 4), grid=Grid(sparsity=(16, 32)))
NAMES = ["topk-16-x8-s0", "topk-32-x8-s0"]


def planted_saes(workspace: Path, model: str = f"{HOME}/models/llava") -> Saes:
    """Complete SAEs of two layers, two a layer, which say that their model lies in a folder of somebody."""
    about = SaeAbout("harvests/t-feedbeef00", [2, 4], NAMES, 7, {"layer-002": ["image: 10 rows", HOSTILE]})
    here = artefact.plan(
        SAES, place(workspace), "t", decisive=0, parents={"harvest": "feedbeef00"}, config=CONFIG.model_dump(mode="json"),
        units=["layer-002", "layer-004"], about=about,
    ).begun()  # fmt: skip
    for layer in (2, 4):
        unit, sums = f"layer-{layer:03d}", {}
        for number, name in enumerate(NAMES):
            sae = make_sae("topk", True, seed=10 * layer + number)
            said = {"model_name": model, "hook_name": f"blocks.{layer - 1}.hook_resid_post", "layer": layer, "name": name}
            folder = here.folder(unit) / name
            saelens.write(folder, type(sae)(**{**vars(sae), "about": {**sae.about, **said}}))
            sums |= sums_of(folder, saelens.FILES)
        write_unit(here.place, here.folder(unit), unit, {"training": table_of([], TRAINING)}, 0, 1, {"sums": sums})
    closed = here.closing()
    closed.close()
    return closed


def planted_evaluation(workspace: Path, saes: Saes) -> None:
    """An evaluation of them whose numbers are known, and whose attribute has a hostile name."""
    here = artefact.plan(
        EVALUATIONS, saes.place, "t", decisive=0, parents={"sae": saes.digest}, config=Evaluation().model_dump(mode="json"),
        units=["all"], about=EvaluationAbout("saes", [2, 4], NAMES),
    ).begun()  # fmt: skip
    quality = [
        {"layer": layer, "sae": name, "modality": modality, "measure": measure, "value": value, "low": low, "high": high,
         "control": control}
        for layer in (2, 4) for name in NAMES
        for modality, measure, value, low, high, control in [
            ("image", "fvu", 0.25, None, None, 0.75), ("text", "fvu", 0.125, None, None, 0.625),
            ("image", "l0", 16.0, None, None, 16.0), ("text", "l0", 15.5, None, None, 16.0),
            ("both", "kl_spliced", 0.125, 0.0625, 0.25, 0.375),
        ]
    ]  # fmt: skip
    truth = [
        {"layer": 2, "sae": NAMES[0], "attribute": HOSTILE, "class_name": "boat", "latent": 3, "threshold": 0.5, "f1": 0.75,
         "control": 0.5, "auroc": 0.875, "auroc_control": 0.5, "n_test": 9}
    ]  # fmt: skip
    rows = {"quality": quality, "truth": truth}
    here.write("all", {name: table_of(rows.get(name, []), schema) for name, schema in EVALUATIONS.tables.items()}, 0.0, 1)
    here.finish()
    here.closing().close()


def planted_workspace(workspace: Path) -> Path:
    """All of it."""
    planted_evaluation(workspace, planted_saes(workspace))
    probes = planted_probes(workspace)
    (probes.place / "summary.txt").write_bytes(f"Class is read. {HOSTILE}\n\nmore".encode())
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "t-0123456789.yaml").write_text(RECIPE)
    (workspace / "report.html").write_text(f"<p>{workspace}</p>")
    (workspace / "report.md").write_text("# Report")
    return workspace
