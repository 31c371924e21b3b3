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
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.masking_utils import create_masks_for_generate

from linrep.vlm.batch import Batch, collate
from linrep.vlm.family import block_ids
from linrep.vlm.hooks import RowEdit, edit_rows, forward, record
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared
from linrep.vlm.taps import passed_through


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
class Stream:
    """Layer 0 of a sequence, with what the blocks are given beside it; of several sequences with a first axis for the batch.

    Attributes:
        h: The input embeddings, the projected image merged in.
        places: Positions in time, height and width, where the model has such; None where a position is a count.
        blocks: Which positions see each other in both directions, see `block_ids`; None where attention is causal.
        later: What is added to the stream after the first blocks, one after the other; None where nothing is.
    """

    h: Float[Tensor, "*b t d"]
    places: Int[Tensor, "*b t axes"] | None = None
    blocks: Int[Tensor, "*b t"] | None = None
    later: Float[Tensor, "*b t k d"] | None = None

    def __len__(self) -> int:
        """Positions of one sequence, or sequences of a batch."""
        return len(self.h)

    def __getitem__(self, at: Any) -> "Stream":
        """Some positions of one sequence, or some sequences of a batch."""
        beside = (None if one is None else one[at] for one in (self.places, self.blocks, self.later))
        return Stream(self.h[at], *beside)


@dataclass(frozen=True)
class Context:
    """What the model has seen so far.

    Attributes:
        cache: Keys and values; never changed by a pass, which continues a copy.
        real: Which cached positions are real.
        following: The position that comes next in each row.
        blocks: As in `Stream`, of what is cached.
    """

    cache: Any
    real: Bool[Tensor, "b t"]
    following: Int[Tensor, " b"]
    blocks: Int[Tensor, "b t"] | None = None

    def rows(self, rows: Sequence[int]) -> "Context":
        """A context of some of the rows, each as often as it is named."""
        index = torch.as_tensor(list(rows), device=self.real.device)
        cache = _copy(self.cache)
        for layer in cache.layers:
            here = index.to(layer.keys.device)
            layer.keys, layer.values = layer.keys.index_select(0, here), layer.values.index_select(0, here)
        blocks = None if self.blocks is None else self.blocks.index_select(0, index)
        return Context(cache, self.real.index_select(0, index), self.following.index_select(0, index), blocks)

    def and_rows(self, others: Sequence["Context"]) -> "Context":
        """The rows of this context and those of others that are as long."""
        cache, all_of = _copy(self.cache), [self, *others]
        for i, layer in enumerate(cache.layers):
            layer.keys = torch.cat([one.cache.layers[i].keys for one in all_of])
            layer.values = torch.cat([one.cache.layers[i].values for one in all_of])
        blocks = None if self.blocks is None else torch.cat([one.blocks for one in all_of if one.blocks is not None])
        return Context(cache, torch.cat([one.real for one in all_of]), torch.cat([one.following for one in all_of]), blocks)


class _Enough(Exception):
    """Ends a pass whose first layer is all that is wanted."""


