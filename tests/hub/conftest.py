"""A hub on this machine for every test, with a cache and a home of its own; nothing here reaches another one."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
from huggingface_hub import HfFileSystem
from huggingface_hub.utils import close_session, disable_progress_bars

from tests.hub.fake_hub import WRITES, FakeHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub, and a token in HF_TOKEN that may write there."""
    with FakeHub() as fake:
        point_to(fake.url, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", WRITES)
        yield fake
        close_session()


def point_to(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process ask a hub at an address, with a cache in a folder: what HF_ENDPOINT and HF_HOME do for a new one."""
    close_session()
    HfFileSystem.clear_instance_cache()  # it remembers what it has listed
    disable_progress_bars()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hf-home" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "hf-home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
