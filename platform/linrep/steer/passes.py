"""A micro-batch of cells through the model: forced choices, free answers, likelihoods of texts; each row under its own edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from linrep.steer.cells import Cell
from linrep.steer.edits import Intervention, row_edits
from linrep.steer.prompts import PromptSet
from linrep.steer.sinks import NormLimits, below
from linrep.vlm.decode import Context, Edited, at_last, decode, embed_ids, greedy, logits, pad, run, run_from, stack
from linrep.vlm.hooks import RowEdit, record
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role

Row = dict[str, Any]


@dataclass(frozen=True)
class CellRun:
    """One cell of one image or text, ready to run.

    Attributes:
        item: Which image or text, by its place in the list.
        cell: The cell.
        change: Its edit; None leaves the stream alone.
        name: The sample's id.
    """

    item: int
    cell: Cell
    change: Intervention | None
    name: str


@torch.inference_mode()
def ask(
    vlm: VLM,
    batch: Sequence[CellRun],
    laid_out: Mapping[int, PromptSet],
    names: Sequence[list[int]],
    questions: Mapping[int, int],
    max_new_tokens: int,
    limits: Mapping[int, NormLimits],
) -> list[tuple[Row, dict[int, str]]]:
    """Choice and answers of each run; prompt 0 is the forced choice.

    Args:
        vlm: The whole model.
        batch: The runs.
        laid_out: Every image's prompts, by item.
        names: Tokens of the source's and of the target's name as an answer.
        questions: Prompt of each question that is answered freely.
        max_new_tokens: Longest free answer.
        limits: Norms above which what follows a prompt is left alone, by layer.

    Returns:
        For each run the choice's columns, and the answer to each question.

    Raises:
        FloatingPointError: The output is not finite under an edit.
    """
    context = _prefixes(vlm, batch, laid_out)
    edits = row_edits([one.change for one in batch], vlm.card.width)
    later = below(edits, limits)
    asked = [laid_out[one.item] for one in batch]
    onward = _onward(vlm, batch)
    choices: list[Row] = []
    texts: list[dict[int, str]] = [{} for _ in batch]
    n_prompts = 1 + max([0, *questions.values()])
    for number in range(n_prompts):
        after, first = _after(vlm, batch, asked, number, context, edits)
        if number == 0:
            scores = [_score(vlm, after, first, name, later, onward) for name in names]
            p = torch.sigmoid(scores[1] - scores[0])
            columns = [x.tolist() for x in (p, scores[0], scores[1])]
            choices = [{"p_target": a, "logp_source": b, "logp_target": c} for a, b, c in zip(*columns, strict=True)]
            for choice, one, a in zip(choices, batch, asked, strict=True):
                choice["n_high_norm"] = a.sites[0].n_high_norm(one.cell)
        here = [i for i, prompt in questions.items() if prompt == number]
        if here:
            said = decode(vlm, greedy(vlm, after, first, max_new_tokens, later, onward))
            for i in here:
                for row, text in enumerate(said):
                    texts[row][i] = text
    return list(zip(choices, texts, strict=True))


@torch.inference_mode()
def say(
    vlm: VLM,
    batch: Sequence[CellRun],
    laid_out: Mapping[int, PromptSet],
    max_new_tokens: int,
    limits: Mapping[int, NormLimits],
) -> list[tuple[str, Float[Tensor, " v"]]]:
    """The answer to the first prompt of each run, and the logits of its first token.

    Args:
        vlm: The whole model.
        batch: The runs.
        laid_out: Every image's prompts, by item.
        max_new_tokens: Longest answer.
        limits: Norms above which what follows a prompt is left alone, by layer.

    Raises:
        FloatingPointError: The output is not finite under an edit.
    """
    edits, asked = row_edits([one.change for one in batch], vlm.card.width), [laid_out[one.item] for one in batch]
    after, first = _after(vlm, batch, asked, 0, _prefixes(vlm, batch, laid_out), edits)
    said = decode(vlm, greedy(vlm, after, first, max_new_tokens, below(edits, limits), _onward(vlm, batch)))
    return list(zip(said, first, strict=True))


def _onward(vlm: VLM, batch: Sequence[CellRun]) -> Bool[Tensor, " b"]:
    """Which runs are edited after their prompt, too."""
    return torch.tensor([one.cell.site_kind == "everywhere" for one in batch], device=vlm.device)


def _after(
    vlm: VLM,
    batch: Sequence[CellRun],
    asked: Sequence[PromptSet],
    number: int,
    context: Context | None,
    edits: Mapping[int, RowEdit],
) -> tuple[Context, Float[Tensor, "b v"]]:
    """What is seen after one of the prompts, and the logits that follow it.

    Raises:
        FloatingPointError: They are not finite.
    """
    after, hidden, real = _onto(vlm, batch, asked, number, context, edits)
    first = logits(vlm, at_last(hidden, real))
    _check_finite(first)
    return after, first


def _onto(
    vlm: VLM,
    batch: Sequence[CellRun],
    asked: Sequence[PromptSet],
    number: int,
    context: Context | None,
    edits: Mapping[int, RowEdit],
) -> tuple[Context, Float[Tensor, "b t d"], Bool[Tensor, "b t"]]:
    """What is seen after one of the prompts, the final norm's output at what it does not share, and which of that is real."""
    suffix, real = stack([one.suffixes[number] for one in asked])
    parts = [a.sites[number].edited(one.cell)[len(a.prefix) :] for one, a in zip(batch, asked, strict=True)]
    mask, _ = pad(parts)
    after, hidden = run(vlm, suffix, real, context, Edited(edits, mask.bool().to(vlm.device)))
    return after, hidden, real


