"""What a model's reply says in the end: the last complete JSON value after any thinking.

Models think before they answer, some aloud, and drafts of an answer in their thoughts look like the answer. So thoughts are left
out, whatever tags they stand between, and of what is left the last complete value counts.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

_THOUGHTS = (
    r"think(?:ing)?|thoughts?|reason(?:ing|s)?|reflect(?:ion|ing)?|scratch_?pad|analysis|analy[sz]e|deliberat(?:e|ion)|"
    r"(?:inner_|internal_)?monologue|chain_of_thought|cot|rationale|plan(?:ning)?|drafts?|critique|notes?|self_?check|"
    r"begin_of_thought|working|steps?"
)
_OPENS = re.compile(
    rf"<\|?\s*(?:\w+:)?(?P<tag>{_THOUGHTS})\b[^<>]*>|\[(?P<square>{_THOUGHTS})\]|◁(?P<kimi>think)▷"
    r"|<\|channel\|>\s*(?P<channel>analysis|commentary)\b[^<]*<\|message\|>",
    re.IGNORECASE,
)
_CLOSES = re.compile(
    rf"</\s*(?:\w+:)?(?P<tag>{_THOUGHTS})\s*>|<\|\s*(?P<bar>end_of_thought|/\s*(?:{_THOUGHTS}))\s*\|>|\[/(?P<square>{_THOUGHTS})\]"
    r"|◁/(?P<kimi>think)▷|<\|channel\|>\s*(?P<channel>final)\b[^<]*<\|message\|>",
    re.IGNORECASE,
)
_SAME = {"thinking": "think", "thought": "think", "thoughts": "think", "begin_of_thought": "think", "end_of_thought": "think"}
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[A-Za-z_]\w*|[-+]?\.?\d[\w.+-]*|\s+|.""", re.DOTALL)
_WORDS = {"True": "true", "False": "false", "None": "null"}
LONGEST = 65_536
"""Characters at a reply's end that are read."""
_STEPS = 500_000
"""Characters that the search for values in loose notation may look at."""


def after_thinking(said: str) -> str:
    """The reply without thoughts: what stands after the last one that ends; nothing of one that does not end."""
    return "".join(piece for piece, _ in _pieces(said[-LONGEST:]))


def last_object(said: str, wanted: Collection[str]) -> dict[str, Any]:
    """The last complete object after any thinking that has the wanted fields, at any depth.

    Raises:
        ValueError: There is none.
    """
    found = [one for value in _values(said) for one in _objects(value) if all(name in one for name in wanted)]
    if not found:
        raise ValueError(f"no JSON with {' and '.join(wanted)} {_where(said)}")
    return found[-1]


def last_list(said: str, n: int, allowed: Collection[Any]) -> list[Any]:
    """The last complete list of n allowed values after any thinking.

    Raises:
        ValueError: There is none.
    """
    lists = [one for value in _values(said) for one in _lists(value)]
    found = [one for one in lists if len(one) == n and all(not isinstance(x, list | dict) and x in allowed for x in one)]
    if not found:
        raise ValueError(f"no list of {n} answers {_where(said)}")
    return found[-1]


def _where(said: str) -> str:
    left = after_thinking(said).strip()
    return f"in {left[:120]!r}" if left or not said.strip() else "after the thinking: the reply ends while it thinks"


def _values(said: str) -> list[Any]:
    """All complete JSON values of a reply, thoughts left out, in their order."""
    return [value for _, values in _pieces(said[-LONGEST:]) for value in values]


def _pieces(text: str) -> list[tuple[str, list[Any]]]:
    """Stretches of a reply that are no thoughts, and the values in each."""
    found: list[tuple[str, list[Any]]] = []
    start = at = 0
    values: list[Any] = []
    reader = _Reader(text)
    while at < len(text):
        # Only these characters can begin a tag or a value.
        if text[at] in "<[◁":
            closes = _CLOSES.match(text, at)
            if closes:  # what came before was thought, if the beginning of it was cut off or never said
                found, values, start = [], [], closes.end()
                at = start
                continue
            opens = _OPENS.match(text, at)
            if opens:
                found.append((text[start:at], values))
                end = _end_of_thought(text, opens)
                if end is None:
                    return found
                values, start = [], end
                at = end
                continue
        read = reader.at(at) if text[at] in "{[" else None
        if read is None:
            at += 1
        else:
            values.append(read[0])
            at = read[1]
    return [*found, (text[start:], values)]


def _end_of_thought(text: str, opens: re.Match[str]) -> int | None:
    own = _kind(opens)
    return next((one.end() for one in _CLOSES.finditer(text, opens.end()) if _kind(one) == own), None)


def _kind(tag: re.Match[str]) -> tuple[str, str]:
    style, name = next((style, name.lower()) for style, name in tag.groupdict().items() if name is not None)
    if style == "channel":
        return "channel", ""
    name = name.strip("/ ")
    return ("tag" if style == "bar" else style), _SAME.get(name, name)


class _Reader:
    """Reads a JSON value at a place of a text, in loose notation too: single or curly quotes, a comma too many, True and None."""

    def __init__(self, text: str) -> None:
        self._text, self._left = text, _STEPS
        self._strict = json.JSONDecoder(strict=False)

    def at(self, start: int) -> tuple[Any, int] | None:
        """The value that begins there and the place after it; None if there is no complete one."""
        if self._left <= 0:
            return None
        try:
            return self._strict.raw_decode(self._text, start)
        except (ValueError, RecursionError) as error:
            self._left -= getattr(error, "pos", start + 1000) - start + 1
        for end in self._ends(start):
            value = _loose(self._text[start:end])
            if value is not None:
                return value[0], end
        return None

    def _ends(self, start: int) -> Iterator[int]:
        """Where the brackets that open there are closed: strings looked at as such, and not."""
        for quotes in ('"', "\"'", ""):
            depth, quote, at = 0, "", start
            while at < len(self._text) and self._left > 0:
                c = self._text[at]
                self._left -= 1
                if quote:
                    at += c == "\\"
                    quote = "" if c == quote else quote
                elif c in quotes:
                    quote = c
                elif c in "{[":
                    depth += 1
                elif c in "}]":
                    depth -= 1
                    if depth == 0:
                        yield at + 1
                        break
                at += 1


def _loose(text: str) -> tuple[Any] | None:
    for one in (text, text.translate(_QUOTES)):
        try:
            return (json.loads("".join(_as_json(one)), strict=False),)
        except (ValueError, RecursionError):
            continue
    return None


def _as_json(text: str) -> Iterator[str]:
    """Loose notation in JSON's own, token by token."""
    tokens: list[str] = [one for one in _TOKEN.findall(text) if not one.isspace()]
    for token, after in zip(tokens, [*tokens[1:], ""], strict=True):
        if token[0] == "'" and len(token) > 1:
            yield json.dumps(re.sub(r"\\(.)", lambda m: m[1] if m[1] == "'" else m[0], token[1:-1]).replace("\\\\", "\\"))
        elif token[0].isalpha() or token[0] == "_":
            word = str(_WORDS.get(token, token))
            yield json.dumps(token) if after == ":" else word
        elif token == "," and after in ("}", "]"):
            continue
        else:
            yield f"0{token}" if token[0] == "." and len(token) > 1 else token.removeprefix("+")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """An object's own objects before itself: who wraps a verdict says nothing after it."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _objects(inner)
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _lists(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _lists(inner)
    if isinstance(value, list):
        yield value
