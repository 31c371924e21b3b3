"""A tokenizer's vocabulary as text that people read: spaces as spaces, bytes as the characters that they write.

Byte-level tokenizers keep their tokens in an alphabet of their own, in which a line's end is `Ċ` and an apostrophe `âĢĻ`. A token
that holds part of a character shows its bytes as `\\xe2`.
"""

import json
import re
from typing import Any

_SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def written_out(tokenizer: Any) -> tuple[str, ...]:
    """The tokens by id: special ones as they are called, the others as what they stand for.

    Args:
        tokenizer: A fast tokenizer.
    """
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    added = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    alphabet = byte_alphabet() if is_byte_level(tokenizer) else {}
    return tuple(added.get(i) or written(token, alphabet) for i, token in enumerate(tokens))


def written(token: str, alphabet: dict[str, int]) -> str:
    """What a token stands for.

    Args:
        token: As the vocabulary has it.
        alphabet: Bytes by their letters, of a byte-level tokenizer; else empty.

    >>> written("âĢĻ", byte_alphabet()), written("âĢ", byte_alphabet()), written("▁boat", {}), written("<0xE2>", {})
    ('’', '\\\\xe2\\\\x80', ' boat', '\\\\xe2')
    """
    if alphabet and all(letter in alphabet for letter in token):
        return bytes(alphabet[letter] for letter in token).decode(errors="backslashreplace")
    if alphabet:
        return token
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]).decode(errors="backslashreplace") if byte else token.replace(_SPACE, " ")


def is_byte_level(tokenizer: Any) -> bool:
    """Whether tokens are written in letters that each stand for a byte."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    return any(kind == "ByteLevel" for name in ("decoder", "pre_tokenizer") for kind in _types(parts.get(name)))


def _types(part: object) -> list[object]:
    if isinstance(part, list):
        return [one for inner in part for one in _types(inner)]
    if isinstance(part, dict):
        return [part.get("type"), *(one for inner in part.values() for one in _types(inner))]
    return []


def byte_alphabet() -> dict[str, int]:
    """The byte that each letter of byte-level tokenizers stands for.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}
