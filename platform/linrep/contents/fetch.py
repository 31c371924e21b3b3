"""Images of a store's samples, fetched again from the corpora that it was harvested from."""

from collections.abc import Iterable, Sequence
from functools import cached_property

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.corpora.narrow import narrow
from linrep.corpora.read import read
from linrep.errors import CorpusError, StoreError
from linrep.sample import OF_ONE_IMAGE, Skipped
from linrep.store.read import Store


class EncodedImages:
    """Encoded images by the names of their samples.

    Args:
        store: The harvest.
        chunks: Its chunks.
        corpora: Its corpora, where they really lie.
    """

    def __init__(self, store: Store, chunks: Sequence[Chunk], corpora: Corpora) -> None:
        self._store, self._chunks, self._corpora = store, chunks, corpora

    @cached_property
    def _where(self) -> dict[str, tuple[int, int]]:
        """Chunk of each image, and its record in there."""
        found: dict[str, tuple[int, int]] = {}
        for number, table in self._store.samples_by_chunk(["sample_id", "modality"]):
            # Samples stand in their chunk's order; a pair whose caption is also given alone is two samples of one record.
            record = -1
            for row in table.to_pylist():
                record += not row["sample_id"].endswith("#caption")
                if row["modality"] in OF_ONE_IMAGE:
                    found[row["sample_id"]] = number, record
        return found

    def __call__(self, names: Iterable[str]) -> dict[str, bytes]:
        """The images of some samples.

        Raises:
            StoreError: The store has no image of one of these names.
            CorpusError: The corpus does not give one any more.
        """
        wanted = set(names)
        unknown = sorted(wanted - self._where.keys())
        if unknown:
            raise StoreError(
                f"{self._store.place} has no image {unknown[0]!r:.200}: texts have none, those of documents have no "
                "name, and names stand in its samples"
            )
        records: dict[int, set[int]] = {}
        for name in wanted:
            number, record = self._where[name]
            records.setdefault(number, set()).add(record)
        found = {}
        for number, own in sorted(records.items()):
            for sample in read(narrow(self._chunks[number], sorted(own)), self._corpora):
                if not isinstance(sample, Skipped) and sample.image is not None and sample.id in wanted:
                    found[sample.id] = sample.image
        lost = sorted(wanted - found.keys())
        if lost:
            raise CorpusError(f"the harvest has an image {lost[0]} that its corpus no longer gives: it changed since")
        return found
