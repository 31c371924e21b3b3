"""Directions in the residual stream: what probes find and steering adds, and the one file that carries them between the two."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
import xxhash
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from linrep.errors import StoreError
from linrep.places import Place, place

FORMAT = "linrep.directions/1"


@dataclass(frozen=True)
class Directions:
    """One vector for each class of an attribute, at one layer, found in one way.

    Attributes:
        kind: class_mean, ridge, ridge_pattern, lda, softmax, shuffled_mean ...
        layer: Layer k, the residual stream entering block k.
        view: pooled, tokens or last: which rows it was fitted on.
        modality: image or text, likewise.
        attribute: What the classes are of: class; in the embedded world also colour, ground, place.
        names: The classes in words.
        vectors: One row a class, in the model's own scale: means as they are; probe weights per unit of activation.
        token_norm: Mean norm of the rows that it was fitted on, in the model's own scale.
    """

    kind: str
    layer: int
    view: str
    modality: str
    attribute: str
    names: tuple[str, ...]
    vectors: Float[Tensor, "m d"]
    token_norm: float

    def __post_init__(self) -> None:
        if len(self.names) != len(self.vectors):
            raise ValueError(f"{self.key}: {len(self.names)} names for {len(self.vectors)} vectors")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{self.key}: a name stands twice among {', '.join(sorted(self.names))}")

    @property
    def key(self) -> str:
        """The name that it has in a file."""
        return f"{self.attribute}/{self.view}/{self.modality}/{self.kind}/layer={self.layer}"

    def between(self, source: str, target: str) -> Float[Tensor, " d"]:
        """The direction from one class to another; every ordered pair comes from the rows, so pairs are not stored.

        Raises:
            ValueError: A name is not among the classes.
        """
        return self.vectors[self._row(target)] - self.vectors[self._row(source)]

    def vector(self, name: str) -> Float[Tensor, " d"]:
        """The row of one class.

        Raises:
            ValueError: The name is not among the classes.
        """
        return self.vectors[self._row(name)]

    def _row(self, name: str) -> int:
        if name not in self.names:
            shown = ", ".join(self.names[:20]) + (" ..." if len(self.names) > 20 else "")
            raise ValueError(f"no {self.attribute} {name!r} among the directions: there are {shown}")
        return self.names.index(name)


@dataclass(frozen=True)
class DirectionSet:
    """All directions of one artefact.

    Attributes:
        entries: The directions, no two with the same key.
        parents: Digests of what they were made from, by stage; filled when read from a file.
    """

    entries: tuple[Directions, ...]
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = [entry.key for entry in self.entries]
        twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
        if twice:
            raise ValueError(f"directions stand twice: {', '.join(twice)}")

    def __str__(self) -> str:
        """What there is, a line for each attribute and kind."""
        lines = []
        for attribute, kind in dict.fromkeys((entry.attribute, entry.kind) for entry in self.entries):
            own = [entry for entry in self.entries if (entry.attribute, entry.kind) == (attribute, kind)]
            layers, names = sorted({entry.layer for entry in own}), len({name for entry in own for name in entry.names})
            places = ", ".join(dict.fromkeys(f"{entry.view} {entry.modality}" for entry in own))
            lines.append(f"{attribute} ({names} vectors), {kind}: {places}; layers {', '.join(map(str, layers))}")
        return "\n".join(lines) or "no directions"

    def select(self, kind: str, layer: int, view: str, modality: str, attribute: str) -> Directions:
        """The directions of this kind and place.

        Raises:
            StoreError: There are none; the message lists what there is.
        """
        wanted = {"attribute": attribute, "view": view, "modality": modality, "kind": kind, "layer": layer}
        left = self.entries
        for name, value in wanted.items():
            there = sorted({getattr(entry, name) for entry in left})
            left = tuple(entry for entry in left if getattr(entry, name) == value)
            if not left:
                given = " ".join(f"{n}={v}" for n, v in list(wanted.items())[: list(wanted).index(name)])
                shown = ", ".join(map(str, there)) or "no directions at all"
                raise StoreError(f"no directions of {name} {value!r}{f' with {given}' if given else ''}: there are {shown}")
        return left[0]


def write_directions(where: str | Path | Place, directions: DirectionSet, parents: Mapping[str, str] | None = None) -> None:
    """Write all directions as one safetensors file; it appears whole.

    Args:
        where: The file.
        directions: What to write; vectors are stored as float32.
        parents: Digests of what they were made from, by stage.
    """
    tensors = {entry.key: entry.vectors.detach().float().cpu().contiguous() for entry in directions.entries}
    entries = {
        entry.key: {
            "kind": entry.kind,
            "layer": entry.layer,
            "view": entry.view,
            "modality": entry.modality,
            "attribute": entry.attribute,
            "names": list(entry.names),
            "norms": [round(norm, 6) for norm in tensors[entry.key].double().norm(dim=1).tolist()],
            "token_norm": entry.token_norm,
        }
        for entry in directions.entries
    }
    metadata = {
        "format": FORMAT,
        "parents": json.dumps(dict(parents if parents is not None else directions.parents), sort_keys=True),
        "entries": json.dumps(entries, ensure_ascii=False, allow_nan=False),
    }
    metadata["check"] = _check(metadata, tensors)
    place(where).write_bytes(_in_order(safetensors.torch.save(tensors, metadata)))


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata by name: the library writes them in an order that it draws anew each time.

    The bytes name the directions in what is made from them, so equal directions must be equal bytes.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[end:]


def read_directions(where: str | Path | Place) -> DirectionSet:
    """The directions that `write_directions` wrote.

    Raises:
        StoreError: There is no such file, or it holds something else.
    """
    file = place(where)
    if not file.is_file():
        raise StoreError(f"no directions at {file}: the probe job writes them")
    data = file.read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        # The header is a length in eight bytes, then JSON; the library's `load` gives the tensors alone.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if header["format"] != FORMAT:
            raise StoreError(f"{file} has format {header['format']}, this program reads {FORMAT}")
        if header.get("check", _check(header, tensors)) != _check(header, tensors):
            raise StoreError(f"{file} is damaged (it is not as it was written): delete it and run the probe job again")
        records, parents = json.loads(header["entries"]), json.loads(header["parents"])
        entries = tuple(_entry(record, tensors[key]) for key, record in records.items())
        return DirectionSet(entries, parents)
    except StoreError:
        raise
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise StoreError(f"{file} holds no directions ({type(error).__name__}): name the file that the probe job wrote") from None


def _check(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """A sum over all that a file says, however its header is laid out."""
    found = xxhash.xxh3_64()
    for name in ("format", "parents", "entries"):
        found.update(f"{name} {header[name]}\n".encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _entry(record: dict[str, object], vectors: Float[Tensor, "m d"]) -> Directions:
    fields = {name: value for name, value in record.items() if name != "norms"}
    return Directions(**{**fields, "names": tuple(fields["names"]), "vectors": vectors})  # pyright: ignore[reportArgumentType]
