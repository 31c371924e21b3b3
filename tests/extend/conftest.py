"""What tests of extended harvests share: small corpora, harvests in this process, and what one made at once would be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from linrep.corpora import Corpora
from linrep.harvest.config import HarvestConfig
from linrep.store.read import Store
from linrep.vlm.config import ModelConfig
from tests.conftest import write_corpora
from tests.extend.harvests import IMAGES, PAIRS, TEXTS, Work, in_this_process, run


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """Three chunks of images, two of texts, one of pairs."""
    return write_corpora(tmp_path_factory.mktemp("corpora"), IMAGES, TEXTS, PAIRS // 2)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return in_this_process(monkeypatch)


@pytest.fixture
def at_once(corpora: Corpora, random_vlm: ModelConfig, tmp_path: Path, work: Work) -> Callable[..., Store]:
    """The harvest of a recipe in a workspace of its own; what it costs is not counted."""

    def made(config: HarvestConfig, of: Corpora = corpora, model: ModelConfig = random_vlm) -> Store:
        store = run(tmp_path / "once", of, model, config)
        work.forget()
        return store

    return made
