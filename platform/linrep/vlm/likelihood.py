"""How likely the model finds the samples' own texts: its predictions where the next token is theirs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from linrep.vlm.batch import Batch, collate, pack
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared


def predicting(batch: Batch) -> tuple[Int[Tensor, " s"], Int[Tensor, " s"]]:
    """Rows and columns of the positions whose next token is the sample's own text."""
    rows, columns = batch.text_mask[:, 1:].nonzero(as_tuple=True)
    return rows, columns


def log_probabilities(vlm: VLM, batch: Batch, rows: Tensor, columns: Tensor) -> Float[Tensor, "s vocabulary"]:
    """Of the next token at some positions only: logits of all positions of a long image would fill a GPU."""
    hidden = vlm.inner(**batch.inputs(), use_cache=False).last_hidden_state
    return vlm.family.logits(vlm.model, hidden[rows, columns]).float().log_softmax(1)


def cross_entropy(log_probabilities: Float[Tensor, "s vocabulary"], targets: Int[Tensor, " s"]) -> Float[Tensor, " s"]:
    """Nats that each target costs."""
    return -log_probabilities.gather(1, targets[:, None].long())[:, 0]


@torch.inference_mode()
def likeliest(vlm: VLM, texts: Sequence[Prepared], n: int, tokens_per_batch: int) -> list[Prepared]:
    """The n texts that cost the model least per token, in the order in which they came; all of them where there are no more.

    A model says one thing in the wording that it has learnt. The loss on another wording is that of the wording, whatever
    happens to the image, so what an edit breaks is read on texts that the model would say itself.

    Args:
        vlm: The whole model, with its head.
        texts: Samples with text of their own; those without come last.
        n: How many are kept.
        tokens_per_batch: Positions of a micro-batch.
    """
    if len(texts) <= n:
        return list(texts)
    nats = nats_per_token(vlm, texts, tokens_per_batch)
    return [texts[i] for i in sorted(nats.argsort(stable=True)[:n].tolist())]


@torch.inference_mode()
def nats_per_token(vlm: VLM, texts: Sequence[Prepared], tokens_per_batch: int) -> Float64[Tensor, " n"]:
    """What each text costs the model per token of its own; infinite for samples without text.

    Args:
        vlm: The whole model, with its head.
        texts: Samples.
        tokens_per_batch: Positions of a micro-batch.
    """
    nats = torch.full((len(texts),), torch.inf, dtype=torch.float64)
    for indices in pack([len(one) for one in texts], tokens_per_batch):
        batch = collate([texts[i] for i in indices], vlm)
        rows, columns = predicting(batch)
        losses = cross_entropy(log_probabilities(vlm, batch, rows, columns), batch.input_ids[rows, columns + 1])
        for row, i in enumerate(indices):
            if len(own := losses[rows == row]):
                nats[i] = own.double().mean().item()
    return nats
