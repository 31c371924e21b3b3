"""The prompts of images, pairs and texts in one place: what is left out follows the image's prompt, and what differs is said.

A vector of a token depends on what stands before it, that of the last token on what stands after the content too. Two modalities
are compared fairly where both stand in the same words. Imports neither torch nor transformers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from linrep.vlm.config import IMAGE, TEXT, check_prompt

FIELDS = "image_prompt", "pair_prompt", "text_prompt"


class Prompts(NamedTuple):
    """What stands around images, images with a text, and texts."""

    image: str
    pair: str
    text: str


def follow(image: str, pair: str | None = None, text: str | None = None) -> Prompts:
    """The three prompts, of which those left out are the image's: with the text after the image, and in its place.

    >>> follow("Q: <image> what? A:")
    Prompts(image='Q: <image> what? A:', pair='Q: <image>\\n{text} what? A:', text='Q: {text} what? A:')
    """
    return Prompts(image, pair or image.replace(IMAGE, f"{IMAGE}\n{TEXT}"), text or image.replace(IMAGE, TEXT))


def filled_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section, with the prompts that it leaves out, or gives as null."""
    image = values.get("image_prompt", IMAGE)
    try:
        found = follow(check_prompt(image, IMAGE))
    except (ValueError, AttributeError, TypeError):  # refused by the field itself
        found = follow(IMAGE)
    given = {name: values[name] for name in FIELDS if values.get(name) is not None}
    return {**values, "image_prompt": image, "pair_prompt": found.pair, "text_prompt": found.text, **given}


def prompts_differ(harvest: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each way in which texts, or pairs, stand in other words than images; empty where all stand in the same.

    Args:
        harvest: The harvest section of a recipe or of a store's manifest, as plain values.
    """
    prompts = Prompts(*(filled_in(harvest)[name] for name in FIELDS))
    own = around(prompts.image)
    found = []
    for what, other in (("a text", around(prompts.text)), ("an image with a text", around(prompts.pair))):
        for side, mine, theirs in zip(("before", "after"), own, other, strict=True):
            if mine != theirs:
                found.append(f"{side} {what} stands {_said(theirs)}, {side} an image alone {_said(mine)}")
    return tuple(found)


def one_prompt(harvest: Mapping[str, Any]) -> bool:
    """Whether texts are read under the prompt of the images: the last token of both is then at the same place.

    Args:
        harvest: The harvest section of a recipe or of a store's manifest, as plain values.
    """
    return harvest.get("text_prompt", TEXT).replace(TEXT, IMAGE) == harvest.get("image_prompt", IMAGE)


def around(prompt: str) -> tuple[str, str]:
    """What stands before the first placeholder of a prompt, and after the last.

    >>> around("USER: <image> {text} ASSISTANT:")
    ('USER: ', ' ASSISTANT:')
    """
    places = [(prompt.index(one), prompt.index(one) + len(one)) for one in (IMAGE, TEXT) if one in prompt]
    return prompt[: min(first for first, _ in places)], prompt[max(end for _, end in places) :]


def _said(words: str) -> str:
    return repr(words) if words else "nothing"


def doubled_start(tokenizer: Any, prompt: str) -> str | None:
    """Why a prompt cannot be used, if its sequence begins with two start tokens: one of its own, one from the tokenizer.

    Args:
        tokenizer: Of the model.
        prompt: As it is given to the tokenizer, or with placeholders.
    """
    start = tokenizer.bos_token_id
    if start is None or list(tokenizer(prompt, verbose=False).input_ids[:2]) != [start, start]:
        return None
    token = tokenizer.bos_token
    return f"begins with two start tokens: the tokenizer puts one {token!r} there by itself, leave it out of {prompt!r}"


def bare_starts(tokenizer: Any, prompts: Mapping[str, str], image_token: str = IMAGE) -> tuple[str, ...]:
    """A sentence for each prompt whose sequence does not begin with a token that may be spoilt.

    The first token of a sequence takes up attention that has nowhere to go: its vector grows huge in the middle layers. Where no
    start token stands first, an image's or a text's own tokens become such sinks.

    Args:
        tokenizer: Of the model.
        prompts: By what they stand around.
        image_token: How the tokenizer writes an image.

    Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023; Sun et al., "Massive Activations in
    Large Language Models", 2024.
    """
    start, found = tokenizer.bos_token_id, []
    for name, prompt in prompts.items():
        ids: Sequence[int] = tokenizer(prompt.replace(IMAGE, image_token).replace(TEXT, "a"), verbose=False).input_ids
        if start is not None and ids and ids[0] == start:
            continue
        first = around(prompt)[0]
        what = (
            "the model has no start token"
            if start is None
            else f"the sequence does not begin with the start token {tokenizer.bos_token!r}"
        )
        if not first:
            found.append(f"{name}: {what}, and nothing stands before the content: its first tokens become attention sinks")
        elif start is not None:
            found.append(f"{name}: {what}: tokens of the prompt, or the content's first, become attention sinks")
    return tuple(found)
