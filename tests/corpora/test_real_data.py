"""The corpora on real photographs and texts, where they are present."""

import pytest

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk, build_index
from linrep.corpora.read import read
from linrep.sample import Sample

NAMES = [
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
]


@pytest.fixture(scope="module")
def corpora(real_data):
    return Corpora.model_validate(
        {"images": {"path": f"{real_data}/imagenette/train"}, "text": {"path": f"{real_data}/text/*.parquet"}}
    )


@pytest.fixture(scope="module")
def index(corpora):
    return build_index(corpora)


def _samples(chunk: Chunk, corpora: Corpora) -> list[Sample]:
    found = [one for one in read(chunk, corpora) if isinstance(one, Sample)]
    assert len(found) == chunk.n_samples
    return found


def test_all_of_it_is_counted(index):
    images, text = index.summary()["images"], index.summary()["text"]
    assert images.n_samples == 1500
    assert images.classes == dict.fromkeys(NAMES, 150)
    assert (text.n_samples, text.n_files) == (117_659, 1)
    assert index.n_samples == 119_159


def test_all_images_are_read_once_and_are_jpegs(corpora, index):
    chunks = [chunk for chunk in index.chunks(256) if chunk.corpus == "images"]
    samples = [one for chunk in chunks for one in _samples(chunk, corpora)]
    assert len({one.id for one in samples}) == 1500
    assert all(one.image and one.image.startswith(b"\xff\xd8") for one in samples)
    assert all(one.label is not None and NAMES[one.label] == one.class_name for one in samples)
    shares = [sum(one.split == split for one in samples) / 1500 for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.031)  # three standard errors


def test_glosses_carry_the_wnids_of_the_classes(corpora, index):
    first = next(chunk for chunk in index.chunks(20_000) if chunk.corpus == "text")
    texts = {one.id: one.text for one in _samples(first, corpora)}
    assert len(texts) == 20_000
    assert "tench" in (texts["text/n01440764"] or "")
