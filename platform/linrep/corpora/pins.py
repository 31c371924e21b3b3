"""Corpora on the hub, held to the commit that was there when they were indexed: what is read later is what was listed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from linrep.corpora.config import Corpora, field_of
from linrep.corpora.kinds import Source
from linrep.errors import CorpusError, HubError
from linrep.repository.address import PREFIX, Address, is_address, parse
from linrep.repository.files import pinned

Pins = Mapping[str, Mapping[str, str]]
"""For each source the commits of its fields that are addresses of the hub."""

_FIELDS = ("path", "image_root")


def find_pins(corpora: Corpora) -> dict[str, dict[str, str]]:
    """The commits that the addresses in the corpora stand for now; one commit for all sources of one repository.

    Raises:
        CorpusError: An address is none, a repository is not there, or the hub does not answer; the line says what to do.
    """
    found: dict[str, dict[str, str]] = {}
    commits: dict[Address, str] = {}
    for key, source in corpora.sources.items():
        for name, text in _addresses(source).items():
            with hub_lines(key, source):
                repository = replace(parse(text), folder="")
                if repository not in commits:
                    commits[repository] = str(parse(pinned(str(repository))).revision)
                found.setdefault(key, {})[name] = commits[repository]
    return found


def at_pins(corpora: Corpora, pins: Pins) -> Corpora:
    """The corpora with these commits in their addresses."""
    return corpora.with_sources({key: _pinned(source, pins.get(key, {})) for key, source in corpora.sources.items()})


@contextmanager
def hub_lines(key: str, source: Source) -> Iterator[None]:
    """Turn what goes wrong with the hub into a line that names the source, and what else to do where there is no connection.

    Raises:
        CorpusError: The line.
    """
    try:
        yield
    except (HubError, OSError) as error:
        texts = _addresses(source)
        if not texts:
            raise
        raise CorpusError(f"{field_of(key)}: {error}{_advice(texts, error)}") from None


def _addresses(source: Source) -> dict[str, str]:
    given = {name: getattr(source, name, None) for name in _FIELDS}
    return {name: value for name, value in given.items() if value is not None and is_address(value)}


def _pinned(source: Source, commits: Mapping[str, str]) -> Source:
    given = _addresses(source).items()
    own = {name: str(replace(parse(value), revision=commits[name])) for name, value in given if name in commits}
    return source.model_copy(update=own)


def _advice(texts: Mapping[str, str], error: BaseException) -> str:
    """What else to do: on a machine that is not connected, and where a dataset may be meant."""
    text = next(iter(texts.values()))
    if not _is_away(error):
        return "" if text.startswith(f"{PREFIX}datasets/") else f"; the address of a dataset begins with {PREFIX}datasets/"
    there = parse(text)
    command = f"hf download {there.name} --repo-type {there.kind} --local-dir data/{there.name.partition('/')[2]}"
    return f"; or fetch it on a machine that is connected (`{command}`), and name that folder"


def _is_away(error: BaseException | None) -> bool:
    """Whether an error comes from there being no connection, or none that is wanted."""
    import httpx2
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    away = (httpx2.TransportError, OfflineModeIsEnabled, LocalEntryNotFoundError)
    return error is not None and (isinstance(error, away) or _is_away(error.__cause__) or _is_away(error.__context__))
