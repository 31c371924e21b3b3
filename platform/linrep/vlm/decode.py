"""Passes that continue each other through a cache: one prefix, many questions after it, greedy answers; edits act in all of them.

A prefix (start, image) is run once and its keys and values are kept; every question about the same image continues a copy.
Rows of unequal length are filled up on the right, also between prefix and question: padding is neither seen nor counted.
"""

# transformers leaves these types open.
# pyright: reportOptionalMemberAccess=false

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from linrep.vlm.batch import collate
from linrep.vlm.hooks import RowEdit, edit_rows, forward, record
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared


@dataclass(frozen=True)
class Edited:
    """Which edits act in one pass, and where.

    Attributes:
        edits: For each layer, as `linrep.vlm.hooks.edit_rows` takes them.
        mask: Over the positions of this pass alone; padding is never edited.
    """

    edits: Mapping[int, RowEdit]
    mask: Bool[Tensor, "b t"]


@dataclass(frozen=True)
class Context:
    """What the model has seen so far.

    Attributes:
        cache: Keys and values; never changed by a pass, which continues a copy.
        real: Which cached positions are real.
    """

    cache: Any
    real: Bool[Tensor, "b t"]

    def rows(self, rows: Sequence[int]) -> "Context":
        """A context of some of the rows, each as often as it is named."""
        index = torch.as_tensor(list(rows), device=self.real.device)
        cache = _copy(self.cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.index_select(0, index), layer.values.index_select(0, index)
        return Context(cache, self.real.index_select(0, index))


class _Enough(Exception):
    """Ends a pass whose first layer is all that is wanted."""


@torch.inference_mode()
def embed(vlm: VLM, prepared: Sequence[Prepared]) -> list[Float[Tensor, "_ d"]]:
    """Layer 0 of some sequences, the projected images merged in; no block is run."""
    batch = collate(prepared, vlm)
    found: list[Tensor] = []

    def take(layer: int, h: Float[Tensor, "b t d"]) -> None:
        found.append(h)
        raise _Enough

    try:
        with record(vlm, [0], take):
            forward(vlm, batch)
    except _Enough:
        pass
    return [found[0][i, :n] for i, n in enumerate(batch.lengths)]


def embed_ids(vlm: VLM, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
    """Layer 0 of tokens that are no image."""
    return vlm.text.embed_tokens(ids)


def pad(rows: Sequence[Tensor], value: float = 0) -> tuple[Tensor, Bool[Tensor, "b t"]]:
    """Rows of unequal length filled up on the right, and which positions are real."""
    filled = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows], device=filled.device)
    return filled, torch.arange(filled.shape[1], device=filled.device) < lengths[:, None]


@torch.inference_mode()
def run(
    vlm: VLM,
    embeds: Float[Tensor, "b t d"],
    real: Bool[Tensor, "b t"],
    before: Context | None = None,
    edited: Edited | None = None,
) -> tuple[Context, Float[Tensor, "b t d"]]:
    """One pass over new positions.

    Args:
        vlm: The whole model.
        embeds: Layer 0 at the new positions.
        real: Which of them are real; the rest is padding.
        before: What came before; left as it is.
        edited: Edits in this pass.

    Returns:
        What has been seen now, and the final norm's output at the new positions, see `logits`.
    """
    seen = real if before is None else torch.cat([before.real, real], dim=1)
    cache = DynamicCache(config=vlm.text.config) if before is None else _copy(before.cache)
    place = (seen.long().cumsum(1) - 1).clamp(min=0)[:, seen.shape[1] - real.shape[1] :]
    with ExitStack() as stack:
        if edited is not None and edited.edits:
            past = torch.zeros_like(seen[:, : seen.shape[1] - real.shape[1]])
            stack.enter_context(edit_rows(vlm, edited.edits, torch.cat([past, edited.mask & real], dim=1)))
        out = vlm.text(
            inputs_embeds=embeds,
            # Without padding the kernels for plain causal attention apply.
            attention_mask=None if bool(seen.all()) else seen.long(),
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
        )
    return Context(cache, seen), out.last_hidden_state


