"""Where latents fire and where they are silent, from one pass over the codes: a bit for each latent and sample.

Silent means silent on every token that the store holds of the sample; a store that keeps a draw of tokens cannot know more.
Memory: latents x samples / 8 bytes, and the tokens of the samples that are asked for.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8

from linrep.contents.stored import Token
from linrep.store.layout import MODALITIES, Modality


@runtime_checkable
class Codes(Protocol):
    """The active latents of n tokens with s entries; the features' codes are of this shape."""

    @property
    def sample(self) -> Int[np.ndarray, " n"]:
        """Number of each token's sample."""
        ...

    @property
    def position(self) -> Int[np.ndarray, " n"]:
        """Place in the sequence."""
        ...

    @property
    def tile(self) -> Int[np.ndarray, " n"]:
        """As in `Token`."""
        ...

    @property
    def row(self) -> Int[np.ndarray, " n"]:
        """As in `Token`."""
        ...

    @property
    def col(self) -> Int[np.ndarray, " n"]:
        """As in `Token`."""
        ...

    @property
    def offsets(self) -> Int[np.ndarray, " n_1"]:
        """Where each token's entries begin, and their number at the end."""
        ...

    @property
    def latents(self) -> Int[np.ndarray, " s"]:
        """Latent of each entry."""
        ...


@dataclass(frozen=True)
class SampleTokens:
    """The tokens that the store holds of a sample, and which of the asked latents fire on which."""

    tokens: tuple[Token, ...]
    fires: dict[int, frozenset[int]]
    """Positions by latent."""

    def quiet(self, latent: int) -> tuple[Token, ...]:
        """Tokens on which it is silent."""
        own = self.fires.get(latent, frozenset())
        return tuple(token for token in self.tokens if token.position not in own)


class Firing:
    """Which of some latents fire on which of s samples.

    Args:
        latents: The latents.
        n_samples: Samples of the store.
        asked: Of these samples the tokens are kept, by modality.
    """

    def __init__(self, latents: Iterable[int], n_samples: int, asked: dict[Modality, Collection[int]]) -> None:
        self._row = {latent: i for i, latent in enumerate(sorted(set(latents)))}
        self._numbers = np.array(sorted(self._row), np.int64)
        self._n_samples = n_samples
        self._asked = {m: np.unique(np.fromiter(asked.get(m, ()), np.int64)) for m in MODALITIES}
        width = -(-n_samples // 8)
        self._bits: dict[Modality, UInt8[np.ndarray, "l w"]] = {
            m: np.zeros((len(self._row), width), np.uint8) for m in MODALITIES
        }
        self._there: dict[Modality, Bool[np.ndarray, " s"]] = {m: np.zeros(n_samples, bool) for m in MODALITIES}
        self._tokens: dict[tuple[Modality, int], SampleTokens] = {}

    def add(self, modality: Modality, codes: Codes) -> None:
        """Take in some codes; the tokens of a sample come together."""
        self._there[modality][codes.sample] = True
        token = np.repeat(np.arange(len(codes.sample)), np.diff(codes.offsets))
        at = np.searchsorted(self._numbers, codes.latents)
        known = at < len(self._numbers)
        known[known] = self._numbers[at[known]] == codes.latents[known]
        row, entry = at[known], token[known]
        sample = codes.sample[entry].astype(np.int64)
        pairs = np.unique(row * self._n_samples + sample)
        row_of, sample_of = np.divmod(pairs, self._n_samples)
        np.bitwise_or.at(self._bits[modality], (row_of, sample_of >> 3), (128 >> (sample_of & 7)).astype(np.uint8))
        self._keep(modality, codes, row, entry)

    def blank(self) -> "Firing":
        """One of the same latents and samples that has seen no codes; Ray hands arrays that may not be written to."""
        asked: dict[Modality, Collection[int]] = {m: self._asked[m].tolist() for m in MODALITIES}
        return Firing(self._row, self._n_samples, asked)

    def merge(self, other: "Firing") -> None:
        """Take in what another one, of the same latents and samples, has seen of other codes and other samples."""
        for m in MODALITIES:
            self._bits[m] |= other._bits[m]
            self._there[m] |= other._there[m]
        self._tokens |= other._tokens

    def _keep(self, modality: Modality, codes: Codes, row: np.ndarray, entry: np.ndarray) -> None:
        wanted = np.flatnonzero(np.isin(codes.sample, self._asked[modality]))
        inside = np.isin(codes.sample[entry], self._asked[modality])
        fires: dict[int, dict[int, set[int]]] = {}
        for latent_row, token in zip(row[inside].tolist(), entry[inside].tolist(), strict=True):
            own = fires.setdefault(int(codes.sample[token]), {})
            own.setdefault(int(self._numbers[latent_row]), set()).add(int(codes.position[token]))
        tokens: dict[int, list[Token]] = {}
        for i in wanted.tolist():
            own = Token(int(codes.position[i]), int(codes.tile[i]), int(codes.row[i]), int(codes.col[i]))
            tokens.setdefault(int(codes.sample[i]), []).append(own)
        for sample, own in tokens.items():
            where = {latent: frozenset(positions) for latent, positions in fires.get(sample, {}).items()}
            self._tokens[modality, sample] = SampleTokens(tuple(own), where)

    def fires(self, modality: Modality, latent: int) -> Bool[np.ndarray, " s"]:
        """Samples on which it fires."""
        bits = self._bits[modality][self._row[latent]]
        return np.unpackbits(bits, count=self._n_samples).astype(bool)

    def silent(self, modality: Modality, latent: int) -> Bool[np.ndarray, " s"]:
        """Samples that have tokens here and on which it is silent."""
        return self._there[modality] & ~self.fires(modality, latent)

    def hard(self, modality: Modality, latent: int, neighbours: Sequence[int]) -> Bool[np.ndarray, " s"]:
        """Samples on which it is silent and one of the others fires."""
        near = np.zeros(self._n_samples, bool)
        for other in neighbours:
            near |= self.fires(modality, other)
        return near & self.silent(modality, latent)

    def sample_tokens(self, modality: Modality, sample: int) -> SampleTokens:
        """The tokens of a sample that was asked for."""
        return self._tokens.get((modality, sample), SampleTokens((), {}))
