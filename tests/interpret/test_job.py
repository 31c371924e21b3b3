"""The interpretation job against a chat server: asked once, resumed, cached, refused early, edited; a local model too."""

import base64
import csv
import io
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from linrep import artefact, tracking
from linrep.cluster.entry import run_job
from linrep.cluster.run_interpret import run_interpret
from linrep.errors import RecipeError, ServiceError, StoreError
from linrep.interpret.artefact import INTERPRETATIONS_KIND
from linrep.interpret.config import Local
from linrep.interpret.sheet import read_sheet
from linrep.interpret.views import Latent
from linrep.places import place
from tests.chat import says, serving
from tests.interpret.workspace import write_recipe


@pytest.fixture(scope="module")
def made(random_vlm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interpret")
    recipe = write_recipe(folder, random_vlm)
    with tracking.run(place(folder / "ws"), "made", "made", "made", {}):  # one database for all tests: a new one takes seconds
        pass
    return folder, recipe


@pytest.fixture
def server():
    with serving() as one:
        one.script = [answer]
        yield one


def answer(body):
    """Explains by a number of the question, and judges by the questions' lengths: no sense, but always the same."""
    parts = body["messages"][0]["content"]
    text = " ".join(part["text"] for part in parts if part["type"] == "text")
    found = re.search(r"Below are (\d+) numbered samples", text)
    if found is None:
        return says(json.dumps({"explanation": f"samples of kind {len(text) % 17}"}))
    return says(json.dumps([(len(text) + i) % 2 for i in range(int(found[1]))]))


def asking(recipe, server, **changes):
    backend = recipe.interpret.backend.model_copy(update={"url": f"http://127.0.0.1:{server.server_port}/v1"})
    return recipe.model_copy(update={"interpret": recipe.interpret.model_copy(update={"backend": backend, **changes})})


def workspace(made, tmp_path):
    """A workspace of the test's own, over the harvest and features of all."""
    for name in ("harvests", "corpora", "features", "mlflow.db"):
        (tmp_path / name).symlink_to(made[0] / "ws" / name)
    return place(tmp_path)


@pytest.mark.slow
def test_the_job_asks_once_resumes_and_then_has_nothing_to_do(made, server, tmp_path, capsys):
    ws, recipe = workspace(made, tmp_path), asking(made[1], server)
    # It dies on the way: after some answers the server refuses for good.
    answered = []

    def once(body):
        answered.append(json.dumps(body))
        return answer(body)

    server.script = [(502, "a gateway gave up"), *[once] * 25, (401, "no more")]
    with pytest.raises(ServiceError, match=r"refuses \(401\)"):
        run_interpret(recipe, ws)
    assert len(answered) == 25
    server.script = [once]
    first = run_interpret(recipe, ws)
    assert first.n_new > 0
    assert len(answered) == len(set(answered))  # what was answered is not asked again
    scores = pl.DataFrame(pl.from_arrow(first.artefact.table()))
    said = pl.DataFrame(pl.from_arrow(first.artefact.table("explanations")))
    assert len(said) == 6  # 3 latents of the SAE, 3 of its control
    assert set(said["sae"]) == {"sae", "sae/random"}
    assert set(said["source"]) == {"chat:m"}
    assert set(scores["task"]) == {"detection", "fuzzing"}
    assert set(scores["control"]) == {"own", "shuffled"}
    shuffled = scores.filter(pl.col("control") == "shuffled")
    assert (shuffled["partner"] != shuffled["latent"]).all()
    printed = capsys.readouterr().err
    estimate = int(re.search(r"will take about (\d+) calls", printed)[1])
    assert 0 <= estimate - len(answered) < 0.1 * estimate  # some latents find no other explanation to take
    spent = first.artefact.about.spent
    # What was paid for in the chunk that was cut off is counted, once: each call took 100 + 10 tokens, at 1 and 2 a million.
    assert spent["calls"] == len(answered)
    assert spent["uncounted"] == 1  # the model behind the gateway may have answered
    assert (spent["prompt_tokens"], spent["completion_tokens"]) == (100 * len(answered), 10 * len(answered))
    assert spent["cost"] == pytest.approx(len(answered) * (100 * 1.0 + 10 * 2.0) / 1e6)

    n, listed = len(server.asked), server.models
    server.models = (401, "{}")  # what is complete needs no server
    assert run_interpret(recipe, ws).n_new == 0
    server.models = listed
    # Without its commits everything is asked of the cache alone.
    here = first.artefact.place
    for name in (here / "commits").names():
        (tmp_path / "interpretations" / here.name / "commits" / name).unlink()
    manifest = tmp_path / "interpretations" / here.name / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "status": "running"}))
    with pytest.raises(StoreError, match="are not complete"):
        artefact.open(INTERPRETATIONS_KIND, here)
    again = run_interpret(recipe, ws)
    assert len(server.asked) == n
    for table in ("explanations", "scores", "answers"):
        assert again.artefact.table(table).equals(first.artefact.table(table))
    assert again.artefact.about.spent == pytest.approx(spent)

    # The same model at another address is the same model: nothing is asked again.
    with serving() as other:
        other.script = [once]
        assert run_interpret(asking(made[1], other), ws).n_new == 0
        shutil.rmtree(tmp_path / "interpretations")
        moved = run_interpret(asking(made[1], other), ws).artefact
        assert other.asked == []
        # On another account its answers cost nothing.
        fewer = run_interpret(asking(made[1], other, chunk_size=17), ws).artefact
    assert moved.place == here
    assert fewer.place != here
    assert (fewer.about.spent["calls"], fewer.about.spent["cost"]) == (0, 0)
    assert fewer.about.spent["cached"] > 0

    from mlflow import MlflowClient

    (run,) = MlflowClient(first.uri).search_runs(["1"], f"tags.`linrep.artefact` = 'interpretations/{here.name}'")
    assert {"linrep.parent.harvest", "linrep.parent.features"} <= run.data.tags.keys()
    names = {name.rpartition("_layer")[0] for name in run.data.metrics}
    assert {"mean/detection_image_own_sae", "mean/fuzzing_text_shuffled_sae/random"} <= names
    kept = {path.name for path in (made[0] / "ws" / "mlartifacts").rglob("*.*")}
    assert {"scores.parquet", "explanations.csv", "interpret_layer02.png", "summary.txt"} <= kept