def _check_finite(found: Tensor) -> None:
    if not bool(found.isfinite().all()):
        raise FloatingPointError("the model's output is not finite under this edit")


def _prefixes(vlm: VLM, batch: Sequence[CellRun], laid_out: Mapping[int, PromptSet]) -> Context | None:
    """What all prompts of each run share, seen; None if nothing is.

    It is run unedited once for each item. A run whose edit touches it is run again from the first layer of the edit on.
    """
    number = {item: i for i, item in enumerate(dict.fromkeys(one.item for one in batch))}
    if not any(len(laid_out[item].prefix) for item in number):
        return None
    prefix, real = stack([laid_out[item].prefix for item in number])
    masks = [laid_out[one.item].sites[0].edited(one.cell)[: len(laid_out[one.item].prefix)] for one in batch]
    again: dict[int, list[int]] = {}
    for row, (one, mask) in enumerate(zip(batch, masks, strict=True)):
        if one.change is not None and bool(mask.any()):
            again.setdefault(min(one.change.layers), []).append(row)
    with record(vlm, again) as streams:
        seen, _ = run(vlm, prefix, real)
    index, parts = [number[one.item] for one in batch], []
    for layer, rows in again.items():
        at = [index[row] for row in rows]
        mask = torch.zeros(len(rows), real.shape[1], dtype=torch.bool)
        for i, row in enumerate(rows):
            mask[i, : len(masks[row])] = masks[row]
            index[row] = len(number) + sum(len(part.real) for part in parts) + i
        edited = Edited(row_edits([batch[row].change for row in rows], vlm.card.width), mask.to(vlm.device))
        parts.append(run_from(vlm, layer, streams[layer][at], prefix[at], real[at], seen.rows(at), edited)[0])
    return seen.and_rows(parts).rows(index)


def _score(vlm: VLM, context: Context, first: Tensor, name: list[int], edits: Mapping, onward: Bool[Tensor, " b"]) -> Tensor:
    """Mean log-probability of a name's tokens after each prompt."""
    total = first.log_softmax(-1)[:, name[0]]
    if len(name) > 1:
        ids = torch.tensor([name[:-1]] * len(first), device=first.device)
        mask = onward[:, None].expand_as(ids)
        _, hidden = run(vlm, embed_ids(vlm, ids), torch.ones_like(ids).bool(), context, Edited(edits, mask))
        later = logits(vlm, hidden).log_softmax(-1)
        for i, token in enumerate(name[1:]):
            total = total + later[:, i, token]
    return total / len(name)


@torch.inference_mode()
def read(
    vlm: VLM, batch: Sequence[CellRun], ready: Sequence[Prepared], laid_out: Mapping[int, PromptSet]
) -> list[tuple[float, int]]:
    """Mean negative log-likelihood of each run's text, in nats a token, and its tokens.

    Args:
        vlm: The whole model.
        batch: The runs.
        ready: The images with their texts, by item.
        laid_out: The same, by item; the text begins after the first position of its suffix.

    Raises:
        FloatingPointError: The output is not finite under an edit.
    """
    asked, edits = [laid_out[one.item] for one in batch], row_edits([one.change for one in batch], vlm.card.width)
    _, hidden, _ = _onto(vlm, batch, asked, 0, _prefixes(vlm, batch, laid_out), edits)
    found = []
    for row, one in enumerate(batch):
        prepared = ready[one.item]
        (said,) = (prepared.role == Role.TEXT).nonzero()
        ids = torch.from_numpy(prepared.input_ids[said]).long().to(hidden.device)
        before = torch.from_numpy(said - 1 - len(asked[row].prefix)).to(hidden.device)
        scores = logits(vlm, hidden[row, before]).log_softmax(-1).gather(1, ids[:, None])
        _check_finite(scores)
        found.append((-scores.mean().item(), len(said)))
    return found
