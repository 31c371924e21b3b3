"""Results come back as a workspace that opens; what a repository of somebody else holds cannot reach out of its folder."""

from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

import linrep
from linrep.hub.__main__ import main
from tests.hub.fake_hub import READS, FakeHub
from tests.hub.planted import planted_workspace


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    return planted_workspace(tmp_path / "ws")


def push(ws: Path, *more: str) -> int:
    return main(["push", "results", str(ws), "me/results", "--yes", *more])


def held(hub: FakeHub, kind: str = "dataset", name: str = "me/results") -> dict[str, bytes]:
    return {path: blob.content for path, blob in hub.of(name, kind).files.items() if not path.startswith(".")}


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_open_where_they_were_pulled(hub: FakeHub, ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(ws) == 0
    assert main(["pull", "me/results", str(tmp_path / "got")]) == 0
    here, there = linrep.open(ws), linrep.open(tmp_path / "got")
    assert there.probes.frame().equals(here.probes.frame())
    assert there.probes.frame("confusions").equals(here.probes.frame("confusions"))
    assert there.evaluations.frame("quality").equals(here.evaluations.frame("quality"))
    assert there.probes.summary == here.probes.summary
    got = below(tmp_path / "got")
    got.pop("pulled.json")
    assert got == held(hub)
    assert f'linrep.open("{tmp_path}/got")' in capsys.readouterr().out


def test_the_same_results_make_no_commit(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(ws)
    before = len(hub.changes)
    capsys.readouterr()
    assert push(ws) == 0
    assert capsys.readouterr().out.startswith("Nothing to do: hf://datasets/me/results holds these")
    assert len(hub.changes) == before


def test_no_weights_and_no_units_go_along(hub: FakeHub, ws: Path) -> None:
    push(ws)
    assert not [path for path in held(hub) if path.endswith(".safetensors") or "/units/" in path or "/commits/" in path]


def test_every_table_is_a_configuration_of_the_card(hub: FakeHub, ws: Path, tmp_path: Path) -> None:
    push(ws, "--license", "cc-by-4.0")
    (tmp_path / "card.md").write_bytes(held(hub)["README.md"])
    card = DatasetCard.load(tmp_path / "card.md")
    assert card.data.license == "cc-by-4.0"
    configs = {one["config_name"]: one for one in card.data.configs}
    assert sorted(one["data_files"] for one in configs.values()) == sorted(
        path for path in held(hub) if path.endswith(".parquet")
    )
    assert configs["probe-probes"]["default"]
    assert "evaluate-quality" in configs


def test_what_reports_give_away_is_said_before(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "results", str(ws), "me/results"]) == 1
    out = capsys.readouterr().out
    assert "- report.html and report.md show images and texts of the corpora" in out
    assert f"- {ws}, a path of this machine, is named in report.html\n" in out
    assert hub.changes == []


def test_a_stage_is_chosen_and_one_that_is_not_there_is_named(hub: FakeHub, ws: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(ws, "--stage", "probe") == 0
    assert not [path for path in held(hub) if path.startswith("saes/")]
    assert push(ws, "--stage", "steer") == 1
    assert "no complete results of steer" in capsys.readouterr().err


def test_a_folder_with_other_things_is_left_alone(
    hub: FakeHub, ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(ws)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    assert main(["pull", "me/results", str(mine)]) == 1
    assert "holds other things: name an empty folder" in capsys.readouterr().err
    assert below(mine) == {"README.md": b"mine"}
    hub.make("me/other", "dataset").put({"a.json": b"{}"})
    assert main(["pull", "me/other", str(tmp_path / "got")]) == 0
    assert main(["pull", "me/results", str(tmp_path / "got")]) == 1
    assert "holds what was pulled of hf://datasets/me/other" in capsys.readouterr().err
    hub.of("me/other", "dataset").put({"a.json": b"[]"})
    assert main(["pull", "me/other", str(tmp_path / "got")]) == 0
    assert (tmp_path / "got" / "a.json").read_bytes() == b"[]"


def test_a_stopped_pull_goes_on(hub: FakeHub, ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(ws)
    copied: list[str] = []

    def stopping(source: Path, target: object) -> None:
        if len(copied) == 3:
            raise KeyboardInterrupt
        copied.append(str(target))

    with monkeypatch.context() as patched:
        patched.setattr("linrep.hub.pull._copy", stopping)
        assert main(["pull", "me/results", str(tmp_path / "got")]) == 130
    assert main(["pull", "me/results", str(tmp_path / "got")]) == 0
    got = below(tmp_path / "got")
    got.pop("pulled.json")
    assert got == held(hub)


def test_hostile_repositories_are_refused(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written, neither in the folder nor beside it."""
    for number, path in enumerate(["../../evil.json", "/evil.json", "a\\..\\..\\evil.json", "x/\u202eexe.json"]):
        hub.make(f"me/evil{number}").put({path: b"{}", "cfg.json": b"{}"})
        assert main(["pull", f"me/evil{number}", str(tmp_path / "got")]) == 1
        assert "leads astray" in capsys.readouterr().err
    hub.make("me/huge").put({"a.safetensors": b"x" * 2_000_000})
    assert main(["pull", "me/huge", str(tmp_path / "got"), "--most-gb", "0.001"]) == 1
    assert "more than the 0.0 GB that are taken at most" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) in (["hf-home"], [])


def test_programs_and_pickles_stay_where_they_are(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record of pulls that comes along is not believed, either."""
    files = {
        "a/ae.pt": b"pickle",
        "run.py": b"import os",
        "x.sh": b"rm",
        "cfg.json": b"{}",
        "pulled.json": b'{"repository": "x"}',
    }
    hub.make("me/mixed").put({**files, ".git/config.json": b"{}"})
    assert main(["pull", "me/mixed", str(tmp_path / "got")]) == 0
    assert sorted(below(tmp_path / "got")) == ["cfg.json", "pulled.json"]
    assert "left out, as files of this kind are not pulled: a/ae.pt, pulled.json, run.py, x.sh" in capsys.readouterr().out
    assert main(["pull", "me/mixed", str(tmp_path / "got")]) == 0


def test_an_sae_that_is_none_is_said_to_be_none(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.make("me/none").put({"a/cfg.json": b"[" * 100_000, "a/sae_weights.safetensors": b"\xff" * 64})
    assert main(["pull", "me/none", str(tmp_path / "got")]) == 0
    assert f"SAE     {tmp_path}/got/a is not read here: cannot read" in capsys.readouterr().out


def test_missing_private_and_unreached_are_one_line_each(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(name: str) -> str:
        assert main(["pull", name, str(tmp_path / "got")]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    hub.make("me/secret", private=True).put({"cfg.json": b"{}"})
    hub.make("me/both").put({"cfg.json": b"{}"})
    hub.make("me/both", "dataset").put({"cfg.json": b"{}"})
    assert "no model repository me/none on" in line("me/none")
    assert "say hf://me/both or hf://datasets/me/both" in line("me/both")
    monkeypatch.delenv("HF_TOKEN")
    assert "or it is private: log in with `hf auth login`, or set HF_TOKEN" in line("me/secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in line("hf://me/secret")
    monkeypatch.setenv("HF_TOKEN", READS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert main(["pull", "me/secret", str(tmp_path / "got")]) == 0


def test_a_folder_of_a_revision_is_pulled_alone(hub: FakeHub, tmp_path: Path) -> None:
    hub.make("me/saes").put({"a/cfg.json": b"1", "ab/cfg.json": b"2"})
    first = hub.of("me/saes").head
    hub.of("me/saes").put({"a/cfg.json": b"3"})
    assert main(["pull", f"hf://me/saes@{first}/a", str(tmp_path / "got")]) == 0
    got = below(tmp_path / "got")
    got.pop("pulled.json")
    assert got == {"a/cfg.json": b"1"}
