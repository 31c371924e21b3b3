"""A few records read alone equal the same records read with their chunk."""

import pytest

from linrep.corpora import ImageFolder
from linrep.corpora.config import Corpora
from linrep.corpora.index import build_index
from linrep.corpora.narrow import narrow
from linrep.corpora.read import read


@pytest.mark.parametrize("chunk_size", [5, 1000])
@pytest.mark.parametrize("max_samples", [None, 11])
def test_narrowed_chunks_give_the_same_samples(corpora, chunk_size, max_samples):
    """Folders, lines and pairs; whole runs and sparse choices of rows; chunks that begin within a run."""
    if max_samples is not None:
        sources = {name: source.model_copy(update={"max_samples": max_samples}) for name, source in corpora.sources.items()}
        corpora = Corpora(**sources)
    seen = 0
    for chunk in build_index(corpora).chunks(chunk_size):
        whole = list(read(chunk, corpora))
        each = len(whole) // chunk.n_records
        for record in range(chunk.n_records):
            one = narrow(chunk, [record])
            assert (one.n_records, one.n_samples) == (1, each)
            assert list(read(one, corpora)) == whole[each * record : each * (record + 1)]
            seen += 1
        some = [i for i in range(chunk.n_records) if i % 3 != 1]
        wanted = [s for i in some for s in whole[each * i : each * (i + 1)]]
        assert list(read(narrow(chunk, some), corpora)) == wanted
    assert seen > 25


def test_records_outside_the_chunk_are_refused(corpora):
    (chunk, *_) = build_index(Corpora(images=ImageFolder(path=corpora.images.path))).chunks(8)
    for wrong in ([8], [-1], [2, 1], []):
        with pytest.raises(ValueError, match=r"must rise within 0\.\.7"):
            narrow(chunk, wrong)
