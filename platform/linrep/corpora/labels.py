"""Labels: which values name a class, which say that there is none, and which are neither."""

import math
import re
from decimal import Decimal
from typing import Any

_INTEGRAL = re.compile(r"([+-]?\d+)\.0+")
_NEGATIVE = re.compile(r"-\d+")
NO_LABEL = frozenset({"", "-1", "nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "NaT"})
"""Texts that say that there is no label: what programs write for a missing value."""

LONGEST = 1000


def class_id(value: Any) -> str | None:
    """The id of the class that a label names; None where it says that there is none.

    No label are null, NaN, blank texts, -1 (as the hub's `datasets` writes it) and the texts in `NO_LABEL`. A number or a text
    that is integral (2.0, "2.0") is the integer; bytes are UTF-8 text; spaces around a text do not count.

    Raises:
        ValueError: It is of another type, a fraction, infinite, or a negative number other than -1; the message says which.

    >>> class_id(2.0), class_id(" boat "), class_id(-1), class_id(float("nan"))
    ('2', 'boat', None, None)
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{value[:20]!r} is not UTF-8") from None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError(f"{str(value)[:40]!r} is a {type(value).__name__}, not an integer or a text")
    name = value.strip() if isinstance(value, str) else _number(value)
    if len(name) > LONGEST:
        raise ValueError(f"a text of {len(name):,} characters is no class")
    if (integral := _INTEGRAL.fullmatch(name)) is not None:
        name = str(int(integral[1]))
    if name in NO_LABEL:
        return None
    if _NEGATIVE.fullmatch(name):
        raise ValueError(f"{name[:40]} is negative: classes are numbered from 0, and -1 means no label")
    if "\0" in name or any("\ud800" <= c <= "\udfff" for c in name):
        raise ValueError(f"{name[:40]!r} holds characters that no text has")
    return name


def _number(value: int | float | Decimal) -> str:
    if isinstance(value, int):
        return str(value) if abs(value) < 10**LONGEST else "9" * (LONGEST + 1)  # Python refuses to write longer ones
    if value != value:
        return ""
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{value} is no integer below 1e308")
    return str(int(value))
