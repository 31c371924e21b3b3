"""Prompts as token ids: one image under several prompts, with what they share cut off to be run once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.errors import RecipeError
from linrep.sample import Sample, Skipped
from linrep.steer.cells import NO_DIRECTION, Cell
from linrep.steer.config import Asking, SteerConfig
from linrep.steer.names import spoken
from linrep.steer.sinks import NormLimits, sinks
from linrep.steer.sites import Area, NoControl, last_position, positions
from linrep.vlm.card import ModelCard
from linrep.vlm.decode import Stream, embed, follow, split_point
from linrep.vlm.load import VLM
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from linrep.vlm.prompts import doubled_start


@dataclass(frozen=True)
class SitePositions:
    """Where edits act in one sequence of t positions.

    Attributes:
        masks: The positions of every area; none where the area is missing.
        missing: Why the sequence has no such area, by its number.
        high_norm: By layer the positions above the norm limit, which no edit touches; layers without a limit are left out.
    """

    masks: tuple[Bool[Tensor, " t"], ...]
    missing: Mapping[int, str]
    high_norm: Mapping[int, Bool[Tensor, " t"]]

    def edited(self, cell: Cell) -> Bool[Tensor, " t"]:
        """The positions that a cell edits."""
        return self._area(cell) & ~self._high(cell)

    def n_high_norm(self, cell: Cell) -> int:
        """How many positions of a cell's site are left alone for their norm."""
        return int((self._area(cell) & self._high(cell)).sum())

    def reason(self, cell: Cell) -> str | None:
        """Why a cell has nothing to edit here; None where it has, or edits nothing by design."""
        if cell.site is None:
            return None
        if cell.site in self.missing:
            return self.missing[cell.site]
        if not bool(self.edited(cell).any()):
            return f"{NO_DIRECTION}the norm of every position of the site is above the harvest's limit at layer {cell.layer}"
        return None

    def _area(self, cell: Cell) -> Bool[Tensor, " t"]:
        return torch.zeros_like(self.masks[0]) if cell.site is None else self.masks[cell.site]

    def _high(self, cell: Cell) -> Bool[Tensor, " t"]:
        found = None if cell.layer is None else self.high_norm.get(cell.layer)
        return torch.zeros_like(self.masks[0]) if found is None else found


@dataclass(frozen=True)
class PromptSet:
    """One image under several prompts.

    Attributes:
        prefix: Layer 0 of what all prompts share: the image and what comes before. Nothing, where a prompt changes what an image
            token sees. Of a text after an image, everything before the prompt's last position.
        suffixes: Layer 0 of the rest of each prompt; one position at least.
        sites: For each prompt where edits act in it, over prefix and suffix.
    """

    prefix: Stream
    suffixes: tuple[Stream, ...]
    sites: tuple[SitePositions, ...]

    def __len__(self) -> int:
        """Positions of the longest prompt."""
        return len(self.prefix) + max(map(len, self.suffixes))


class Prompts:
    """Prepares images under any prompt; the processor is loaded once.

    Args:
        vlm: The whole model.
        image_size: Squash images to this height and width first; None keeps their own.
        max_text_tokens: Longer texts are cut.
    """

    def __init__(self, vlm: VLM, image_size: tuple[int, int] | None = None, max_text_tokens: int = 512) -> None:
        self._vlm, self._options = vlm, {"image_size": image_size, "max_text_tokens": max_text_tokens}
        self._made: dict[tuple[str, bool], Preparer] = {}

    def prepare(self, sample: Sample, prompt: str, with_text: bool = False) -> Prepared | Skipped:
        """A sample's image under a prompt, followed by its text if asked."""
        key = (prompt, with_text)
        if key not in self._made:
            if len(self._made) > 256:  # prompts that name both classes differ from pair to pair
                self._made.clear()
            form = {"pair_prompt": prompt + "{text}"} if with_text else {"image_prompt": prompt}
            self._made[key] = Preparer(self._vlm.processor, self._vlm.card, **form, **self._options)
        return self._made[key](sample)


def choice_prompt(asking: Asking, source: str, target: str, flipped: bool) -> str:
    """The forced choice's prompt for a pair; which name stands first is drawn, as models prefer a place."""
    first, second = map(spoken, (target, source) if flipped else (source, target))
    return asking.choice.replace("{first}", first).replace("{second}", second)


def answer_ids(tokenizer: object, prompt: str, answer: str, name: str) -> list[int]:
    """Token ids with which a name continues a prompt.

    Raises:
        RecipeError: The name melts into the prompt's last token, or gives no token at all.
    """
    bare = tokenizer(prompt, verbose=False).input_ids  # pyright: ignore[reportCallIssue]
    full = tokenizer(prompt + answer.replace("{name}", spoken(name)), verbose=False).input_ids  # pyright: ignore[reportCallIssue]
    if full[: len(bare)] != bare or len(full) == len(bare):
        raise RecipeError(
            f"steer.ask: the answer {answer!r} with {spoken(name)!r} does not continue the prompt {prompt!r} in tokens of its own"
        )
    return list(full[len(bare) :])


