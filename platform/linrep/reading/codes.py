"""The latents of stored samples from the codes that the features stage has kept: no SAE is needed, nothing is encoded again."""

import re
from dataclasses import dataclass, replace

import numpy as np
import torch

from linrep.features.artefact import Features, StudiedSae
from linrep.features.codes import ActiveLatents, read_codes
from linrep.places import Place
from linrep.reading.latents import NONE, Strongest
from linrep.reading.read import Fires, Reading
from linrep.store.layout import MODALITIES

NOT_READ = -1
"""In the place of a number of active latents: the position was not among those that were encoded."""


@dataclass
class Coded:
    """The codes of an SAE, read file by file as samples ask for them; those of one chunk are held.

    Attributes:
        layer: The SAE's layer.
        sae: What tables call it.
        k: Latents of a position that are kept.
        files: By chunk.
    """

    layer: int
    sae: str
    k: int
    files: dict[int, list[Place]]
    _chunk: int = -1
    _held: tuple[ActiveLatents, ...] = ()

    @classmethod
    def of(cls, features: Features, sae: StudiedSae, k: int) -> "Coded":
        """The codes of an SAE that was looked into."""
        files: dict[int, list[Place]] = {}
        for modality in MODALITIES:
            for file in features.codes(sae.folder, modality):
                number = re.search(r"(\d+)\.parquet$", file.name)
                assert number is not None, file.name
                files.setdefault(int(number[1]), []).append(file)
        return cls(sae.layer, sae.name, k, files)

    def chunk(self, number: int) -> tuple[ActiveLatents, ...]:
        """The codes of a chunk's tokens, a file for each modality."""
        if number != self._chunk:
            self._chunk, self._held = number, tuple(read_codes(file) for file in self.files.get(number, ()))
        return self._held

    def fires(self, chunk: int, sample: int, positions: np.ndarray) -> Fires:
        """The strongest latents of a sample at some positions, `NOT_READ` at those that were not encoded.

        Args:
            chunk: The sample's chunk.
            sample: Its number in the store.
            positions: In the sequence.
        """
        t = len(positions)
        latents, values = torch.full((t, self.k), NONE), torch.zeros(t, self.k)
        n_active = torch.full((t,), NOT_READ)
        at = {int(position): i for i, position in enumerate(positions)}
        for codes in self.chunk(chunk):
            first, last = np.searchsorted(codes.sample, [sample, sample + 1])
            for token in range(int(first), int(last)):
                i = at.get(int(codes.position[token]))
                if i is None:
                    continue
                own = slice(int(codes.offsets[token]), int(codes.offsets[token + 1]))
                order = np.argsort(-codes.values[own], kind="stable")[: self.k]
                n_active[i] = own.stop - own.start
                latents[i, : len(order)] = torch.from_numpy(codes.latents[own][order].astype(np.int64))
                values[i, : len(order)] = torch.from_numpy(codes.values[own][order].copy())
        return Fires(self.layer, self.sae, Strongest(latents, values, n_active))


def with_codes(reading: Reading, coded: list[Coded], chunk: int, sample: int) -> Reading:
    """A reading of a stored sample with the latents of some SAEs.

    Args:
        reading: What else was read.
        coded: The SAEs' codes.
        chunk: The sample's chunk.
        sample: Its number in the store.
    """
    return replace(reading, fires=tuple(one.fires(chunk, sample, reading.tokens.position) for one in coded))
