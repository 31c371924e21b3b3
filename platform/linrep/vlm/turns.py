"""A chat in a model's own template: the prompt that it makes, and where in it each turn lies.

Imports neither torch nor transformers.

Source: `apply_chat_template` of transformers, whose templates take the parts of a turn one by one, or a turn as one string.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from linrep.errors import ModelError
from linrep.vlm.config import IMAGE, PLACEHOLDERS, Turn
from linrep.vlm.prompts import follow

Span = tuple[int, int]
"""First character and the one after the last."""


@dataclass(frozen=True, slots=True)
class Script:
    """A prompt, and where what a chat says lies in it; a prompt from elsewhere has no turns.

    Attributes:
        prompt: With placeholders, and without the start token that the tokenizer puts there by itself.
        turns: Where what each turn says lies in it.
        question: Which of them is the user's last; None where the user says nothing.
        answer: Where the assistant's part begins: the words with which the template lets it speak, or what the chat has it say;
            None where the template writes nothing there.
    """

    prompt: str
    turns: tuple[Span, ...] = ()
    question: int | None = None
    answer: int | None = None

    def put(self, fills: Mapping[str, str]) -> "Script":
        """The same with something else in the place of placeholders.

        >>> Script("Q: <image> what?", ((3, 16),), 0, None).put({"<image>": "{text}"})
        Script(prompt='Q: {text} what?', turns=((3, 15),), question=0, answer=None)
        """
        found = self
        for placeholder, fill in fills.items():
            at = found.prompt.find(placeholder)
            if at >= 0:
                end, more = at + len(placeholder), len(fill) - len(placeholder)
                moved = [(a + more * (a >= end), b + more * (b >= end)) for a, b in found.turns]
                answer = None if found.answer is None else found.answer + more * (found.answer >= end)
                prompt = f"{found.prompt[:at]}{fill}{found.prompt[end:]}"
                found = replace(found, prompt=prompt, turns=tuple(moved), answer=answer)
        return found


class Scripts(NamedTuple):
    """What stands around images, images with a text, and texts, where a chat says it: in the same words."""

    image: Script
    pair: Script
    text: Script

    @classmethod
    def of(cls, script: Script) -> "Scripts":
        """Those that follow an image's, as prompts do."""
        return cls(*(script.put({IMAGE: usual}) for usual in follow(IMAGE)))


def write_script(chat: Sequence[Turn], tokenizer: Any, template: str | None, written: str) -> Script:
    """The prompt that a chat makes, up to where the assistant speaks; where its last turn is the assistant's, it goes on there.

    Args:
        chat: Its turns; one of them shows the image.
        tokenizer: Of the model.
        template: The model's chat template.
        written: How the template writes an image.

    Raises:
        ModelError: The model has no template, or it refuses the chat, shows no image, or changes what a turn says.
    """
    if template is None:
        raise ModelError("the model has no chat template: give image_prompt, a string, instead of chat")
    goes_on = chat[-1].role == "assistant"
    ending = {"continue_final_message": True} if goes_on else {"add_generation_prompt": True}
    for in_parts in (True, False):
        pieces = [_pieces(turn.content) for turn in chat]
        try:
            full = _render(chat, pieces, tokenizer, template, in_parts, **ending)
        except TypeError:  # the template puts turns together as strings
            continue
        if full.count(written if in_parts else IMAGE) == 1:
            break
    else:
        raise ModelError(f"the model's chat template does not write an image as {written!r}, once: give image_prompt instead")
    holder = written if in_parts else IMAGE
    spans = _spans(chat, pieces, tokenizer, template, in_parts, full, holder, ending)
    users = [i for i, turn in enumerate(chat) if turn.role == "user"]
    said = full[: spans[-1][0]] if goes_on else _render(chat, pieces, tokenizer, template, in_parts)
    answer = len(said) if full.startswith(said) and said != full else None
    found = Script(full, spans, users[-1] if users else None, answer)
    return _without_start(found.put({holder: IMAGE}), tokenizer)


def _pieces(content: str) -> list[str]:
    """What is said and shown in order: "<image>What?" is the image and a text."""
    return [piece for piece in re.split(f"({re.escape(IMAGE)})", content) if piece]