def bare_prompt(asking: Asking) -> str:
    """The forced choice's prompt without names, after which the output matrix and the lens look for one."""
    return asking.choice.replace("{first}", "").replace("{second}", "")


def check_names(tokenizer: Any, asking: Asking, pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse names that do not continue the prompts in tokens of their own.

    Raises:
        RecipeError: Names the first that does not.
    """
    for source, target in pairs:
        for prompt in (choice_prompt(asking, source, target, False), bare_prompt(asking)):
            for name in (source, target):
                answer_ids(tokenizer, prompt, asking.answer, name)


def check_starts(tokenizer: Any, config: SteerConfig) -> None:
    """Refuse prompts whose sequence begins with two start tokens.

    Raises:
        RecipeError: Names the first that does.
    """
    prompts = {f"ask.questions.{i}.prompt": question.prompt for i, question in enumerate(config.ask.questions)}
    prompts |= {"ask.choice": config.ask.choice} | ({"damage.prompt": config.damage.prompt} if config.damage.texts else {})
    for field, prompt in prompts.items():
        why = doubled_start(tokenizer, prompt)
        if why is not None:
            raise RecipeError(f"steer.{field} {why}")


def first_token_row(vlm: VLM, asking: Asking) -> Callable[[str], Float[Tensor, " d"]]:
    """A function from a name to the output matrix's row for its first token, as it would begin an answer."""
    prompt = bare_prompt(asking)

    def row(name: str) -> Float[Tensor, " d"]:
        token = answer_ids(vlm.processor.tokenizer, prompt, asking.answer, name)[0]
        return vlm.model.get_output_embeddings().weight[token].detach().float().cpu()

    return row


def lay_out(
    vlm: VLM, images: Sequence[Sequence[Prepared]], where: Sequence[Area], limits: Mapping[int, NormLimits]
) -> list[PromptSet]:
    """Several images, each prepared under several prompts.

    Args:
        vlm: The whole model.
        images: For each image its sequences, in the order of the prompts.
        where: Where edits may act.
        limits: Norms above which a position is left alone, by layer.
    """
    first = embed(vlm, [prompts[0] for prompts in images])
    same = [shared([one.input_ids for one in prompts]) for prompts in images]
    return [_lay_out(vlm, *one, where, limits) for one in zip(images, first, same, strict=True)]


def lay_out_texts(
    vlm: VLM, texts: Sequence[Prepared], where: Sequence[Area], limits: Mapping[int, NormLimits]
) -> list[PromptSet]:
    """Several texts, each after an image and a prompt; as `lay_out`."""
    return [
        _lay_out(vlm, [one], stream, max(0, last_position(one)), where, limits)
        for one, stream in zip(texts, embed(vlm, texts), strict=True)
    ]


def _lay_out(
    vlm: VLM,
    prompts: Sequence[Prepared],
    first: Stream,
    n: int,
    where: Sequence[Area],
    limits: Mapping[int, NormLimits],
) -> PromptSet:
    """Prompts that begin with the same n tokens, cut there or before."""
    n, suffixes = split_point(first, n), []
    for i, one in enumerate(prompts):
        ids = torch.from_numpy(one.input_ids[n:].astype(np.int64)).to(vlm.device)
        if i == 0:
            suffixes.append(first[n:])
        elif n == 0 or bool((ids == vlm.card.image_token_id).any()):  # prompts that differ before the image
            suffixes.append(embed(vlm, [one])[0][n:])
        else:
            suffixes.append(follow(vlm, first[:n], ids))
    high = sinks(vlm, first[:n], suffixes, prompts, limits)
    sites = tuple(site_positions(where, one, vlm.card, own) for one, own in zip(prompts, high, strict=True))
    return PromptSet(first[:n], tuple(suffixes), sites)


def site_positions(
    where: Sequence[Area], one: Prepared, card: ModelCard, high: Mapping[int, Bool[Tensor, " t"]]
) -> SitePositions:
    """Where edits act in a sequence.

    Args:
        where: The areas.
        one: The sequence.
        card: Of the model.
        high: Positions above the norm limit, by layer.
    """
    masks, missing = [torch.zeros(len(one), dtype=torch.bool) for _ in where], {}
    for number, area in enumerate(where):
        try:
            masks[number] = torch.from_numpy(positions(area, one, card))
        except NoControl as reason:
            missing[number] = f"{NO_DIRECTION}{reason}"
        except ValueError as reason:
            missing[number] = f"ValueError: {reason}"
    return SitePositions(tuple(masks), missing, high)


def shared(prompts: Sequence[Int[np.ndarray, " _"]]) -> int:
    """How many tokens the prompts begin with in common; each keeps one of its own at least.

    >>> shared([np.array([1, 2, 3]), np.array([1, 2, 4, 5])]), shared([np.array([1, 2])])
    (2, 1)
    """
    shortest = min(map(len, prompts)) - 1
    same = np.ones(shortest, bool)
    for one in prompts[1:]:
        same &= one[:shortest] == prompts[0][:shortest]
    return int(np.argmin(np.append(same, False)))
