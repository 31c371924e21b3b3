"""Training batches of the decoder: one context (an image's features or words), several questions about it, one pass.

The turns of a sample are branches: each sees the context and itself, none sees another, each continues the positions where the
context ended. So every branch is computed exactly as if it were the only one, and an image's hundred tokens are paid for once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class Turn:
    """Token ids after the context: what is given, and what has to be said."""

    given: list[int]
    said: list[int]


@dataclass(frozen=True)
class Sample:
    """A context and the turns that follow it.

    context: token ids; learn_context: whether the words of the context are to be learnt, too (texts) or not (images).
    """

    context: list[int]
    turns: list[Turn]
    learn_context: bool = False


@dataclass(frozen=True)
class Batch:
    """Padded samples. `branch` is 0 on the context, 1.. on the turns, -1 on padding; `labels` are aligned with the next token."""

    ids: Int[Tensor, "b t"]
    positions: Int[Tensor, "b t"]
    branch: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]

    def mask(self) -> Bool[Tensor, "b 1 t t"]:
        """Who may look at whom: back in its own branch and in the context, and always at itself, so that no row is empty."""
        t = self.ids.shape[1]
        causal = torch.ones(t, t, dtype=torch.bool).tril()
        query, key = self.branch[:, :, None], self.branch[:, None, :]
        allowed = causal & ((key == query) | (key == 0)) & (key >= 0)
        return (allowed | torch.eye(t, dtype=torch.bool))[:, None]


def collate(samples: list[Sample], pad_id: int) -> Batch:
    """Lay samples out as branches and pad them on the right."""
    rows = [_lay_out(sample) for sample in samples]
    longest = max(len(row[0]) for row in rows)
    fill = (pad_id, 0, -1, IGNORE)
    columns = [torch.tensor([row[i] + [fill[i]] * (longest - len(row[i])) for row in rows]) for i in range(4)]
    return Batch(*columns)


def _lay_out(sample: Sample) -> tuple[list[int], list[int], list[int], list[int]]:
    n = len(sample.context)
    ids, positions, branch = list(sample.context), list(range(n)), [0] * n
    # the last context token's successor differs from turn to turn, so it is learnt from the turns only
    labels = [*sample.context[1:], IGNORE] if sample.learn_context else [IGNORE] * n
    for number, turn in enumerate(sample.turns, start=1):
        words = turn.given + turn.said
        ids += words
        positions += range(n, n + len(words))
        branch += [number] * len(words)
        labels += [IGNORE] * (len(turn.given) - 1) + turn.said + [IGNORE]
    return ids, positions, branch, labels


def answer_loss(logits: Float[Tensor, "b t v"], labels: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the tokens that are to be said."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