@pytest.mark.slow
def test_images_are_sent_as_they_lie_in_the_corpus(made, server, tmp_path):
    recipe = asking(made[1], server)
    run_interpret(recipe, workspace(made, tmp_path))
    whole = set()
    for body in server.asked:
        parts = body["messages"][0]["content"]
        if "Say of each whether the unit fires somewhere" in parts[0]["text"]:
            for part in parts:
                if part["type"] == "image_url":
                    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                    whole.add(np.asarray(Image.open(io.BytesIO(data)))[::56, ::56].tobytes())
    assert whole
    files = (made[0] / "corpora" / "images").rglob("*.JPEG")
    images = (Image.open(file).convert("RGB") for file in files)
    sizes = [(p, -(-224 // max(p.size))) for p in images]
    there = {np.asarray(p.resize((p.width * f, p.height * f), Image.Resampling.NEAREST))[::56, ::56].tobytes() for p, f in sizes}
    assert whole <= there


@pytest.mark.slow
def test_explanations_go_out_as_csv_are_edited_and_come_back(made, server, tmp_path):
    ws, recipe = workspace(made, tmp_path), asking(made[1], server)
    first = run_interpret(recipe, ws)
    sheet = tmp_path / "edited.csv"
    rows = list(csv.DictReader((tmp_path / "interpretations" / first.artefact.place.name / "explanations.csv").open()))
    rows[0]["explanation"] = '=red "boats", and\nships'
    with sheet.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    n = len(server.asked)
    second = run_interpret(
        recipe.model_copy(update={"interpret": recipe.interpret.model_copy(update={"edited": str(sheet)})}), ws
    )
    assert second.artefact.place.name != first.artefact.place.name
    said = pl.DataFrame(pl.from_arrow(second.artefact.table("explanations")))
    (human,) = said.filter(pl.col("source") == "human").iter_rows(named=True)
    assert human["latent"] == int(rows[0]["latent"])
    assert human["explanation"] == '=red "boats", and ships'
    assert human["before"].startswith("samples of kind")
    scores = pl.DataFrame(pl.from_arrow(second.artefact.table()))
    assert set(scores.filter((pl.col("latent") == human["latent"]) & (pl.col("control") == "own"))["source"]) >= {"human"}
    new = [body["messages"][0]["content"][0]["text"] for body in server.asked[n:]]
    assert new
    assert all("red" in text or "samples of kind" in text for text in new)  # nothing is explained again
    # What goes out comes in: the same words, a formula's sign guarded on the way.
    back = read_sheet(second.artefact.place / "explanations.csv")
    assert back[Latent(2, human["sae"], human["latent"])] == human["explanation"]
    assert len(back) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "is no sheet"),
        ("layer,SAE,latent,explanation\ntwo,sae,1,x\n", "line 2: layer and latent should be numbers"),
        ("layer,SAE,latent,explanation\n2,sae,1,x\n2,sae,1,y\n", "line 3: latent 1 of sae stands twice"),
        ("layer,SAE,latent,explanation\n2,sae,999,x\n", "latent 999 of sae, layer 2, is not among those"),
    ],
)
def test_a_sheet_that_is_wrong_is_one_clear_line(made, server, tmp_path, text, message):
    (tmp_path / "sheet.csv").write_text(text)
    with pytest.raises(RecipeError, match=message):
        run_interpret(asking(made[1], server, edited=str(tmp_path / "sheet.csv")), workspace(made, tmp_path))
    assert server.asked == []


