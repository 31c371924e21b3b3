"""What wide SAEs cost on several workers, worked out and not measured; run as a module it prints the table of docs/cluster.md.

Memory and bytes that move in a step, by the same rules that training follows, beside what a step would move if every worker had
all latents and some of the rows: an all-reduce of the gradients of both matrices.
"""

from dataclasses import dataclass

from linrep.sae.config import BatchTopK, SaeDesign, TopK
from linrep.sae.over_workers import offered
from linrep.sae.shard import widest

FLOAT = 4
"""Bytes of a weight, a moment and a gradient."""
STORED = 2
"""Bytes of a stored number in half precision: rows travel as they are stored."""


@dataclass(frozen=True)
class StepCost:
    """Bytes of one worker.

    Attributes:
        weights: Encoder, decoder and their moments: as long as it trains.
        gradients: Of both matrices, on a GPU, which takes all latents at once; a CPU takes 24 MB at a time.
        rows: Received in a step: the batch, from the worker that has read it.
        sums: Likewise: reconstructions, and those of dead latents.
        candidates: Likewise: values by which latents are chosen.
        dense: What it would receive for the gradients of both matrices.
    """

    weights: float
    gradients: float
    rows: float
    sums: float
    candidates: float
    dense: float

    @property
    def moved(self) -> float:
        """Received in a step."""
        return self.rows + self.sums + self.candidates

    @property
    def share(self) -> float:
        """Of the gradients of both matrices."""
        return self.moved / self.dense if self.dense else 0.0


def step_cost(design: SaeDesign, width: int, batch: int, n_workers: int, reviving: bool = True) -> StepCost:
    """Memory and bytes of a step of TopK or BatchTopK, where no row has to be asked twice for its largest.

    Args:
        design: The SAE.
        width: Of the residual stream.
        batch: Rows of a step.
        n_workers: Workers.
        reviving: Whether more latents are dead than take part in a row, which costs most.

    Raises:
        ValueError: Of another architecture.
    """
    if not isinstance(design.activation, TopK | BatchTopK):
        raise ValueError(f"worked out for topk and batch_topk, got {design.activation.kind}")
    others, n_latents, k = n_workers - 1, design.n_latents(width), design.activation.k
    matrices = 2 * widest(n_latents, n_workers) * width * FLOAT
    ring = 2 * others / n_workers
    candidates = batch * offered(k, n_workers)
    if isinstance(design.activation, BatchTopK):
        candidates = offered(batch * k, n_workers)
    sums = batch * width + width
    if design.aux is not None and reviving:
        revived = max(1, width // 2) if design.aux.k is None else design.aux.k
        sums, candidates = sums + batch * width, candidates + batch * offered(revived, n_workers)
    return StepCost(
        weights=3.0 * matrices,
        gradients=float(matrices),
        rows=float(batch * width * STORED) if others else 0.0,
        sums=ring * sums * FLOAT,
        candidates=float(others * candidates * FLOAT),
        dense=ring * 2 * n_latents * width * FLOAT,
    )


def table(n_latents: int = 131072, width: int = 4096, k: int = 256, batch: int = 2048) -> str:
    """Costs by number of workers, in Markdown."""
    design = SaeDesign(activation=TopK(k=k), expansion=n_latents / width)
    lines = [
        "| workers | weights and moments | gradients on a GPU | rows | sums | candidates "
        "| moved in a step | dense gradients | share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n in (1, 2, 4, 8, 16, 32):
        cost = step_cost(design, width, batch, n)
        held = f"{cost.weights / 1e9:.2f} GB | {cost.gradients / 1e9:.2f} GB"
        parts = " | ".join(f"{part / 1e6:.0f} MB" for part in (cost.rows, cost.sums, cost.candidates, cost.moved))
        lines.append(f"| {n} | {held} | {parts} | {cost.dense / 1e9:.2f} GB | {f'{cost.share:.1%}' if n > 1 else ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