@torch.inference_mode()
def embed(vlm: VLM, prepared: Sequence[Prepared]) -> list[Stream]:
    """Layer 0 of some sequences, the projected images merged in; no block is run."""
    batch = collate(prepared, vlm)
    taken: dict[str, Any] = {}

    def take(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        taken.update(kwargs)
        raise _Enough

    handle = vlm.text.register_forward_pre_hook(take, with_kwargs=True)
    try:
        forward(vlm, batch)
    except _Enough:
        pass
    finally:
        handle.remove()
    whole = _taken(vlm, batch, taken)
    return [whole[i][:n] for i, n in enumerate(batch.lengths)]


def _taken(vlm: VLM, batch: Batch, taken: Mapping[str, Any]) -> Stream:
    """What the text model was about to be given."""
    h, family = taken["inputs_embeds"], vlm.family
    places = blocks = later = None
    if family.rope_axes > 1:
        given = taken.get("position_ids")
        counted = torch.arange(h.shape[1], device=h.device).expand(family.rope_axes, *h.shape[:2])
        places = (counted if given is None else given[-family.rope_axes :]).permute(1, 2, 0)
    if family.attention != "causal":
        blocks = block_ids(family.attention, batch.image_mask, batch.text_mask)
    added = taken.get("deepstack_visual_embeds")
    if n_later := family.adds_later(vlm.card.vision):
        later = h.new_zeros(*h.shape[:2], n_later, h.shape[2])
        for k, one in enumerate(added or ()):
            later[..., k, :][taken["visual_pos_masks"]] = one.to(h.dtype)
    return Stream(h, places, blocks, later)


def embed_ids(vlm: VLM, ids: Int[Tensor, "b t"]) -> Stream:
    """Layer 0 of tokens that are no image, and follow what the model has seen."""
    return Stream(vlm.text.embed_tokens(ids))


def follow(vlm: VLM, before: Stream, ids: Int[Tensor, " t"]) -> Stream:
    """Layer 0 of tokens that are no image, after a sequence that has not been run yet."""
    h = vlm.text.embed_tokens(ids)
    places = blocks = later = None
    if before.places is not None:
        first = int(before.places.max()) + 1 if len(before) else vlm.family.first_position
        places = torch.arange(first, first + len(ids), device=h.device)[:, None].expand(-1, before.places.shape[1])
    if before.blocks is not None:
        blocks = torch.full((len(ids),), 0 if vlm.family.attention == "prefix" else -1, device=h.device)
    if before.later is not None:
        later = h.new_zeros(len(ids), *before.later.shape[1:])
    return Stream(h, places, blocks, later)


def pad(rows: Sequence[Tensor], value: float = 0) -> tuple[Tensor, Bool[Tensor, "b t"]]:
    """Rows of unequal length filled up on the right, and which positions are real."""
    filled = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows], device=filled.device)
    return filled, torch.arange(filled.shape[1], device=filled.device) < lengths[:, None]


def stack(streams: Sequence[Stream]) -> tuple[Stream, Bool[Tensor, "b t"]]:
    """Sequences of unequal length as one batch, filled up on the right, and which positions are real."""
    h, real = pad([one.h for one in streams])

    def padded(name: str, value: float = 0) -> Tensor | None:
        parts = [getattr(one, name) for one in streams]
        return None if parts[0] is None else pad(parts, value)[0]

    return Stream(h, padded("places"), padded("blocks", -1), padded("later")), real


def split_point(stream: Stream, n: int) -> int:
    """The last position up to n where a sequence can be cut in two: not between those that see each other in both directions.

    >>> split_point(Stream(torch.zeros(4, 1), blocks=torch.tensor([-1, 0, 0, -1])), 2)
    1
    """
    if stream.blocks is not None:
        ids = stream.blocks.tolist()
        while 0 < n < len(ids) and ids[n] >= 0 and ids[n] == ids[n - 1]:
            n -= 1
    return n


def alone(stream: Stream) -> tuple[Stream, Bool[Tensor, "1 t"]]:
    """One sequence as a batch."""
    return stack([stream])


@torch.inference_mode()
def run(
    vlm: VLM,
    stream: Stream,
    real: Bool[Tensor, "b t"],
    before: Context | None = None,
    edited: Edited | None = None,
) -> tuple[Context, Float[Tensor, "b t d"]]:
    """As `advance`, keeping nothing for gradients."""
    return advance(vlm, stream, real, before, edited)


def advance(
    vlm: VLM,
    stream: Stream,
    real: Bool[Tensor, "b t"],
    before: Context | None = None,
    edited: Edited | None = None,
) -> tuple[Context, Float[Tensor, "b t d"]]:
    """One pass over new positions.

    Args:
        vlm: The whole model.
        stream: Layer 0 at the new positions, of a batch.
        real: Which of them are real; the rest is padding.
        before: What came before; left as it is.
        edited: Edits in this pass.

    Returns:
        What has been seen now, and the final norm's output at the new positions, see `logits`.
    """
    seen = real if before is None else torch.cat([before.real, real], dim=1)
    cache = DynamicCache() if before is None else _copy(before.cache)
    places, following = _places(vlm, stream, real, before)
    blocks = _blocks(vlm, stream, real, before)
    # Without padding the kernels for plain causal attention apply.
    mask: Any = None if bool(seen.all()) else seen.long()
    if blocks is not None:
        mask = create_masks_for_generate(vlm.text.config, stream.h, mask, cache, block_sequence_ids=blocks)
    beside: dict[str, Any] = {}
    if stream.later is not None:
        beside["visual_pos_masks"] = torch.ones_like(real)
        beside["deepstack_visual_embeds"] = list(stream.later.flatten(0, 1).unbind(1))
    with ExitStack() as inside:
        if edited is not None and edited.edits:
            past = torch.zeros_like(seen[:, : seen.shape[1] - real.shape[1]])
            inside.enter_context(edit_rows(vlm, edited.edits, torch.cat([past, edited.mask & real], dim=1)))
        out = vlm.text(
            inputs_embeds=stream.h,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            **beside,
        )
    return Context(cache, seen, following, blocks), out.last_hidden_state.to(stream.h.device)


