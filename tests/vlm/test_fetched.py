"""A model in a bucket is the model: brought once, brought anew when it changes, whole or not at all."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linrep.errors import ModelError, PlaceError
from linrep.places import Place, place
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.fetched import CACHE, fetch
from linrep.vlm.files import locate
from linrep.vlm.processor import load_processor


@pytest.fixture
def there(bucket, random_vlm, tmp_path, monkeypatch) -> str:
    """The address of a copy of the model, with a file beside it that nobody asks for."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    address = bucket(f"models/{tmp_path.name}")
    for file in Path(random_vlm.path).iterdir():
        (place(address) / file.name).write_bytes(file.read_bytes())
    (place(address) / "pytorch_model.bin").write_bytes(b"a pickle")
    return address


def test_a_model_in_a_bucket_is_the_one_on_disk(there, random_vlm):
    card, own = describe(ModelConfig(path=there)), describe(random_vlm)
    assert card.digest == own.digest
    assert card.path == str(place(there))
    assert "test:test" not in card.path
    folder, commit = locate(ModelConfig(path=there), weights=True)
    assert commit is None
    assert {file.name for file in folder.iterdir()} == {file.name for file in Path(random_vlm.path).iterdir()}
    assert all((folder / file.name).read_bytes() == file.read_bytes() for file in Path(random_vlm.path).iterdir())
    ids = [load_processor(one).tokenizer("a boat")["input_ids"] for one in (folder, Path(random_vlm.path))]
    assert ids[0] == ids[1]


def test_it_is_brought_once_by_all_who_ask_at_once_and_anew_when_it_changes(there, monkeypatch):
    opened: list[str] = []
    real = Place.open

    def counted(self: Place, *more: int) -> io.BufferedReader:
        opened.append(self.name)
        return real(self, *more)

    monkeypatch.setattr(Place, "open", counted)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(fetch, [there] * 4))
    assert len(folders) == 1
    assert len(opened) == len(set(opened))
    (place(there) / "config.json").write_bytes((place(there) / "config.json").read_bytes() + b"\n")
    assert fetch(there) not in folders


def test_what_is_cut_short_is_not_taken_for_a_model(there, monkeypatch, tmp_path):
    real = shutil.copyfileobj

    def cut(source: io.BufferedReader, target: io.BufferedWriter, *more: int) -> None:
        if target.name.endswith("model.safetensors"):
            raise OSError("the store went away")
        real(source, target, *more)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", cut)
        with pytest.raises(ModelError, match=r"cannot bring the model of .* the store went away") as refused:
            fetch(there)
    assert "test:test" not in str(refused.value)
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []
    assert (fetch(there) / "model.safetensors").is_file()


@pytest.mark.parametrize(("path", "error"), [("nothing/here", ModelError), ("", PlaceError)])
def test_no_model_is_one_line_without_the_key(bucket, path, error, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    with pytest.raises(error) as refused:
        locate(ModelConfig(path=bucket(path) if path else "s9://test:hunter2@bucket/model"))
    assert "test:" not in str(refused.value)
    assert "\n" not in str(refused.value)
