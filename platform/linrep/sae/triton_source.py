"""The source that Triton compiles; import it through `linrep.sae.kernels`, which does so only where Triton is.

Triton reads these functions as text: their arguments are pointers and sizes and carry no shape annotations.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def gather_sum(table, indices, weights, offsets, out, d, block: tl.constexpr):
    bag = tl.program_id(0)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < d
    total = tl.zeros([block], dtype=out.dtype.element_ty)
    for s in range(tl.load(offsets + bag), tl.load(offsets + bag + 1)):
        row = tl.load(indices + s).to(tl.int64)  # row * d passes 2**31 at 131,072 x 16,384
        total += tl.load(weights + s) * tl.load(table + row * d + columns, mask=inside, other=0.0)
    tl.store(out + bag.to(tl.int64) * d + columns, total, mask=inside)


@triton.jit
def sampled_dots(a, b, columns, offsets, out, d, block: tl.constexpr):
    bag = tl.program_id(0)
    for s in range(tl.load(offsets + bag), tl.load(offsets + bag + 1)):
        row = tl.load(columns + s).to(tl.int64)
        total = tl.zeros([block], dtype=out.dtype.element_ty)
        for start in range(0, d, block):
            at = start + tl.arange(0, block)
            left = tl.load(a + bag.to(tl.int64) * d + at, mask=at < d, other=0.0)
            total += left * tl.load(b + row * d + at, mask=at < d, other=0.0)
        tl.store(out + s, tl.sum(total, axis=0))