@torch.inference_mode()
def run_from(
    vlm: VLM,
    layer: int,
    h: Float[Tensor, "b t d"],
    stream: Stream,
    real: Bool[Tensor, "b t"],
    seen: Context,
    edited: Edited,
) -> tuple[Context, Float[Tensor, "b t d"]]:
    """As `run`, of sequences whose first blocks have run: an edit at a layer changes nothing below it.

    Args:
        vlm: The whole model.
        layer: The first layer that is edited; no block below it is run.
        h: The unedited stream there.
        stream: Layer 0.
        real: Which positions are real.
        seen: The same sequences unedited, from their first position on.
        edited: Edits at this layer and later ones.
    """
    later = stream.later
    if later is not None:
        later = later.clone()
        later[..., :layer, :] = 0  # the blocks below have added theirs
    with ExitStack() as inside:
        for block in vlm.text.layers[:layer]:
            inside.enter_context(passed_through(block))
        context, hidden = run(vlm, Stream(h, stream.places, stream.blocks, later), real, None, edited)
    context.cache.layers = [*_copy(seen.cache).layers[:layer], *context.cache.layers[layer:]]
    return context, hidden


def _places(
    vlm: VLM, stream: Stream, real: Bool[Tensor, "b t"], before: Context | None
) -> tuple[Int[Tensor, "*axes b t"], Int[Tensor, " b"]]:
    """The position of each token, and the one that follows in each row."""
    first = torch.full_like(real[:, 0].long(), vlm.family.first_position) if before is None else before.following
    if stream.places is None:
        counted = first[:, None] + (real.long().cumsum(1) - 1).clamp(min=0)
        following = first + real.sum(1)
        return (counted.expand(vlm.family.rope_axes, -1, -1) if vlm.family.rope_axes > 1 else counted), following
    last = stream.places.amax(-1).masked_fill(~real, -1).amax(1)
    return stream.places.permute(2, 0, 1), torch.maximum(first, last + 1)


def _blocks(vlm: VLM, stream: Stream, real: Bool[Tensor, "b t"], before: Context | None) -> Int[Tensor, "b seen"] | None:
    """Which positions see each other in both directions, what came before included; what is said follows causally."""
    if vlm.family.attention == "causal":
        return None
    own = torch.full_like(real, -1, dtype=torch.long) if stream.blocks is None else stream.blocks
    return own if before is None or before.blocks is None else torch.cat([before.blocks, own], dim=1)


def logits(vlm: VLM, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
    """Next-token logits in float32, from what `run` returned."""
    return vlm.family.logits(vlm.model, hidden).float().to(hidden.device)


@torch.inference_mode()
def next_tokens(vlm: VLM, hidden: Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
    """Likeliest next token after streams that come out of the last block."""
    return logits(vlm, vlm.text.norm(hidden.to(vlm.device, vlm.dtype))).argmax(-1)


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
    vlm: VLM, stream: Stream, masks: Mapping[int, Bool[Tensor, " t"]], piece: int = 512
) -> Iterator[tuple[int, Float[Tensor, "n v"]]]:
    """What each layer would say at some positions of one sequence: its logits, were it the last.

    Args:
        vlm: The whole model.
        stream: Layer 0.
        masks: For each layer to read, the positions to read there.
        piece: Positions whose logits are in memory at once; a layer comes in as many pieces as that takes.

    Source: nostalgebraist, "interpreting GPT: the logit lens", 2020; on image tokens, Neo et al., ICLR 2025.
    """
    with record(vlm, masks, lambda layer, h: h[0, masks[layer].to(h.device)]) as found:
        run(vlm, *alone(stream))
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
