"""Train SAEs on batches of rows: `Trainer` steps one of them, `fit` drives several over one pass and yields metrics.

Knows no files and no cluster: batches come from an iterator, what other workers have of the latents goes through `Workers`, and
the complete state is a `state_dict`. Every worker takes every batch, with the latents that it has: weights, moments and counts of
a latent lie on one worker alone, and no gradient of a matrix moves.

After the first weights nothing draws random numbers: weights, moments, counts and the step are all there is.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.errors import TrainingFailed
from linrep.sae.adam import Moments, block_rows
from linrep.sae.architecture import Architecture, Step
from linrep.sae.architectures import architecture_of
from linrep.sae.auxk import Revival
from linrep.sae.config import Product, SaeDesign
from linrep.sae.machine import room_bytes
from linrep.sae.passes import Gradients, Pass, Weights
from linrep.sae.sae import Sae
from linrep.sae.schedule import learning_rate, warmth
from linrep.sae.select import scratch
from linrep.sae.shard import Shard
from linrep.sae.start import first_weights
from linrep.sae.window import Window
from linrep.workers import ALONE, Workers

THRESHOLD_RATE = 0.05
"""Weight of the newest batch in the running threshold of BatchTopK, which so remembers about the last twenty."""


@dataclass(frozen=True)
class Rows:
    """A batch.

    Attributes:
        x: Residual-stream vectors, already scaled, in the number format of training.
        is_text: True for text rows, False for image rows.
    """

    x: Float[Tensor, "n d"]
    is_text: Bool[Tensor, " n"]


@dataclass(frozen=True)
class Metrics:
    """What happened since the last report, in one SAE.

    Attributes:
        trainer: Which one, counted from 0 in the order given to `fit`.
        step: Steps taken.
        values: By name: `loss`, `penalty`, `auxiliary`, `dead` (share), `learning_rate`, and for each modality that had rows
            `fvu/image`, `l0/image`, ...; over all workers.
    """

    trainer: int
    step: int
    values: dict[str, float]


class Trainer:
    """One SAE in training."""

    def __init__(
        self,
        config: SaeDesign,
        weights: Weights,
        steps: int,
        workers: Workers = ALONE,
        room: int | None = None,
        product: Product = "float32",
        frozen: Collection[str] = (),
        architecture: Architecture | None = None,
    ) -> None:
        """Start from some weights; `Trainer.begin` makes them.

        Args:
            config: The SAE.
            weights: Its first weights, which training overwrites; of the latents that lie on this worker.
            steps: Steps of the whole run, for the schedules.
            workers: Who has the other latents.
            room: Bytes of pre-activations held at once; what suits the device if left out.
            product: Format of dense products. TopK-like architectures only compare pre-activations in it, and the chosen values
                are the weights' own; the others run under autocast.
            frozen: Names of weights that stay as they began.
            architecture: One that no recipe names, in the place of the config's; the weights are then its own first ones.

        Raises:
            ValueError: The latents of this architecture cannot lie on several workers.
        """
        self.config, self.weights, self.steps = config, weights, steps
        self._architecture = architecture_of(config.activation) if architecture is None else architecture
        self.workers, self._frozen = workers, frozen
        if workers.n_workers > 1 and self._architecture.common is None:
            raise ValueError(f"the latents of {config.activation.kind} cannot lie on several workers")
        f, d = weights["decoder"].shape
        n_latents = f if workers.n_workers == 1 else config.n_latents(d)
        self.shard = Shard.of(n_latents, workers.rank, workers.n_workers)
        self.moments = Moments({n: w for n, w in weights.items() if n not in self._architecture.derived and n not in frozen})
        self.step = 0
        self.since_fired = torch.zeros(len(weights["decoder"]), dtype=torch.int64, device=weights["decoder"].device)
        self.threshold = weights["b_dec"].new_zeros(())
        self.window = Window.empty(weights["b_dec"])
        self._room_bytes = self._least(room_bytes(weights["b_dec"].device) if room is None else room)
        self._room = weights["b_dec"].new_empty(0, 0)
        self.product: Product = product
        if config.decoder == "unit":
            _to_unit(weights["decoder"])

    @classmethod
    def begin(
        cls, config: SaeDesign, sample: Float[Tensor, "n d"], steps: int, workers: Workers = ALONE, **rest: Any
    ) -> "Trainer":
        """Start with random directions about the center of a sample, which must be the same on all workers.

        Args:
            config: The SAE.
            sample: Rows of several shards, scaled as training's are, on the device of training.
            steps: Steps of the whole run.
            workers: Over which its latents lie.
            rest: As for `Trainer`.
        """
        shard = Shard.of(config.n_latents(sample.shape[1]), workers.rank, workers.n_workers)
        return cls(config, first_weights(config, sample, shard), steps, workers, **rest)

    @property
    def common(self) -> tuple[str, ...]:
        """Weights that every worker has whole."""
        return self._architecture.common or ()

    @property
    def done(self) -> bool:
        """Whether the run has taken all its steps."""
        return self.step >= self.steps

    def take(self, rows: Rows) -> None:
        """One step.

        Raises:
            ValueError: The batch has another width than the SAE, or no rows.
        """
        n, d = rows.x.shape
        if d != self.weights["decoder"].shape[1] or n == 0:
            raise ValueError(f"the SAE takes rows of width {self.weights['decoder'].shape[1]}, got {n} of width {d}")
        done = self._pass(rows.x)
        self._update(done.gradients)
        self._count(done, n)
        self.window.add(rows.x, rows.is_text, done)
        self.step += 1

    def report(self) -> dict[str, float]:
        """Metrics since the last report, over all workers; begins a new window. All workers call this together.

        Raises:
            TrainingFailed: The loss is not finite.
        """
        values = self.window.close(self.workers)
        dead = (self.since_fired > self._dead_after).double().sum()
        self.workers.sum_([dead])
        values["dead"] = float(dead / self.shard.n_latents)
        values["learning_rate"] = self._rate(max(self.step - 1, 0))
        if not math.isfinite(values["loss"]):
            raise TrainingFailed(
                f"the loss of {self.config.activation.kind} is {values['loss']} at step {self.step}: "
                f"lower adam.learning_rate ({self.config.adam.learning_rate}) or look for infinite rows"
            )
        return values

    def sae(self) -> Sae:
        """The SAE as it is now, for inputs scaled as training's; a copy, with decoder rows of norm 1.

        Of several workers it has this one's latents.
        """
        w = {name: weight.clone() for name, weight in self.weights.items()}
        sae = self._architecture.sae(w, self.threshold, self.config.decoder == "unit")
        return replace(sae, about={"architecture": self.config.activation.kind})

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; the tensors are the live ones, so save or copy them before it."""
        return {
            "config": self.config.model_dump(mode="json"),
            "steps": self.steps,
            "step": self.step,
            "product": self.product,
            "weights": dict(self.weights),
            "mean": dict(self.moments.mean),
            "square": dict(self.moments.square),
            "since_fired": self.since_fired,
            "threshold": self.threshold,
            "window": self.window.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a trainer of the same run was, in the number format that it used, whatever this machine would choose.

        Raises:
            ValueError: The state is of another SAE or another length of run.
        """
        if (state["config"], state["steps"]) != (self.config.model_dump(mode="json"), self.steps):
            raise ValueError(
                f"the checkpoint is of another run: {state['config']} over {state['steps']} steps, "
                f"asked for {self.config.model_dump(mode='json')} over {self.steps}"
            )
        with torch.no_grad():
            for mine, saved in (
                (self.weights, state["weights"]),
                (self.moments.mean, state["mean"]),
                (self.moments.square, state["square"]),
            ):
                for name, tensor in mine.items():
                    tensor.copy_(saved[name])
        self.since_fired.copy_(state["since_fired"])
        self.threshold.copy_(state["threshold"])
        self.window.load_state_dict(state["window"])
        self.step, self.product = state["step"], state["product"]

    def _pass(self, x: Float[Tensor, "n d"]) -> Pass:
        norms = self.weights["decoder"].norm(dim=1).clamp_min_(1e-12) if self.config.decoder == "weighted" else None
        warm = warmth(self.step, self.steps, self.config.sparsity_warmup)
        step = Step(self._scratch(len(x)), self.workers, norms, self._revival(), warm, self.shard)
        return self._architecture.pass_over(self.weights, x, step)

    def _scratch(self, n: int) -> Float[Tensor, "r f"]:
        kind = torch.bfloat16 if self.product == "bfloat16" else None
        # As high on all workers: they stop at the same rows to add up.
        widest = -(-self.shard.n_latents // self.workers.n_workers)
        wanted = scratch(n, widest, self._room_bytes, self.weights["decoder"], kind)
        if len(self.shard) < widest:
            wanted = wanted.view(-1)[: len(wanted) * len(self.shard)].view(len(wanted), len(self.shard))
        if wanted.is_cuda:  # its allocator keeps the memory, and gives it to the next SAE of this pass over the data
            return wanted
        if (self._room.shape, self._room.dtype) != (wanted.shape, wanted.dtype):
            self._room = wanted
        return self._room

    @property
    def _dead_after(self) -> int:
        return self.config.aux.dead_after if self.config.aux is not None else 200_000

    def _revival(self) -> Revival | None:
        aux = self.config.aux
        if aux is None:
            return None
        dead = (self.since_fired > aux.dead_after).nonzero().flatten()
        k = max(1, self.weights["decoder"].shape[1] // 2) if aux.k is None else aux.k
        return Revival(dead, k, aux.weight)

    def _rate(self, step: int) -> float:
        adam = self.config.adam
        return learning_rate(step, self.steps, adam.learning_rate, adam.warmup, adam.decay)

    @torch.no_grad()
    def _update(self, gradients: Gradients) -> None:
        rate, unit = self._rate(self.step), self.config.decoder == "unit"
        if self._frozen:
            gradients = gradients.without(self._frozen)
        vectors = gradients.vectors
        for name in self.common:
            if name in vectors:  # one worker's for all, so that no rounding lets the copies drift apart
                self.workers.copy_(vectors[name], 0)
        if self.config.adam.clip is not None:
            whole = gradients.whole()
            self._clip(whole, self.config.adam.clip)
            vectors = {name: grad for name, grad in whole.items() if name in vectors}
            matrices = {name: grad for name, grad in whole.items() if name not in vectors}
            f = gradients.n_latents
            gradients = Gradients(vectors, lambda a, b: {name: grad[a:b] for name, grad in matrices.items()}, f)
        f, step = len(self.since_fired), block_rows(self.weights["decoder"])
        for first in range(0, f, step):
            rows = slice(first, min(first + step, f))
            grads, written = gradients.matrices(rows.start, rows.stop), self.weights["decoder"][rows]
            decoder = grads.get("decoder")
            if unit and decoder is not None:  # the part along a row would only be undone, and would disturb Adam's moments
                along = torch.linalg.vecdot(decoder, written) if gradients.along is None else gradients.along[rows]
                decoder.addcmul_(along[:, None], written, value=-1)
            self.moments.update(self.weights, grads, self.step, rate, rows)
            if unit and decoder is not None:
                _to_unit(written)
        self.moments.update(self.weights, vectors, self.step, rate)
        self._architecture.settle(self.weights)

    def _clip(self, grads: Weights, most: float) -> None:
        norms = torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()])
        if self.workers.n_workers > 1:
            shared = torch.tensor([name in self.common for name in grads], device=norms.device)
            squares = norms.square().masked_fill(shared, 0.0)
            self.workers.sum_([squares])
            norms = torch.where(shared, norms, squares.sqrt())
        factor = (most / torch.linalg.vector_norm(norms).clamp_min(1e-12)).clamp_max(1.0)
        for grad in grads.values():
            grad.mul_(factor)

    @torch.no_grad()
    def _count(self, done: Pass, n: int) -> None:
        self.since_fired.add_(n).masked_fill_(done.fired, 0)
        if done.threshold is not None:
            self.threshold.lerp_(done.threshold, max(THRESHOLD_RATE, 1 / (self.step + 1)))

    def _least(self, number: int) -> int:
        """The least of what the workers have."""
        each = self.workers.gather(torch.tensor([number], device=self.weights["b_dec"].device))
        return int(torch.cat(each).min())


def fit(batches: Iterable[Rows], trainers: Sequence[Trainer], every: int = 50) -> Iterator[Metrics]:
    """Train several SAEs over one pass of the batches; each takes the same steps as it would alone, bit for bit.

    Args:
        batches: As many as the longest run has steps left; ends early where they do.
        trainers: Runs not yet done; they may differ in everything but the width of their inputs.
        every: Steps between two reports of a trainer; the last step is always reported.

    Yields:
        Metrics, trainer by trainer. Between two of them every trainer may be saved: its state is that of `Metrics.step`.
    """
    if all(trainer.done for trainer in trainers):
        return
    for rows in batches:
        working = [(i, trainer) for i, trainer in enumerate(trainers) if not trainer.done]
        for _, trainer in working:
            trainer.take(rows)
        for i, trainer in working:
            if trainer.step % every == 0 or trainer.done:
                yield Metrics(i, trainer.step, trainer.report())
        if all(trainer.done for trainer in trainers):
            return


def _to_unit(rows: Float[Tensor, "l d"]) -> None:
    """Scale rows to norm 1, in place; rows of zeros stay."""
    rows.div_(rows.norm(dim=1, keepdim=True).clamp_min_(torch.finfo(rows.dtype).tiny))
