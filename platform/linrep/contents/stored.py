"""The contents of a store's samples: images with the places of their patches, and windows of text with their tokens."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from PIL import Image

from linrep.contents.fetch import EncodedImages
from linrep.contents.sources import find_sources, located
from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.errors import CorpusError, StoreError
from linrep.places import Place
from linrep.sample import Sample, Skipped, unit_hash
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.vlm.card import ModelCard, card_of
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import layout
from linrep.vlm.image import decode
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from linrep.vlm.prompts import FIELDS
from linrep.vlm.tokens import Layout, patch_box

Box = tuple[float, float, float, float]
PART = "\ufffd"
"""How tokenizers decode part of a character."""
AROUND = 12
"""Tokens of a window on either side of its centre."""


class Token(NamedTuple):
    """A token of a sample."""

    position: int
    """Place in the sequence."""
    tile: int = -1
    """0 the base view, 1.. the crops; -1 for text and newlines."""
    row: int = -1
    """Row of the patch; -1 for text."""
    col: int = -1
    """Column likewise; -1 for newlines too."""

    @property
    def is_patch(self) -> bool:
        """Whether it is a patch of an image."""
        return self.tile >= 0 and self.row >= 0 and self.col >= 0


@dataclass(frozen=True)
class Window:
    """A stretch of a text.

    Attributes:
        positions: Place of each token in the sequence.
        pieces: What each token stands for, spaces included: together they are the text.
    """

    positions: tuple[int, ...]
    pieces: tuple[str, ...]


@runtime_checkable
class Contents(Protocol):
    """Images and texts of samples by name; several threads may ask at once."""

    def load(self, names: Iterable[str]) -> None:
        """Hold these images, and no others any more."""
        ...

    def image(self, name: str) -> Image.Image:
        """The image of a sample that was loaded."""
        ...

    def boxes(self, name: str, tokens: Iterable[Token], source: tuple[int, int] | None = None) -> list[Box]:
        """Where patches lie in the image, in its pixels: left, top, right, bottom.

        Args:
            name: The sample.
            tokens: Patches; newlines are no place and are left out.
            source: Height and width of the image as it is; None if the model saw it so.
        """
        ...

    def window(self, name: str, centre: int | None = None) -> Window:
        """The tokens around a position of a text; around one that the sample's name decides where none is given."""
        ...


class StoredContents:
    """The contents of a store's samples.

    Args:
        samples: The store's samples table.
        card: Of the model that the store was harvested from.
        preparer: Makes what made sequences of texts in the harvest; called once a text is asked for.
        fetch: Encoded images by name.
        around: Tokens of a window on either side of its centre.
    """

    def __init__(
        self,
        samples: pa.Table,
        card: ModelCard,
        preparer: Callable[[], Preparer],
        fetch: Callable[[Iterable[str]], Mapping[str, bytes]],
        around: int = AROUND,
    ) -> None:
        self._number = {name: i for i, name in enumerate(samples["sample_id"].to_pylist())}
        self._samples, self._card, self._make, self._fetch, self._around = samples, card, preparer, fetch, around
        self._images: dict[str, Image.Image] = {}
        self._windows: dict[tuple[str, int | None], Window] = {}
        self._lock = threading.Lock()

    @cached_property
    def _preparer(self) -> Preparer:
        return self._make()

    def facts(self, name: str) -> dict[str, Any]:
        """A sample's row of the samples table.

        Raises:
            StoreError: There is no such sample.
        """
        if name not in self._number:
            raise StoreError(f"no sample {name!r:.200} in the store: the column sample_id of its samples has the names")
        return self._samples.slice(self._number[name], 1).to_pylist()[0]

    def encoded(self, names: Iterable[str]) -> Mapping[str, bytes]:
        """The images of some samples as they lie in the corpus: JPEG, PNG and so on.

        Raises:
            CorpusError: The corpus does not give one any more.
        """
        return self._fetch(names)

    def load(self, names: Iterable[str]) -> None:
        """Hold these images, and no others any more."""
        wanted = set(names)
        kept = {name: image for name, image in self._images.items() if name in wanted}
        missing = sorted(wanted - kept.keys())
        self._images = kept | {name: decode(data) for name, data in self._fetch(missing).items()} if missing else kept

    def image(self, name: str) -> Image.Image:
        """The image of a sample that was loaded."""
        return self._images[name]

    def boxes(self, name: str, tokens: Iterable[Token], source: tuple[int, int] | None = None) -> list[Box]:
        """As the layout of the image says that the model saw."""
        seen = self.layout(name)
        return [patch_box(seen, t.tile, t.row, t.col, source) for t in tokens if t.is_patch]

    def layout(self, name: str) -> Layout:
        """How the model saw the image of a sample: its tiles and patches."""
        row = self._number[name]
        if self._samples["height"][row].as_py() is None:
            raise StoreError(f"the sample {name!r:.200} is a text or a document: only samples with one image have a layout here")
        return layout((self._samples["height"][row].as_py(), self._samples["width"][row].as_py()), self._card)

    def window(self, name: str, centre: int | None = None) -> Window:
        """The tokens around a position of a text; around one that the sample's name decides where none is given."""
        key = name, centre
        with self._lock:  # tokenizers may not be asked by two threads at once
            if key not in self._windows:
                if len(self._windows) > 20_000:
                    self._windows.clear()
                self._windows[key] = self._window(*key)
            return self._windows[key]

    def _window(self, name: str, centre: int | None) -> Window:
        text, modality = (self._samples[column][self._number[name]].as_py() for column in ("text", "modality"))
        if modality == "document":
            raise StoreError(f"the sample {name!r:.200} is a document: its tokens are not those of its text alone")
        sample = Sample(id=name, corpus="text", modality="text", uri="", split="train", text=text)
        prepared = self._preparer(sample)
        if isinstance(prepared, Skipped):
            raise CorpusError(f"the text of {name} cannot be read any more: {prepared.reason}")
        own = np.flatnonzero(prepared.role == Role.TEXT)
        middle = int(own[int(unit_hash(name, "window") * len(own))]) if centre is None else centre
        positions = own[np.abs(own - middle) <= self._around]
        return Window(tuple(positions.tolist()), self._pieces(prepared.input_ids[positions].tolist()))

    def _pieces(self, ids: list[int]) -> tuple[str, ...]:
        """A token's piece is what the text gains by it: decoded alone it would lose its space."""
        return pieces(lambda n: str(self._preparer.tokenizer.decode(ids[:n])), len(ids))


