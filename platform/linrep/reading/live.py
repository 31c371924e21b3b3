"""One prepared sequence through the whole model: its reading, its answer, and the answers under edits beside their controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from linrep.errors import RecipeError
from linrep.reading.changes import Change
from linrep.reading.read import Reader, Reading, mean_vector
from linrep.reading.tokens import Tokens
from linrep.steer.cells import Cell
from linrep.steer.edits import Intervention
from linrep.steer.passes import CellRun, say
from linrep.steer.prompts import lay_out
from linrep.steer.sinks import NormLimits
from linrep.steer.sites import ImageTokens
from linrep.vlm.decode import alone, decode, embed, greedy, logits, run
from linrep.vlm.hooks import record
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role

NEXT_WORDS = 5
"""Likeliest first words of an answer that are kept with it."""


@dataclass(frozen=True)
class Answer:
    """What the model says.

    Attributes:
        text: Its answer, the likeliest token after the likeliest token.
        first: The likeliest first tokens and their probabilities.
    """

    text: str
    first: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ChangedAnswer:
    """What the model says under an edit, and under the edit's control.

    Attributes:
        change: The edit.
        answer: Under it.
        control: Under its control.
        n_positions: Positions that are edited.
        n_high_norm: Positions of the site that are left alone for their norm.
    """

    change: Change
    answer: Answer
    control: Answer
    n_positions: int
    n_high_norm: int


@torch.inference_mode()
def read_live(
    vlm: VLM, one: Prepared, reader: Reader, layers: Sequence[int], limits: Mapping[int, NormLimits], max_new_tokens: int
) -> tuple[Reading, Answer]:
    """A sequence read, and what the model answers to it: one pass.

    Args:
        vlm: The whole model.
        one: The sequence.
        reader: What it is read with.
        layers: Layers to read.
        limits: Norms above which a position is kept apart, by layer.
        max_new_tokens: Longest answer.
    """
    stream, real = alone(embed(vlm, [one])[0])
    with record(vlm, layers, lambda _, h: h[0].float().cpu()) as found:
        context, hidden = run(vlm, stream, real)
    first = logits(vlm, hidden[:, -1])
    (text,) = decode(vlm, greedy(vlm, context, first, max_new_tokens))
    h = torch.stack([found[layer] for layer in layers])
    tokens, high = Tokens.of(one), high_norm(h, layers, one, limits)
    among = tokens.of_image if one.image_size is not None else tokens.of_text
    vectors: dict[Any, Tensor] = {}
    for i, layer in enumerate(layers):
        mean = mean_vector(h[i], among, high[i])
        if mean is not None:
            vectors["pooled", layer] = mean
        if layer not in limits or float(h[i, -1].norm()) <= limits[layer].last:
            vectors["last", layer] = h[i, -1]
    reading = reader.read(h, layers, tokens, high, vectors, seen=one.image_size)
    return reading, Answer(text, first_words(first[0]))


def high_norm(h: Float[Tensor, "l t d"], layers: Sequence[int], one: Prepared, limits: Mapping[int, NormLimits]) -> Tensor:
    """Which positions of each layer are above the limit of their modality, as the tokens view of a store has it: bool [l, t]."""
    of_image = one.role >= int(Role.IMAGE)
    rows = [
        np.where(of_image, limits[layer].image, limits[layer].text) if layer in limits else np.full(len(one), np.inf)
        for layer in layers
    ]
    return h.norm(dim=-1) > torch.from_numpy(np.stack(rows)).to(h.dtype)


def first_words(first: Float[Tensor, " v"]) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens and their probabilities."""
    p, ids = first.float().softmax(-1).topk(min(NEXT_WORDS, len(first)))
    return tuple(zip(ids.tolist(), p.tolist(), strict=True))


def answers_under(
    vlm: VLM, one: Prepared, changes: Sequence[Change], limits: Mapping[int, NormLimits], max_new_tokens: int
) -> list[ChangedAnswer]:
    """What the model answers under each edit, its control beside it.

    Args:
        vlm: The whole model.
        one: The sequence.
        changes: The edits; all act at the same site.
        limits: Norms above which a position is left alone, by layer; empty edits all.
        max_new_tokens: Longest answer.

    Raises:
        RecipeError: The sequence has no such site.
    """
    if not changes:
        return []
    site = changes[0].site
    if isinstance(site, ImageTokens) and one.image_size is None:
        raise RecipeError("--site image: there is no image to edit; say --site last, or --site everywhere")
    # What is asked ends the prompt, whoever's text it is: the last position is the one that is about to answer.
    asked = replace(one, role=np.where(one.role == int(Role.TEXT), int(Role.TEMPLATE), one.role).astype(one.role.dtype))
    (laid_out,) = lay_out(vlm, [[asked]], [site], limits)
    runs: list[CellRun] = []
    for change in changes:
        cell = Cell(0, site.kind, change.layer, change.kind, change.direction, change.strength)
        reason = laid_out.sites[0].reason(cell)
        if reason is not None:
            raise RecipeError(f"{change.label}: {reason}")
        for edit in (change.edit, change.control):
            runs.append(CellRun(0, cell, Intervention(edit, (change.layer,), site.kind), change.label))
    said = [Answer(text, first_words(first)) for text, first in say(vlm, runs, {0: laid_out}, max_new_tokens, limits)]
    return [
        ChangedAnswer(
            change,
            said[2 * i],
            said[2 * i + 1],
            int(laid_out.sites[0].edited(runs[2 * i].cell).sum()),
            laid_out.sites[0].n_high_norm(runs[2 * i].cell),
        )
        for i, change in enumerate(changes)
    ]
