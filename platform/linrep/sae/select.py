"""Which latents of which rows are active: sparse codes, found without ever holding the pre-activations of all rows at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.sae.ops import bag_of_each, offsets_of, sampled_dots
from linrep.sae.over_workers import largest_of_all
from linrep.workers import ALONE, Workers


@dataclass(frozen=True)
class Codes:
    """The active latents of n rows, row after row; equal in meaning to a dense [n, f] tensor.

    Attributes:
        offsets: Where each row begins, and the number of entries at the end.
        latents: Latent of each entry.
        values: Its activation, 0 or more.
        n_latents: f.
    """

    offsets: Int[Tensor, " n_1"]
    latents: Int[Tensor, " s"]
    values: Float[Tensor, " s"]
    n_latents: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self) -> Int[Tensor, " s"]:
        """The row of each entry."""
        return bag_of_each(self.offsets, len(self.latents))

    def dense(self) -> Float[Tensor, "n f"]:
        """The same as a dense tensor: for small sizes."""
        out = self.values.new_zeros(len(self), self.n_latents)
        out[self.rows(), self.latents] = self.values
        return out

    @classmethod
    def from_dense(cls, z: Float[Tensor, "n f"]) -> "Codes":
        """The entries above 0 of a dense tensor."""
        rows, latents = (z > 0).nonzero(as_tuple=True)
        return cls(offsets_of(torch.bincount(rows, minlength=len(z))), latents, z[rows, latents], z.shape[1])


@dataclass(frozen=True)
class Encoder:
    """What makes pre-activations, and the room to do so.

    Attributes:
        weight: One row a latent.
        bias: One a latent.
        scale: Factor on each latent while it is compared with others (the norm of its decoder row); None for 1.
        scratch: Room for the pre-activations of some rows: its height is the number of rows worked on at once. In bfloat16 the
            product runs in that format, and the chosen values are computed again in the weights' own.
    """

    weight: Float[Tensor, "f d"]
    bias: Float[Tensor, " f"]
    scale: Float[Tensor, " f"] | None
    scratch: Float[Tensor, "r f"]

    def compared(self, x: Float[Tensor, "n d"]) -> Iterator[tuple[slice, Float[Tensor, "c f"]]]:
        """Pre-activations as they are compared, some rows at a time; each overwrites the one before."""
        kind, step = self.scratch.dtype, len(self.scratch)
        weight, bias = self.weight.to(kind).t(), self.bias.to(kind)
        for start in range(0, len(x), step):
            rows = slice(start, min(start + step, len(x)))
            pre = torch.addmm(bias, x[rows].to(kind), weight, out=self.scratch[: rows.stop - start])
            yield rows, pre if self.scale is None else pre.mul_(self.scale)

    def values(self, x: Float[Tensor, "n d"], compared: Float[Tensor, " s"], latents: Tensor, offsets: Tensor) -> Tensor:
        """Activations of the chosen entries, from the values by which they were chosen."""
        if self.scratch.dtype != self.weight.dtype:
            return (sampled_dots(x, self.weight, latents, offsets) + self.bias[latents]).relu_()
        return compared.relu_() if self.scale is None else compared.relu_().div_(self.scale[latents])


def scratch(n_rows: int, n_latents: int, budget: int, like: Tensor, dtype: torch.dtype | None = None) -> Float[Tensor, "r f"]:
    """Room for the pre-activations of as many rows as fit into a number of bytes, at least one."""
    kind = like.dtype if dtype is None else dtype
    rows = max(1, min(n_rows, budget // (n_latents * kind.itemsize)))
    rows = -(-n_rows // -(-n_rows // rows))  # equal pieces: a short last one would waste the product's speed
    return torch.empty(rows, n_latents, dtype=kind, device=like.device)


def largest(pre: Float[Tensor, "n f"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k largest entries of each row and where they are, in no order.

    The row is cut into groups. The k largest entries lie in the k groups of the largest maxima (an entry outside of these has k
    maxima above it), so only k groups need a selection. A group takes every m-th column, which makes its maximum a plain
    elementwise one over contiguous memory.
    """
    n, f = pre.shape
    k = min(k, f)
    size = _group_size(f, k)
    if size == 1:
        found = pre.topk(k, dim=1, sorted=False)
        return found.values, found.indices
    m = f // size
    body = pre[:, : m * size].unflatten(1, (size, m))
    groups = body.amax(1).topk(k, dim=1, sorted=False).indices
    candidates = body.gather(2, groups[:, None, :].expand(n, size, k)).flatten(1)
    if m * size < f:
        candidates = torch.cat([candidates, pre[:, m * size :]], dim=1)
    found = candidates.topk(k, dim=1, sorted=False)
    row, column = found.indices // k, found.indices % k  # of the group's members, and of the groups
    return found.values, torch.where(row < size, row * m + groups.gather(1, column), found.indices - size * k + size * m)


