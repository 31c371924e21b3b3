"""What every section of a recipe has in common: frozen, strict about its fields, and digestible."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def digest(*parts: Any) -> str:
    """Ten hexadecimal characters that name everything that was put in.

    Args:
        parts: Sections, or values that JSON can express. Their order counts; the order of keys in mappings does not.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