def test_trouble_costs_answers_or_the_run_but_never_a_false_answer(made, server, tmp_path):
    ws, recipe = workspace(made, tmp_path), asking(made[1], server, latents=1)
    server.script = [lambda body: answer(body) if "numbered" not in json.dumps(body) else says("I cannot say.")]
    found = run_interpret(recipe, ws).artefact
    scores = pl.DataFrame(pl.from_arrow(found.table()))
    assert scores["value"].null_count() == len(scores) > 0
    assert (scores["n_unanswered"] > 0).all()
    assert pl.DataFrame(pl.from_arrow(found.table("answers")))["said"].null_count() == len(found.table("answers"))
    # A server that goes away ends the run: the chunk stays open.
    server.script = [(503, "gone", ("Retry-After", "0"))]
    with pytest.raises(ServiceError, match=r"no longer answers .*503.*nothing is lost"):
        run_interpret(asking(made[1], server, latents=2), ws)


def test_what_is_missing_is_said_before_anything_starts(made, server, tmp_path, capsys, monkeypatch):
    recipe, ws = made[1], workspace(made, tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(asking(recipe, server).model_dump(mode="json")))

    def main(request):
        run_interpret(request.recipe, place(request.workspace))

    def said(*more, where=None):
        assert run_job("x", main, ["--config", str(file), "--workspace", str(where or ws), *more]) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "no server answers at http://127.0.0.1:9/v1" in said("--interpret.backend.url", "http://127.0.0.1:9/v1")
    server.models = (401, "{}")
    assert "refuses requests without a key: set OPENAI_API_KEY (401)" in said()
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    assert "refuses the key in OPENAI_API_KEY (401)" in said()
    server.models = (200, json.dumps({"data": [{"id": "other"}]}))
    assert "has no model 'm': it has other" in said()
    server.models = (404, "")
    assert re.search(
        r"would cost about [\d.]+ \(\d+ calls\), and interpret.backend.budget allows 0.00",
        said("--interpret.backend.budget", "1e-9"),
    )
    assert "needs interpret.scenes" in said("--interpret.backend", '{"kind": "truth"}')
    assert "jobs/features.py makes them" in said("--interpret.features", str(tmp_path / "nothing"))
    assert "are of harvest" in said("--harvest.seed", "3", "--features.saes", "[]")
    assert server.asked == []


def test_features_without_their_codes_are_refused_before_anything_is_asked(made, server, tmp_path):
    ws, recipe = workspace(made, tmp_path), asking(made[1], server)
    (tmp_path / "features").unlink()
    shutil.copytree(made[0] / "ws" / "features", tmp_path / "features")
    one = sorted((tmp_path / "features").rglob("codes/sae-00-random/text/*.parquet"))[0]
    kept = one.read_bytes()
    one.unlink()
    # Both the manifest and the commit of the codes must go, or the job would take them for whole.
    again = r"delete .*manifest\.json and .*commits/codes-sae-00{}\.json, and run jobs/features\.py with the same recipe"
    with pytest.raises(StoreError, match=rf"interpret: \d of \d files of codes are left in .*{again.format('-random')}"):
        run_interpret(recipe, ws)
    shutil.rmtree(one.parents[2])
    with pytest.raises(StoreError, match=rf"interpret: 0 of \d files of codes are left in .*{again.format('')}"):
        run_interpret(recipe, ws)
    assert server.asked == []
    one.parent.mkdir(parents=True)
    one.write_bytes(kept)


def test_a_local_model_says_something_and_its_silence_is_no_answer(made, random_vlm, tmp_path):
    local = Local(path=random_vlm.path, prompt="<image>\n{request}", max_new_tokens=3)
    interpret = made[1].interpret.model_copy(update={"backend": local, "latents": 1, "chunk_size": 8})
    found = run_interpret(made[1].model_copy(update={"interpret": interpret}), workspace(made, tmp_path)).artefact
    assert found.about.spent["calls"] > 0
    said = found.table("explanations").to_pylist()
    assert len(said) == 2
    assert all((row["explanation"] is None) == (row["error"] is not None) for row in said)
    assert {row["source"] for row in said} == {f"local:{random_vlm.path}"}