def pieces(decoded: Callable[[int], str], n: int) -> tuple[str, ...]:
    """What a text gains by each of its tokens; a character that takes several tokens is gained by its last one.

    Args:
        decoded: Gives the text of the first tokens, by their number.
        n: How many there are.
    """
    found, before = [], ""
    for i in range(1, n + 1):
        after = decoded(i)
        if after.endswith(PART) and i < n:
            found.append("")
            continue
        same = next((k for k, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
        found.append(after[same:])
        before = after
    return tuple(found)


def stored_contents(
    store: Store, chunks: Sequence[Chunk], corpora: Corpora, model: ModelConfig, around: int = AROUND
) -> StoredContents:
    """The contents of a store whose corpora are known.

    Args:
        store: The store.
        chunks: The chunks that it was harvested in.
        corpora: Its corpora, where they really lie.
        model: Its model.
        around: Tokens of a window on either side of its centre.
    """
    harvest = store.manifest.harvest
    prompts = {name: harvest[name] for name in FIELDS}
    preparer = partial(Preparer.from_path, located(model), **prompts, max_text_tokens=harvest["max_text_tokens"])
    return StoredContents(store.samples(), card_of(store.manifest.model), preparer, EncodedImages(store, chunks, corpora), around)


def places_in(samples: pa.Table, model: Mapping[str, Any]) -> StoredContents:
    """Where patches lie in the images of some samples: all that the store alone says of their contents.

    Args:
        samples: Rows of a store's samples table.
        model: What the store's manifest says of the model.
    """

    def gone(names: Iterable[str]) -> Mapping[str, bytes]:
        raise StoreError("these contents know where patches lie, and hold no image: open_contents does")

    def unread() -> Preparer:
        raise StoreError("these contents know where patches lie, and hold no text: open_contents does")

    return StoredContents(samples, card_of(model), unread, gone)


def open_contents(where: str | Path | Place | Store, around: int = AROUND) -> StoredContents:
    """The contents of a store, from what its workspace says; the recipe is not needed.

    Args:
        where: A store, its folder, or a workspace that holds just one harvest.
        around: Tokens of a window on either side of its centre.

    Raises:
        StoreError: There is no store.
        CorpusError: The workspace does not say where the corpora of the store lie.
    """
    store = where if isinstance(where, Store) else open_store(where.uri if isinstance(where, Place) else str(where))
    manifest = store.manifest
    index, corpora = find_sources(store.place.parent.parent, manifest)
    model = ModelConfig(path=manifest.model["path"], revision=manifest.model["revision"])
    return stored_contents(store, index.chunks(manifest.chunk_size), corpora, model, around)