def _render(
    chat: Sequence[Turn], pieces: Sequence[Sequence[str]], tokenizer: Any, template: str, in_parts: bool, **ending: bool
) -> str:
    """What the template makes of some pieces.

    Raises:
        TypeError: It cannot put them together in this form.
        ModelError: It refuses them.
    """
    from jinja2 import TemplateError, UndefinedError

    def content(own: Sequence[str]) -> Any:
        if not in_parts:
            return "".join(own)
        return [{"type": "image"} if piece == IMAGE else {"type": "text", "text": piece} for piece in own]

    messages = [{"role": turn.role, "content": content(own)} for turn, own in zip(chat, pieces, strict=True)]
    try:
        return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **ending))
    except UndefinedError as error:
        raise TypeError(str(error)) from None
    except (TemplateError, ValueError) as error:
        raise ModelError(f"the model's chat template refuses the chat: {' '.join(str(error).split())[:300]}") from None


def _spans(
    chat: Sequence[Turn], pieces: Sequence[Sequence[str]], tokenizer: Any, template: str, in_parts: bool, full: str, holder: str,
    ending: Mapping[str, bool],
) -> tuple[Span, ...]:  # fmt: skip
    """Where what each turn says lies: each text is put under a name of its own, and the names are looked for.

    Raises:
        ModelError: A turn's words are not all there, or not as they were said.
    """
    names = [[piece if piece == IMAGE else f"«{i}.{j}»" for j, piece in enumerate(own)] for i, own in enumerate(pieces)]
    named = _render(chat, names, tokenizer, template, in_parts, **ending)
    for heard in (list, _each_stripped, _ends_stripped):  # many templates strip what is said
        said = {
            name: piece
            for own, words in zip(names, pieces, strict=True)
            for name, piece in zip(own, heard(words), strict=True)
            if name != IMAGE
        }
        found, places = named, {}
        for name, words in sorted(said.items(), key=lambda item: named.find(item[0])):
            at = found.find(name)
            if at < 0:
                break
            found = f"{found[:at]}{words}{found[at + len(name) :]}"
            places[name] = (at, at + len(words))
        if len(places) == len(said) and found == full:
            places[IMAGE] = (full.index(holder), full.index(holder) + len(holder))
            return tuple((min(places[n][0] for n in own), max(places[n][1] for n in own)) for own in names)
    raise ModelError("the model's chat template changes what a turn says, or leaves it out: give image_prompt instead of chat")


def _each_stripped(pieces: Sequence[str]) -> list[str]:
    return [piece.strip() for piece in pieces]


def _ends_stripped(pieces: Sequence[str]) -> list[str]:
    whole = [pieces[0].lstrip(), *pieces[1:]]
    return [*whole[:-1], whole[-1].rstrip()]


def _without_start(script: Script, tokenizer: Any) -> Script:
    """Templates write the start token, and most tokenizers put another one before it."""
    start = tokenizer.bos_token
    if (
        start is None
        or not script.prompt.startswith(start)
        or tokenizer("a", verbose=False).input_ids[0] != tokenizer.bos_token_id
    ):
        return script
    n = len(start)
    answer = None if script.answer is None else script.answer - n
    return replace(script, prompt=script.prompt[n:], turns=tuple((a - n, b - n) for a, b in script.turns), answer=answer)


def check_chat(chat: Sequence[Turn]) -> None:
    """Refuse a chat that shows no image, or more than one, or in which nothing can be said next.

    Raises:
        ValueError: Says what is wrong.
    """
    if not chat:
        raise ValueError("is empty: give at least the user's turn, such as [{role: user, content: '<image>What is shown?'}]")
    shown = sum(turn.content.count(IMAGE) for turn in chat)
    if shown != 1:
        raise ValueError(f"must hold {IMAGE} exactly once over all turns, got it {shown} times")
    other = next((one for one in PLACEHOLDERS if one != IMAGE and any(one in turn.content for turn in chat)), None)
    if other is not None:
        raise ValueError(f"must not hold {other}: a text stands in the place of the image, a caption on the line after it")
