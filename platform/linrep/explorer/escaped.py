"""Texts of users as data: whatever a name, an answer or an explanation holds, it shows as characters and is never markup."""

import html
import re
import unicodedata

LONGEST = 600
"""Characters that are shown of a text that others wrote."""
SENTENCES = 4000
"""Characters that are shown of a finding, which may hold several such texts."""
_MARKDOWN = re.compile(r"([\\`*<|~&$]|](?=[(\[:]|$)|(?<![^\W_])_|_(?![^\W_])|^[-+=#>]|(?<=:)/(?=/)|(?<=www)\.)", re.IGNORECASE)
_BRACKETS = re.compile(r"(?:[^\\\[\]]|\\.)+|[\[\]]")
_NUMBERED = re.compile(r"^(\d+)([.)])")
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that show as nothing, or turn the order of others round."""


def line(text: object, longest: int = LONGEST) -> str:
    """A text on one line, with nothing in it that cannot be seen, cut in the middle if it is long.

    Args:
        text: Any text.
        longest: Characters that are kept, at most.

    >>> line("a\\nboat \\u202e.exe"), line("boat" * 1000, 20)
    ('a boat \\\\u202e.exe', 'boatboa… (4,000 characters) …boatboat')
    """
    whole = str(text)
    kept = whole
    if len(whole) > longest:
        head, tail = longest // 2 - 3, longest // 2 - 2
        kept = f"{whole[:head]}… ({len(whole):,} characters) …{whole[len(whole) - tail :]}"
    return " ".join("".join(map(_seen, kept)).split())


def _seen(character: str) -> str:
    if character.isspace() and unicodedata.category(character) not in ("Zl", "Zp"):
        return " "
    if unicodedata.category(character) in _UNSEEN:
        code = ord(character)
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def in_markdown(text: object, longest: int = LONGEST) -> str:
    """A text as Markdown shows it unchanged, in a paragraph or a cell of a table.

    >>> print(in_markdown("<b>*x*</b> [a](javascript:b), mean_difference [.1, .2]"))
    \\<b>\\*x\\*\\</b> [a\\](javascript:b), mean_difference [.1, .2\\]
    """
    return _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", line(text, longest)))


def as_alt(text: object, longest: int = LONGEST) -> str:
    """A text as the description of an image in Markdown, which square brackets would end.

    >>> print(as_alt("a [b] \\\\]"))
    a \\[b\\] \\\\\\]
    """
    parts = _BRACKETS.findall(in_markdown(text, longest))
    return "".join(f"\\{part}" if part in ("[", "]") else part for part in parts)


def fenced(text: str) -> list[str]:
    """Lines of a block of code in Markdown, whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}bash", text, fence]


def in_html(text: object, longest: int = LONGEST) -> str:
    """A text as HTML shows it unchanged, in an element or a quoted attribute.

    >>> in_html("<script>'x' & \\"y\\"")
    '&lt;script&gt;&#x27;x&#x27; &amp; &quot;y&quot;'
    """
    return html.escape(line(text, longest))


def code_in_html(text: str) -> str:
    """A command as HTML shows it, character by character: it is pasted as it stands."""
    whole = html.escape(text.encode("utf-8", "backslashreplace").decode())
    return "".join(f"&#{ord(c)};" if unicodedata.category(c) == "Cf" else c for c in whole if c in "\n\t" or ord(c) >= 32)
