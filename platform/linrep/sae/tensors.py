"""The tensors of a file: each is held against its shape, number format and finiteness; what nobody took is refused by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from linrep.errors import FormatError
from linrep.places import Place


class Weights:
    """Tensors by name.

    Args:
        file: Their file, for messages.
        tensors: As they were saved.
        sizes: Sizes that are known, d and f: others are those of the first tensor that has them.
        said_by: The file that says so, and the field of each size.
        dtype: The number format that they were made for, to which they are rounded; None leaves them.
    """

    def __init__(
        self,
        file: Place,
        tensors: Mapping[str, Tensor],
        sizes: Mapping[str, int],
        said_by: tuple[str, Mapping[str, str]] = ("", {}),
        dtype: torch.dtype | None = None,
    ) -> None:
        self.file, self._tensors, self._dtype = file, tensors, dtype
        self._sizes: dict[str, int] = dict(sizes)
        self._by = {axis: (said_by[0], said_by[1].get(axis, axis)) for axis in sizes}
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, *names: str, axes: tuple[str, ...]) -> list[Tensor]:
        """Tensors of one shape, in float32.

        Args:
            names: Which.
            axes: d or f for each axis.

        Raises:
            FormatError: One is missing, of another shape, no floating-point numbers, or not finite.
        """
        return [self._take(name, axes) for name in names]

    def _take(self, name: str, axes: tuple[str, ...]) -> Tensor:
        tensor = self._raw(name)
        if not tensor.is_floating_point():
            raise FormatError(f"{self.file} has {name} of {_kind(tensor)}: it must be floating-point numbers")
        shape = tuple(tensor.shape)
        known = tuple(self._sizes.get(axis, -1) for axis in axes)
        if len(shape) != len(axes) or any(size not in (-1, own) for size, own in zip(known, shape, strict=True)):
            files = list(dict.fromkeys(self._by[axis][0] for axis in axes if axis in self._by)) or ["its format"]
            fields = ", ".join(self._by[axis][1] for axis in axes if axis in self._by)
            wanted = f"({', '.join(axis if size == -1 else str(size) for axis, size in zip(axes, known, strict=True))})"
            raise FormatError(f"{self.file} has {name} of {shape}, {files[0]} says {wanted}" + (f": {fields}" if fields else ""))
        if not all(shape):
            raise FormatError(f"{self.file} has {name} of {shape}, which is empty")
        for axis, size in zip(axes, shape, strict=True):
            self._by.setdefault(axis, (name, f"{axis} of {name}"))
            self._sizes.setdefault(axis, size)
        rounded = tensor.detach() if self._dtype is None else tensor.detach().to(self._dtype)
        return self._finite(name, rounded.float().contiguous())

    def _finite(self, name: str, tensor: Tensor) -> Tensor:
        bad = int((~tensor.isfinite()).sum())
        if bad:
            raise FormatError(
                f"{self.file} has {bad:,} of {tensor.numel():,} values of {name} that are not finite (NaN or infinite)"
            )
        return tensor

    def whole(self, name: str) -> int:
        """A whole number above 0 that was saved as a tensor.

        Raises:
            FormatError: It is none.
        """
        value = self.integers(name)
        if value.dim() or int(value) < 1:
            raise FormatError(f"{self.file}: {name} must be one whole number above 0, got {value.flatten()[:8].tolist()}")
        return int(value)

    def integers(self, name: str) -> Tensor:
        """Whole numbers.

        Raises:
            FormatError: They are of another number format.
        """
        tensor = self._raw(name)
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool:
            raise FormatError(f"{self.file} has {name} of {_kind(tensor)}: it must be whole numbers")
        return tensor.detach()

    def _raw(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise FormatError(f"{self.file} lacks {name}: it has {', '.join(sorted(self._tensors)) or 'nothing'}")
        self._taken.add(name)
        tensor = self._tensors[name]
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise FormatError(f"{self.file} has {name} that is sparse, quantised or without numbers: it must be a plain tensor")
        return tensor

    def finish(self) -> None:
        """Refuse what nobody has taken.

        Raises:
            FormatError: Names the tensors.
        """
        unknown = sorted(set(self._tensors) - self._taken)
        if unknown:
            raise FormatError(
                f"{self.file} has {', '.join(unknown)}, which nothing here knows: what it changes would be lost. "
                "Remove it if it changes nothing"
            )

    def size(self, axis: str) -> int:
        """How long an axis is, once a tensor with it was taken."""
        return self._sizes[axis]


def check_k(k: int, n_latents: int, where: Any) -> int:
    """The k of a TopK SAE, if it has that many latents.

    Raises:
        FormatError: It has fewer.
    """
    if k > n_latents:
        raise FormatError(f"{where}: k is {k:,}, but there are {n_latents:,} latents")
    return k


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
