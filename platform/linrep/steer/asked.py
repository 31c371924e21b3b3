"""Prompts as token ids: one photograph under several prompts, with what they share cut off to be run once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from linrep.errors import RecipeError
from linrep.sample import Sample, Skipped
from linrep.steer.config import Asking
from linrep.steer.sites import Site, positions
from linrep.vlm.card import ModelCard
from linrep.vlm.decode import embed, embed_ids
from linrep.vlm.load import VLM
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared


@dataclass(frozen=True)
class Asked:
    """One photograph under several prompts.

    Attributes:
        prefix: Layer 0 of what all prompts share: the picture and what comes before.
        suffixes: Layer 0 of the rest of each prompt; one position at least.
        masks: For each site and prompt the positions to edit, over prefix and suffix.
    """

    prefix: Float[Tensor, "p d"]
    suffixes: tuple[Tensor, ...]
    masks: tuple[tuple[Bool[Tensor, " _"], ...], ...]

    def __len__(self) -> int:
        """Positions of the longest prompt."""
        return len(self.prefix) + max(map(len, self.suffixes))


class Prompts:
    """Prepares photographs under any prompt; the processor is loaded once.

    Args:
        vlm: The whole model.
        image_size: Squash photographs to this height and width first; None keeps their own.
        max_text_tokens: Longer texts are cut.
    """

    def __init__(self, vlm: VLM, image_size: tuple[int, int] | None = None, max_text_tokens: int = 512) -> None:
        self._vlm, self._options = vlm, {"image_size": image_size, "max_text_tokens": max_text_tokens}
        self._made: dict[tuple[str, bool], Preparer] = {}

    def prepare(self, sample: Sample, prompt: str, with_text: bool = False) -> Prepared | Skipped:
        """A sample's photograph under a prompt, followed by its text if asked."""
        key = (prompt, with_text)
        if key not in self._made:
            if len(self._made) > 256:  # prompts that name both classes differ from pair to pair
                self._made.clear()
            form = {"pair_prompt": prompt + "{text}"} if with_text else {"image_prompt": prompt}
            self._made[key] = Preparer(self._vlm.processor, self._vlm.card, **form, **self._options)
        return self._made[key](sample)


def choice_prompt(asking: Asking, source: str, target: str, flipped: bool) -> str:
    """The forced choice's prompt for a pair; which name stands first is drawn, as models prefer a place."""
    first, second = (target, source) if flipped else (source, target)
    return asking.choice.replace("{first}", first).replace("{second}", second)


def answer_ids(tokenizer: object, prompt: str, answer: str, name: str) -> list[int]:
    """Token ids with which a name continues a prompt.

    Raises:
        RecipeError: The name melts into the prompt's last token, or gives no token at all.
    """
    bare = tokenizer(prompt, verbose=False).input_ids  # pyright: ignore[reportCallIssue]
    full = tokenizer(prompt + answer.replace("{name}", name), verbose=False).input_ids  # pyright: ignore[reportCallIssue]
    if full[: len(bare)] != bare or len(full) == len(bare):
        raise RecipeError(
            f"steer.ask: the answer {answer!r} with {name!r} does not continue the prompt {prompt!r} in tokens of its own"
        )
    return list(full[len(bare) :])


def first_token_row(vlm: VLM, asking: Asking) -> Callable[[str], Float[Tensor, " d"]]:
    """A function from a name to the output matrix's row for its first token, as it would begin an answer."""
    prompt = asking.choice.replace("{first}", "").replace("{second}", "")

    def row(name: str) -> Float[Tensor, " d"]:
        token = answer_ids(vlm.processor.tokenizer, prompt, asking.answer, name)[0]
        return vlm.model.lm_head.weight[token].detach().float().cpu()

    return row


def lay_out(vlm: VLM, photographs: Sequence[Sequence[Prepared]], sites: Sequence[Site]) -> list[Asked]:
    """Several photographs, each prepared under several prompts.

    Args:
        vlm: The whole model.
        photographs: For each photograph its sequences, in the order of the prompts.
        sites: Where edits may act.

    Raises:
        ValueError: A site names no position of a photograph.
    """
    first = embed(vlm, [prompts[0] for prompts in photographs])
    return [_lay_out(vlm, prompts, stream, sites) for prompts, stream in zip(photographs, first, strict=True)]


def _lay_out(vlm: VLM, prompts: Sequence[Prepared], first: Float[Tensor, "t d"], sites: Sequence[Site]) -> Asked:
    n = shared([one.input_ids for one in prompts])
    suffixes = []
    for i, one in enumerate(prompts):
        ids = torch.from_numpy(one.input_ids[n:].astype(np.int64)).to(vlm.device)
        if i == 0:
            suffixes.append(first[n:])
        elif bool((ids == vlm.card.image_token_id).any()):  # prompts that differ before the picture
            suffixes.append(embed(vlm, [one])[0][n:])
        else:
            suffixes.append(embed_ids(vlm, ids[None])[0])
    masks = tuple(tuple(_mask(site, one, vlm.card) for one in prompts) for site in sites)
    return Asked(first[:n], tuple(suffixes), masks)


def _mask(site: Site, one: Prepared, card: ModelCard) -> Bool[Tensor, " t"]:
    return torch.from_numpy(positions(site, one, card))


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
