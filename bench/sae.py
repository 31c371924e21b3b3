"""One training step of a TopK SAE: `python -m bench.sae`.

Against its floor, the encoder's forward product alone, and against other libraries where they are installed, all in one
interleaved run; then how well each reconstructs held-out rows after equal steps from equal weights, since a fast step that
learns less is no gain. SAELens and dictionary_learning clip gradients at norm 1, which under Adam acts like a higher learning
rate in a short training, so this library stands there as it is and clipped. One row of the first part is a step in which half
of the latents are dead and AuxK teaches them. On a machine that others use too, `--threads 1 --cpu-time` counts the
processor's time instead of the clock's.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.sae_peers import Peer, available
from bench.timing import interleave, report
from linrep.sae.config import Adam, SaeDesign, TopK
from linrep.sae.start import unit_rows
from linrep.sae.train import Rows, Trainer

RATE = 1e-3
SIZES = {"768x12288": (768, 12288, 32, 2048), "256x4096": (256, 4096, 32, 2048), "512x32768": (512, 32768, 64, 1024)}

SMALL = (128, 1024, 16, 1024)
"""Of the long comparison at equal loss."""


class Ours:
    """This library's trainer behind the peers' interface."""

    clip: float | None = None

    def __init__(self, decoder: Tensor, b_dec: Tensor, k: int, rate: float) -> None:
        f, d = decoder.shape
        adam = Adam(learning_rate=rate, warmup=0.0, decay=0.0, clip=self.clip)
        config = SaeDesign(activation=TopK(k=k), expansion=f / d, adam=adam)
        weights = {"encoder": decoder.clone(), "b_enc": torch.zeros(f), "decoder": decoder.clone(), "b_dec": b_dec.clone()}
        self.trainer = Trainer(config, weights, steps=10**9)

    def step(self, x: Tensor) -> None:
        """Take one step."""
        self.trainer.take(Rows(x, torch.zeros(len(x), dtype=torch.bool)))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Inputs as the SAE sees them."""
        return self.trainer.sae()(x)


class Clipped(Ours):
    """The same with gradients clipped at norm 1."""

    clip = 1.0


class HalfDead(Ours):
    """The same where every second latent counts as dead before each step, so that AuxK teaches it."""

    def step(self, x: Tensor) -> None:
        """Take one step."""
        self.trainer.since_fired[::2] = 10**9
        super().step(x)


OURS = {"linrep": Ours, "linrep, half dead": HalfDead}


def data(n: int, d: int, n_features: int, active: int, seed: int) -> Tensor:
    """Sparse sums of fixed directions, as residual streams are taken to be, at a mean norm of sqrt(d)."""
    generator = torch.Generator().manual_seed(seed)
    directions = unit_rows(n_features, d, seed=123)
    chosen = torch.randint(n_features, (n, active), generator=generator)
    amounts = torch.rand(n, active, generator=generator) + 0.5
    x = torch.einsum("na,nad->nd", amounts, directions[chosen]) + 0.3 * unit_rows(1, d, seed=124)
    return x * (d**0.5 / x.norm(dim=1).mean())


def speed(size: str, rounds: int, clock: Callable[[], float]) -> None:
    """Time every contender's step."""
    d, f, k, n = SIZES[size]
    x, decoder = data(n, d, 2 * d, 16, seed=0), unit_rows(f, d, seed=0)
    peers, missing = available()
    contenders: dict[str, Peer] = {name: make(decoder, x.mean(0), k, RATE) for name, make in OURS.items()}
    contenders |= {name: make(decoder, x.mean(0), k, RATE) for name, make in peers.items()}
    out, bias = torch.empty(n, f), torch.zeros(f)

    def timed(rows: float, call: Callable[[], object]) -> tuple[float, float]:
        start = clock()
        call()
        return rows, clock() - start

    work = {"encoder product": lambda: timed(n, lambda: torch.addmm(bias, x, decoder.t(), out=out))}
    work |= {name: (lambda peer=peer: timed(n, lambda: peer.step(x))) for name, peer in contenders.items()}
    rates = interleave(work, rounds, "rows")
    targets = {"SAELens": 6.0, "sparsify": 1.8, "dictionary_learning": None}
    report(
        f"a TopK step: d {d}, {f} latents, k {k}, {n} rows, float32, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, by {clock.__name__}",
        rates,
        # A step within 1.4 times the product's time runs at 1 / 1.4 of its rate.
        [("linrep", "encoder product", round(1 / 1.4, 3)), ("linrep, half dead", "encoder product", None)]
        + [("linrep", name, targets[name]) for name in peers],
    )
    for name, reason in missing.items():
        print(f"  {name}: skipped, {reason}")


def loss(steps: int, d: int, f: int, k: int, n: int) -> None:
    """Train every contender from equal weights on equal batches, and score held-out rows."""
    x = data((steps + 2) * n, d, 4 * d, 12, seed=1)
    train, held_out, decoder = x[: steps * n], x[-2 * n :], unit_rows(f, d, seed=0)
    peers, _ = available()
    made = {"linrep": Ours, "linrep, clipped": Clipped} | peers
    results = {}
    for name, make in made.items():
        peer = make(decoder, train[:n].mean(0), k, RATE)
        for batch in train.split(n):
            peer.step(batch)
        with torch.no_grad():
            error = (peer.reconstruct(held_out) - held_out).square().sum()
        results[name] = float(error / (held_out - held_out.mean(0)).square().sum())
    print(f"\nheld-out FVU after {steps} steps from equal weights: d {d}, {f} latents, k {k}, {n} rows, learning rate {RATE}")
    for name, fvu in results.items():
        print(f"  {name}: {fvu:.4f}")
    print(json.dumps({"title": "held-out FVU after equal steps", "d": d, "latents": f, "steps": steps, "fvu": results}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200, help="of the comparison at equal loss; 0 leaves it out")
    parser.add_argument("--timed-steps", type=int, default=20, help="of the same at the first of the sizes; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cpu-time", action="store_true", help="count the processor's time, for machines that are not idle")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    for size in args.sizes:
        speed(size, args.rounds, time.process_time if args.cpu_time else time.perf_counter)
    if args.steps:
        loss(args.steps, *SMALL)
    if args.timed_steps:
        loss(args.timed_steps, *SIZES[args.sizes[0]])


if __name__ == "__main__":
    main()
