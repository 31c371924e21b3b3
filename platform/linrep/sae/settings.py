"""The fields of a configuration file: each is read as what it must be, and what nobody read is refused by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from linrep.errors import FormatError
from linrep.places import Place

MISSING: Any = object()


class Settings:
    """Fields of a file, or of a section in it.

    Args:
        file: The file, for messages.
        values: Its fields.
        inside: Name of the section, empty for the file itself.
    """

    def __init__(self, file: Place, values: Mapping[str, Any], inside: str = "") -> None:
        self.file, self.inside = file, inside
        self._values, self._read = values, set[str]()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def renamed(self, names: Mapping[str, str]) -> "Settings":
        """The same fields, some by another name.

        Raises:
            FormatError: One is there by both names.
        """
        twice = [f"{old} and {new}" for old, new in names.items() if old in self._values and new in self._values]
        if twice:
            raise FormatError(f"{self.file} has {twice[0]}, which are one field by its old and its new name: remove one")
        return Settings(self.file, {names.get(name, name): value for name, value in self._values.items()}, self.inside)

    def raw(self, name: str, default: Any = MISSING) -> Any:
        """A field as it stands.

        Raises:
            FormatError: It is missing, and there is no default.
        """
        self._read.add(name)
        if name in self._values:
            return self._values[name]
        if default is MISSING:
            raise FormatError(f"{self.file} lacks {self._called(name)}: it has {', '.join(map(str, self._values)) or 'nothing'}")
        return default

    def whole(self, name: str, default: Any = MISSING, least: int = 1) -> Any:
        """A whole number, or the default."""
        value = self.raw(name, default)
        if name in self._values and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            self.refuse(name, f"must be a whole number of {least} at least")
        return value

    def flag(self, name: str, default: Any = MISSING) -> bool:
        """True or false."""
        value = self.raw(name, default)
        if not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return value

    def word(self, name: str, default: Any = MISSING) -> str:
        """A word."""
        value = self.raw(name, default)
        if not isinstance(value, str):
            self.refuse(name, "must be a word")
        return value

    def said(self, name: str) -> str | None:
        """A text, None where it is null or missing."""
        value = self.raw(name, None)
        if value is not None and not isinstance(value, str):
            self.refuse(name, "must be a text or null")
        return value

    def number(self, name: str, least: int = 0) -> int | None:
        """A whole number, None where it is null or missing."""
        return self.whole(name, least=least) if self.raw(name, None) is not None else None

    def sizes(self, name: str) -> list[int] | None:
        """A list of whole numbers above 0, None where it is null or missing."""
        value = self.raw(name, None)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
        ):
            self.refuse(name, "must be a list of whole numbers above 0")
        return value

    def section(self, name: str) -> "Settings":
        """The fields of a section; none where it is null or missing."""
        value = self.raw(name, None)
        if value is not None and not isinstance(value, dict):
            self.refuse(name, "must be a mapping of fields")
        return Settings(self.file, value or {}, self._called(name))

    def only(self, name: str, *allowed: Any, why: str) -> None:
        """Refuse a field that is there and is none of some values.

        Args:
            name: The field.
            allowed: Values that change nothing.
            why: What is wrong with others.
        """
        value = self.raw(name, MISSING if name in self._values else allowed[0])
        if not any(type(value) is type(one) and value == one for one in allowed):
            self.refuse(name, why)

    def skip(self, names: Iterable[str]) -> None:
        """Take fields as read that say how it was made, and change nothing of what it does."""
        self._read.update(names)

    def rest(self) -> dict[str, Any]:
        """All fields that nobody has read, which count as read from now on."""
        found = {str(name): value for name, value in self._values.items() if name not in self._read}
        self._read.update(self._values)
        return found

    def finish(self) -> None:
        """Refuse what nobody has read.

        Raises:
            FormatError: Names the fields.
        """
        unknown = list(self.rest())
        if unknown:
            raise FormatError(
                f"{self.file} has {self._called(unknown[0])}, a field that nothing here knows"
                + (f" (nor {', '.join(unknown[1:])})" if unknown[1:] else "")
                + ": what it changes would be lost. Remove it if it changes nothing"
            )

    def refuse(self, name: str, why: str) -> Any:
        """Refuse a field's value.

        Raises:
            FormatError: Always.
        """
        raise FormatError(f"{self.file}: {self._called(name)} {why}, got {shown(self._values.get(name))}")

    def _called(self, name: str) -> str:
        return f"{self.inside}.{name}" if self.inside else name


def shown(value: Any) -> str:
    """A value on one line, shortened."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