def _group_size(f: int, k: int) -> int:
    """The power of two nearest to where f / size + k * size is least; 1 where groups do not pay."""
    size = 1
    while (size * 2) ** 2 <= 2 * f / k:
        size *= 2
    return size if size >= 8 and f // size >= k else 1


def top_k(encoder: Encoder, x: Float[Tensor, "n d"], k: int, workers: Workers = ALONE) -> Codes:
    """The k largest pre-activations of each row; those that are not positive stay as zeros.

    Args:
        encoder: What makes them.
        x: What it sees.
        k: Of each row.
        workers: Whose latents are chosen from; the codes are of this one's.
    """
    found = [largest(pre, k) for _, pre in encoder.compared(x)]
    latents = torch.cat([latents for _, latents in found])
    width = latents.shape[1]
    offsets = torch.arange(len(x) + 1, device=x.device) * width
    compared = torch.cat([values for values, _ in found]).to(x.dtype)
    latents, compared = latents.flatten(), compared.flatten()
    if workers.n_workers > 1:
        kept, _ = largest_of_all(compared.view(len(x), width), k, workers)
        offsets, kept = offsets_of(kept.sum(1)), kept.flatten()
        latents, compared = latents[kept], compared[kept]
    return Codes(offsets, latents, encoder.values(x, compared, latents, offsets), len(encoder.bias))


def batch_top_k(encoder: Encoder, x: Float[Tensor, "n d"], k: int, workers: Workers = ALONE) -> tuple[Codes, Float[Tensor, ""]]:
    """The n k largest positive pre-activations of n rows, and the least of them; of several workers see `top_k`.

    Each row first offers its 2 k largest. Their (n k)-th value bounds the true one from below, so a row is asked again, for
    more, only where even its least offer is above that bound.

    Source: Bussmann et al., "BatchTopK sparse autoencoders", 2024.
    """
    n, f = len(x), len(encoder.bias)
    offered, waiting, m = _Offers.none(x), torch.arange(n, device=x.device), min(f, 2 * k)
    while len(waiting):
        asked = _Offers.of(encoder, x, waiting, m)
        bound = torch.cat([offered.values, asked.values]).topk(min(n * k, len(offered.values) + len(asked.values))).values[-1]
        more = (asked.values.view(-1, m).amin(1) > bound) & (m < f)
        offered, waiting, m = offered + asked.without(more, m), waiting[more], min(f, 4 * m)
    # The bound is only final with the last offers: earlier rounds saw a lower one.
    chosen, best = offered.chosen(n * k), None
    if workers.n_workers > 1:
        kept, best = largest_of_all(chosen.values[None], n * k, workers)
        chosen = _Offers(chosen.rows[kept[0]], chosen.latents[kept[0]], chosen.values[kept[0]])
    by_row = chosen.rows.argsort(stable=True)
    rows, latents, compared = chosen.rows[by_row], chosen.latents[by_row], chosen.values[by_row]
    offsets = offsets_of(torch.bincount(rows, minlength=n))
    of_all = compared if best is None else best[best > 0]
    least = of_all.amin() if len(of_all) else of_all.new_zeros(())
    return Codes(offsets, latents, encoder.values(x, compared, latents, offsets), f), least


@dataclass(frozen=True)
class _Offers:
    """Entries that may be among the largest of a batch."""

    rows: Int[Tensor, " s"]
    latents: Int[Tensor, " s"]
    values: Float[Tensor, " s"]

    @classmethod
    def none(cls, x: Tensor) -> "_Offers":
        nothing = torch.empty(0, dtype=torch.int64, device=x.device)
        return cls(nothing, nothing, x.new_empty(0))

    @classmethod
    def of(cls, encoder: Encoder, x: Tensor, rows: Int[Tensor, " w"], m: int) -> "_Offers":
        found = [largest(pre, m) for _, pre in encoder.compared(x if len(rows) == len(x) else x[rows])]
        values, latents = (torch.cat(parts).flatten() for parts in zip(*found, strict=True))
        return cls(rows.repeat_interleave(m), latents, values.to(x.dtype))

    def __add__(self, other: "_Offers") -> "_Offers":
        pairs = ((self.rows, other.rows), (self.latents, other.latents), (self.values, other.values))
        return _Offers(*(torch.cat(pair) for pair in pairs))

    def without(self, out: Bool[Tensor, " w"], m: int) -> "_Offers":
        keep = (~out).repeat_interleave(m)
        return _Offers(self.rows[keep], self.latents[keep], self.values[keep])

    def chosen(self, count: int) -> "_Offers":
        best = self.values.topk(min(count, len(self.values)), sorted=False).indices
        best = best[self.values[best] > 0]
        return _Offers(self.rows[best], self.latents[best], self.values[best])
