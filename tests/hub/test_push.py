"""What is pushed is what was agreed to, once; it comes back as it was sent, and gives nothing of this machine away."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from linrep.hub.__main__ import main
from tests.hub.fake_hub import READS, WRITES, Answer, Asked, FakeHub
from tests.hub.planted import NAMES, planted_saes, planted_workspace

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "layer-002/topk-16-x8-s0/sae_weights.safetensors"


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    return planted_workspace(tmp_path / "ws")


def push(ws: Path, *more: str) -> int:
    return main(["push", "saes", str(ws), "me/saes", *more])


def held(hub: FakeHub) -> dict[str, bytes]:
    return {path: blob.content for path, blob in hub.of("me/saes").files.items() if not path.startswith(".")}


def uploads(hub: FakeHub) -> list[str]:
    return [one.path for one in hub.asked if one.method == "PUT"]


def test_without_yes_nothing_that_writes_reaches_the_hub(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(ws) == 1
    assert hub.changes == []
    assert {one.method for one in hub.asked} == {"GET"}
    out, err = capsys.readouterr()
    size = (next(ws.glob("saes/*")) / WEIGHTS).stat().st_size
    assert f"  new      {WEIGHTS}  {size / 1000:.1f} kB\n" in out
    assert f"{hub.url}/me/saes\n  a model repository; it is made now, private: only its owners see it\n" in out
    assert "4 SAEs of llava: 14 files" in out
    assert err == "Nothing was sent: repeat the command with --yes to send it.\n"


@pytest.mark.parametrize(("said", "sent"), [("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False), ("", False)])
def test_a_person_at_the_terminal_is_asked(
    hub: FakeHub, ws: Path, monkeypatch: pytest.MonkeyPatch, said: str, sent: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(said))
    assert push(ws) == (0 if sent else 1)
    assert bool(hub.changes) == sent


def test_what_is_pushed_comes_back_as_it_was(hub: FakeHub, ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(ws, "--yes") == 0
    sent = held(hub)
    trained = next(ws.glob("saes/*"))
    for layer in ("layer-002", "layer-004"):
        for name in NAMES:
            file = f"{layer}/{name}/sae_weights.safetensors"
            assert sent[file] == (trained / file).read_bytes()
    assert main(["pull", "me/saes", str(tmp_path / "got")]) == 0
    got = {
        path.relative_to(tmp_path / "got").as_posix(): path.read_bytes()
        for path in (tmp_path / "got").rglob("*")
        if path.is_file()
    }
    got.pop("pulled.json")
    assert got == sent
    out = capsys.readouterr().out
    assert (
        f"""SAE     40 latents, topk: --features.saes '[{{"path": "{tmp_path}/got/layer-002/{NAMES[0]}", "layer": 2}}]'""" in out
    )


def test_the_same_bytes_make_no_commit(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(ws, "--yes")
    before, asked = len(hub.of("me/saes").commits), len(hub.changes)
    capsys.readouterr()
    assert push(ws, "--yes") == 0
    assert capsys.readouterr().out == "Nothing to do: hf://me/saes holds these 14 files as they are here.\n"
    assert (len(hub.of("me/saes").commits), len(hub.changes)) == (before, asked)


def test_a_change_sends_what_changed(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(ws, "--yes")
    before = len(uploads(hub))
    capsys.readouterr()
    assert push(ws, "--yes", "--license", "apache-2.0") == 0
    out = capsys.readouterr().out
    assert "  changed  README.md" in out
    assert "1 files" in out
    assert "13 files are there as they are here" in out
    assert len(uploads(hub)) == before


def test_some_saes_are_chosen_and_those_before_stay_on_the_card(hub: FakeHub, ws: Path) -> None:
    assert push(ws, "--yes", "--layer", "4", "--sae", "topk-32-x8") == 0
    assert {path for path in held(hub) if path.endswith(".safetensors")} == {f"layer-004/{NAMES[1]}/sae_weights.safetensors"}
    assert push(ws, "--yes", "--layer", "2", "--sae", "topk-16-x8") == 0
    card = held(hub)["README.md"].decode()
    assert f"| layer-002/{NAMES[0]} | 2 |" in card
    assert f"Also here: `layer-004/{NAMES[1]}`" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sae", "topk-64"], "this recipe trains no SAE called topk-64"),
        (["--sae", "topk"], "several SAEs of this recipe are called topk"),
        (["--layer", "3"], "no SAEs of layer 3"),
        (["--recipe", "other"], "no complete SAEs of other"),
    ],
)
def test_what_is_not_there_is_named(
    hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert push(ws, "--yes", *words) == 1
    assert message in capsys.readouterr().err
    assert hub.changes == []


def test_the_card_has_the_numbers_with_their_controls(hub: FakeHub, ws: Path) -> None:
    push(ws, "--yes")
    row = (
        f"| layer-004/{NAMES[0]} | 4 | blocks.3.hook_resid_post | 40 | topk | 0.25 (0.75) | 0.125 (0.625) | 16 (16) | 15.5 (16) |"
    )
    assert f"{row} 0.125 [0.0625, 0.25] (0.375) |" in held(hub)["README.md"].decode()
    own = held(hub)[f"layer-004/{NAMES[0]}/README.md"].decode()
    assert "| kl_spliced, both | 0.125 [0.0625, 0.25] (random directions: 0.375) |" in own
    assert 'sae_lens.SAE.from_pretrained("me/saes", "layer-004/topk-16-x8-s0")' in own


def test_a_card_without_evaluation_says_so(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted_saes(tmp_path / "ws")
    assert push(tmp_path / "ws", "--yes") == 0
    assert "They were not evaluated." in held(hub)["README.md"].decode()
    assert "they are not evaluated: run jobs/train_sae.py" in capsys.readouterr().out


def test_the_hub_reads_the_card(hub: FakeHub, ws: Path, tmp_path: Path) -> None:
    words = ["--license", "apache-2.0", "--base-model", "llava-hf/llava-v1.6-mistral-7b-hf", "--dataset", "me/images"]
    push(ws, "--yes", *words)
    (tmp_path / "card.md").write_bytes(held(hub)["README.md"])
    card = ModelCard.load(tmp_path / "card.md")
    assert (card.data.library_name, card.data.license) == ("saelens", "apache-2.0")
    assert (card.data.base_model, card.data.datasets) == ("llava-hf/llava-v1.6-mistral-7b-hf", ["me/images"])
    assert "saelens" in card.data.tags
    assert b'"model_name": "llava-hf/llava-v1.6-mistral-7b-hf"' in held(hub)[f"layer-002/{NAMES[0]}/cfg.json"]


def test_hostile_names_stay_text(hub: FakeHub, ws: Path) -> None:
    """Of attributes, and of what was read: no element, no link, no second front matter."""
    push(ws, "--yes", "--license", "x\n---\nlicense: mit")
    cards = {path: content.decode() for path, content in held(hub).items() if path.endswith("README.md")}
    assert ModelCard(cards["README.md"]).data.license == "x\n---\nlicense: mit"
    for path, text in cards.items():
        body = text.partition("\n---\n")[2] if path == "README.md" else text
        tokens = MarkdownIt("commonmark").enable("table").parse(body)
        inner = [child for token in tokens for child in token.children or []]
        assert {token.type for token in [*tokens, *inner]} & {"html_block", "html_inline", "link_open", "hr"} == set()
    shown = MarkdownIt("commonmark").enable("table").render(cards[f"layer-002/{NAMES[0]}/README.md"])
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | [x](javascript:y) `z` --- license: mit" in shown


def test_no_path_of_this_machine_is_sent(hub: FakeHub, ws: Path) -> None:
    push(ws, "--yes")
    for path, content in held(hub).items():
        for secret in (b"secret project", b"bucket-of-mine", b"gpu-box", str(ws).encode()):
            assert secret not in content, path
    recipe = held(hub)["recipe.yaml"].decode()
    assert "path: train\n" in recipe
    assert "path: texts.jsonl\n" in recipe
    assert b'"model_name": "llava"' in held(hub)[f"layer-002/{NAMES[0]}/cfg.json"]


def test_the_token_is_said_nowhere(
    hub: FakeHub, ws: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(ws, "--yes")
    assert all(WRITES.encode() not in one.body for one in hub.asked)
    assert all(one.token == WRITES for one in hub.asked if not one.path.startswith("/uploads/"))
    monkeypatch.setenv("HF_TOKEN", "hf_forged_one")
    assert push(ws, "--yes") == 1
    out, err = capfd.readouterr()
    assert WRITES not in out + err
    assert "hf_forged_one" not in out + err
    assert "log in anew with `hf auth login`, or set HF_TOKEN" in err


def test_a_file_that_holds_the_token_is_not_sent(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ws / "recipes" / "t-0123456789.yaml"
    recipe.write_text(recipe.read_text() + f"# {WRITES}\ndemo: {{key: {WRITES}}}\n")
    assert push(ws, "--yes") == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: recipe.yaml holds this machine's token of the hub: nothing was sent")
    assert WRITES not in out + err
    assert hub.changes == []


@pytest.mark.parametrize(
    ("token", "message"), [(READS, "does not let the model repository me/saes be written (403"), (None, "log in")]
)
def test_a_token_that_may_not_write_is_refused(
    hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, token: str | None, message: str
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert push(ws, "--yes") == 1
    assert message in capsys.readouterr().err
    assert not hub.repositories


def test_who_may_see_it(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(ws, "--yes")
    assert hub.of("me/saes").private
    main(["push", "saes", str(ws), "me/shown", "--yes", "--public"])
    assert not hub.of("me/shown").private
    assert "it is made now, PUBLIC: everybody can see it" in capsys.readouterr().out
    main(["push", "saes", str(ws), "me/shown", "--license", "mit"])  # private is asked for, and the repository is public
    assert "it is there already, PUBLIC: everybody can see it" in capsys.readouterr().out


def test_a_card_that_was_written_by_hand_is_kept(hub: FakeHub, ws: Path) -> None:
    push(ws, "--yes")
    hub.of("me/saes").put({"README.md": b"by hand"})
    assert push(ws, "--yes", "--keep-card", "--license", "mit") == 0
    assert held(hub)["README.md"] == b"by hand"
    assert push(ws, "--yes") == 0
    assert held(hub)["README.md"] != b"by hand"


def test_what_somebody_else_sent_meanwhile_is_not_overwritten(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(ws, "--yes")

    def fault(one: Asked) -> Answer | None:
        if "/preupload/" in one.path:
            hub.of("me/saes").put({"README.md": b"theirs"})
        return None

    hub.fault = fault
    assert push(ws, "--yes", "--license", "mit") == 1
    assert "was changed by somebody else meanwhile (412): repeat" in capsys.readouterr().err
    assert held(hub)["README.md"] == b"theirs"


def test_a_push_that_is_killed_goes_on(hub: FakeHub, ws: Path, tmp_path: Path) -> None:
    """Weights that had arrived are not sent again, and nothing is to be seen before all is there."""

    def fault(one: Asked) -> Answer | None:
        if one.method == "PUT" and len(uploads(hub)) > 2:
            time.sleep(60)
        return None

    hub.fault = fault
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": WRITES, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
           "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}  # fmt: skip
    words = [sys.executable, "-m", "linrep.hub", "push", "saes", str(ws), "me/saes", "--yes"]
    with subprocess.Popen(words, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as killed:
        deadline = time.monotonic() + 120
        while len(hub.stored) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    assert len(hub.of("me/saes").commits) == 1
    hub.fault = lambda one: None
    arrived = {f"/uploads/{oid}" for oid in hub.stored}
    assert len(arrived) >= 2
    hub.asked.clear()
    assert push(ws, "--yes") == 0
    assert not arrived & set(uploads(hub))
    assert len(uploads(hub)) == 4 - len(arrived)
    assert len(held(hub)) == 14


def test_a_hub_that_is_not_there_is_one_line(
    hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert push(ws, "--yes") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("error: HF_HUB_OFFLINE is set, so the hub is not asked for the model repository me/saes")


def test_a_repository_name_must_be_one(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("saes", "me/saes/more", "../x", "me/saes@v1"):
        assert main(["push", "saes", str(ws), name, "--yes"]) == 1
        assert capsys.readouterr().err.startswith("error: ")
    assert hub.asked == []


def test_several_recipes_are_told_apart(hub: FakeHub, ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.rename(planted_saes(tmp_path / "other").place.path, ws / "saes" / "t-0123456789")
    assert push(ws) == 1
    assert "holds SAEs of several recipes, name one with --recipe" in capsys.readouterr().err