def logits(vlm: VLM, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
    """Next-token logits in float32, from what `run` returned."""
    return vlm.model.lm_head(hidden).float()


def at_last(hidden: Float[Tensor, "b t d"], real: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """The last real position of each row of a pass."""
    return hidden[torch.arange(len(hidden), device=hidden.device), real.sum(1) - 1]


@torch.inference_mode()
def greedy(
    vlm: VLM,
    context: Context,
    first: Float[Tensor, "b v"],
    max_new_tokens: int,
    edits: Mapping[int, RowEdit] | None = None,
    rows: Bool[Tensor, " b"] | None = None,
) -> list[list[int]]:
    """The likeliest token after the likeliest token, for each row until its end of sequence.

    Args:
        vlm: The whole model.
        context: The prompt, seen.
        first: Logits after the prompt.
        max_new_tokens: Tokens to say, at most.
        edits: Edits that also act on what is said.
        rows: In which rows.

    Returns:
        Token ids of each row, the end of sequence left out.
    """
    ends = torch.tensor(sorted(_ends(vlm)), device=first.device)
    said: list[Tensor] = []
    open_rows = torch.ones(len(first), dtype=torch.bool, device=first.device)
    token = first.argmax(-1)
    for step in range(max_new_tokens):
        open_rows = open_rows & ~torch.isin(token, ends)
        said.append(torch.where(open_rows, token, -1))
        if step + 1 == max_new_tokens or not bool(open_rows.any()):
            break
        edited = None if not edits or rows is None else Edited(edits, (rows & open_rows)[:, None])
        context, hidden = run(vlm, embed_ids(vlm, token[:, None]), torch.ones_like(token[:, None]).bool(), context, edited)
        token = logits(vlm, hidden[:, 0]).argmax(-1)
    columns = torch.stack(said, dim=1).tolist()
    return [[token for token in row if token >= 0] for row in columns]


def decode(vlm: VLM, said: Sequence[Sequence[int]]) -> list[str]:
    """Token ids as text, special tokens left out."""
    tokenizer = vlm.processor.tokenizer
    return [str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for ids in said]


@torch.inference_mode()
def lens(
    vlm: VLM, embeds: Float[Tensor, "t d"], masks: Mapping[int, Bool[Tensor, " t"]], piece: int = 512
) -> Iterator[tuple[int, Float[Tensor, "n v"]]]:
    """What each layer would say at some positions of one sequence: its logits, were it the last.

    Args:
        vlm: The whole model.
        embeds: Layer 0.
        masks: For each layer to read, the positions to read there.
        piece: Positions whose logits are in memory at once; a layer comes in as many pieces as that takes.

    Source: nostalgebraist, "interpreting GPT: the logit lens", 2020; on image tokens, Neo et al., ICLR 2025.
    """
    with record(vlm, masks, lambda layer, h: h[0, masks[layer].to(h.device)]) as found:
        run(vlm, embeds[None], torch.ones(1, len(embeds), dtype=torch.bool, device=embeds.device))
    for layer, h in sorted(found.items()):
        for start in range(0, len(h), piece):
            yield layer, logits(vlm, vlm.text.norm(h[start : start + piece]))


def _ends(vlm: VLM) -> set[int]:
    own = getattr(vlm.model.generation_config, "eos_token_id", None)
    found = own if isinstance(own, list) else [own]
    return {int(i) for i in (*found, vlm.processor.tokenizer.eos_token_id) if i is not None}


def _copy(cache: Any) -> Any:
    """A cache that may grow without changing the first; growing makes new tensors, so none is copied here."""
    new = copy.copy(cache)
    new.layers = [copy.copy(layer) for layer in cache.layers]
    return new
