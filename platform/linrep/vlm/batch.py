"""Micro-batches: which sequences go together, and the padded tensors on the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from linrep.vlm.family import Family
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences padded to one length, on the model's device.

    Attributes:
        input_ids: Token ids, padding included.
        attention_mask: True at real positions.
        role: A `Role` per position; `Role.TEMPLATE` at padding, so mask before counting templates.
        beside: What the model's forward pass takes beside token ids: the normalised tiles of all images, one image after the
            other in the order of the rows, what it must know of their sizes, what each position is.
        lengths: Real positions of each row.
        family: Of the model.
        padding: The side on which shorter rows are filled up.
    """

    input_ids: Int[Tensor, "b t"]
    attention_mask: Bool[Tensor, "b t"]
    role: UInt8[Tensor, "b t"]
    beside: Mapping[str, Any]
    lengths: tuple[int, ...]
    family: Family = field(repr=False)
    padding: Literal["right", "left"] = "right"

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def image_mask(self) -> Bool[Tensor, "b t"]:
        """Image positions, newlines included."""
        return self.role >= int(Role.IMAGE)

    @property
    def text_mask(self) -> Bool[Tensor, "b t"]:
        """Positions of the samples' own text."""
        return self.role == int(Role.TEXT)

    def inputs(self) -> dict[str, Any]:
        """Arguments of the model's forward pass.

        With padding on the right there is no attention mask: causal attention keeps real positions from seeing what comes after
        them, and without a mask the fast attention kernels apply; only where a prompt sees itself in both directions padding
        is masked. With padding on the left, positions are counted from the first real one.
        """
        inputs: dict[str, Any] = {"input_ids": self.input_ids, **self.beside}
        uneven = min(self.lengths) < self.input_ids.shape[1]
        if uneven and (self.padding == "left" or self.family.attention == "prefix"):
            inputs["attention_mask"] = self.attention_mask.long()
        if uneven and self.padding == "left" and self.family.rope_axes == 1:
            places = (self.attention_mask.long().cumsum(1) - 1).clamp(min=0)
            inputs["position_ids"] = places + self.family.first_position
        return inputs

    def prompt(self) -> dict[str, Any]:
        """Arguments of `generate`, for a batch padded on the left.

        Raises:
            ValueError: Rows of different lengths are padded on the right, where generation would continue the padding.
        """
        if self.padding == "right" and min(self.lengths) < self.input_ids.shape[1]:
            raise ValueError("generation continues the end of a row: collate with padding='left'")
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask.long(), **self.beside}


def pack(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group sequences of similar length into micro-batches.

    Longest first, so that a batch that does not fit into memory shows at once; equal lengths keep their order.

    Args:
        lengths: Positions of each sequence.
        token_budget: Most positions of a batch, padding included (longest length times rows). A longer sequence goes alone.

    Returns:
        Indices into `lengths`, each exactly once.

    Raises:
        ValueError: The budget is not positive.

    >>> pack([3, 9, 4, 1], token_budget=8)
    [[1], [2, 0], [3]]
    """
    if token_budget < 1:
        raise ValueError(f"token_budget must be at least 1, got {token_budget}")
    batches: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and longest * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(i)
        else:
            batches.append([i])
            longest = lengths[i]
    return batches


def collate(prepared: Sequence[Prepared], vlm: VLM, padding: Literal["right", "left"] = "right") -> Batch:
    """Prepared sequences as one padded batch on the model's device, pixels normalised there.

    On a GPU the copies go through pinned memory and do not wait: the uint8 tiles travel, a quarter of the bytes of floats.

    Args:
        prepared: At least one sequence.
        vlm: Where to, which dtype, and whose normalisation.
        padding: Right for recording, left for generation.

    Raises:
        ValueError: Nothing to collate.
    """
    if not prepared:
        raise ValueError("cannot collate an empty list of sequences")
    lengths = tuple(len(one) for one in prepared)
    b, t = len(prepared), max(lengths)
    ids = _host((b, t), torch.int64, vlm)
    role = _host((b, t), torch.uint8, vlm)
    real = _host((b, t), torch.bool, vlm)
    for tensor, filling in ((ids, _pad_id(vlm)), (role, int(Role.TEMPLATE)), (real, False)):
        tensor.fill_(filling)
    for i, one in enumerate(prepared):
        at = slice(0, len(one)) if padding == "right" else slice(t - len(one), t)
        ids.numpy()[i, at], role.numpy()[i, at], real.numpy()[i, at] = one.input_ids, one.role, True
    family, on_device, of = vlm.family, _send(ids, vlm), _send(role, vlm)
    beside = family.marks(of >= int(Role.IMAGE), of == int(Role.TEXT))
    images = [one for one in prepared if one.pixels is not None]
    if images:
        counts = [len(one.image_sizes) for one in images]
        beside |= family.pixel_inputs(_pixels(images, vlm), _sizes(images), counts, vlm.card.vision)
    return Batch(on_device, _send(real, vlm), of, beside, lengths, family, padding)


def _pixels(images: Sequence[Prepared], vlm: VLM) -> Float[Tensor, "tiles 3 h w"]:
    parts = [one.pixels for one in images if one.pixels is not None]
    tiles = _host((sum(map(len, parts)), *parts[0].shape[1:]), torch.uint8, vlm)
    np.concatenate(parts, out=tiles.numpy())
    return normalise(_send(tiles, vlm), vlm.processor.image_processor).to(vlm.dtype)


def _sizes(images: Sequence[Prepared]) -> dict[str, Int[Tensor, "images n"]]:
    return {name: torch.tensor([row for one in images for row in one.sizes[name]]) for name in images[0].sizes}


def normalise(tiles: UInt8[Tensor, "tiles 3 h w"], image_processor: Any) -> Float[Tensor, "tiles 3 h w"]:
    """Tiles as the image processor's own rescaling and normalisation would leave them, in float32, on the tiles' device."""
    x = tiles.to(torch.float32)
    if image_processor.do_rescale:
        x = x.mul_(image_processor.rescale_factor)
    if image_processor.do_normalize:
        mean, std = (_by_channel(tuple(stat), tiles.device) for stat in (image_processor.image_mean, image_processor.image_std))
        x = x.sub_(mean).div_(std)
    return x


@lru_cache(maxsize=64)
def _by_channel(values: tuple[float, ...], device: torch.device) -> Float[Tensor, "3 1 1"]:
    """Numbers that lie on the device already: to bring them there for each batch is to wait each time until it is idle."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def _host(shape: tuple[int, ...], dtype: torch.dtype, vlm: VLM) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=vlm.device.type == "cuda")


def _send(tensor: Tensor, vlm: VLM) -> Tensor:
    return tensor.to(vlm.device, non_blocking=True)


def _pad_id(vlm: VLM) -> int:
    """Any id but the image placeholder's, which the model would try to fill with a patch."""
    own = vlm.processor.tokenizer.pad_token_id
    if own is not None and own != vlm.card.image_token_id and own < vlm.card.vocab_size:
        return own
    return 1 if vlm.card.image_token_id == 0 else 0
