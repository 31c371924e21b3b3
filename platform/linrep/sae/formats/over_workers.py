"""A safetensors file of tensors whose latents lie on several workers: written piece by piece, so that nobody holds it whole."""

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from linrep.places import Place
from linrep.workers import Workers

PIECE_BYTES = 32 * 2**20
"""Of a tensor, on its way to the file."""


def write_safetensors_of_all(
    file: Place, tensors: Mapping[str, Tensor], axes: Mapping[str, int | None], workers: Workers
) -> None:
    """Write float32 tensors, the same bytes as one worker alone would; rank 0 writes, all call it together.

    Args:
        file: Where to.
        tensors: What this worker has of each: a vector or a matrix.
        axes: Along which axis its latents lie; None for what all workers have whole.
        workers: The others.
    """
    mine = {name: tensors[name].detach().float().cpu() for name in sorted(tensors)}
    shapes = {name: _whole(tensor, axes[name], workers) for name, tensor in mine.items()}
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with file.writing() if workers.rank == 0 else nullcontext() as stream:
        if stream is not None:
            stream.write(len(head).to_bytes(8, "little") + head)
        for name, tensor in mine.items():
            for piece in _pieces(tensor, axes[name], workers):
                if stream is not None:
                    stream.write(piece.contiguous().numpy())


def _whole(tensor: Tensor, axis: int | None, workers: Workers) -> list[int]:
    """The shape that the parts of all workers make."""
    shape = list(tensor.shape)
    if axis is not None:
        shape[axis] = sum(_sizes(tensor, axis, workers))
    return shape


def _sizes(tensor: Tensor, axis: int, workers: Workers) -> list[int]:
    return [int(size) for size in workers.gather(torch.tensor([tensor.shape[axis]]))]


def _pieces(tensor: Tensor, axis: int | None, workers: Workers) -> Iterator[Tensor]:
    """The whole tensor in the order of its bytes, on all workers."""
    if axis is None:
        yield tensor
        return
    sizes = _sizes(tensor, axis, workers)
    if axis == 0:
        rows = max(1, PIECE_BYTES // (4 * tensor[:1].numel())) if tensor.dim() > 1 else PIECE_BYTES // 4
        for rank, size in enumerate(sizes):
            for first in range(0, size, rows):
                shape = (min(rows, size - first), *tensor.shape[1:])
                piece = tensor[first : first + rows].clone() if rank == workers.rank else torch.empty(shape)
                workers.copy_(piece, rank)
                yield piece
        return
    rows, widest = max(1, PIECE_BYTES // (4 * sum(sizes))), max(sizes)
    for part in tensor.split(rows):
        padded = torch.nn.functional.pad(part, (0, widest - part.shape[1]))
        yield torch.cat([one[:, :size] for one, size in zip(workers.gather(padded), sizes, strict=True)], dim=1)
