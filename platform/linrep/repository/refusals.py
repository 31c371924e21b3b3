"""What goes wrong with the hub, in one line each that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from linrep.errors import HubError
from linrep.repository.address import Address


def has_token() -> bool:
    """Whether this machine has a token of the hub: in HF_TOKEN, or from `hf auth login`."""
    from huggingface_hub import get_token

    return get_token() is not None


@contextmanager
def hub_errors(address: Address, writing: bool = False) -> Iterator[None]:
    """Turn what goes wrong with the hub into one line that says what to do; other errors pass as they are.

    Args:
        address: The repository, for the line.
        writing: Whether something is sent, which needs more rights.

    Raises:
        HubError: The line.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        for cause in _causes(error):
            line = _said(cause, address, writing)
            if line is not None:
                raise HubError(line) from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What the error was raised for, the innermost first, and the error itself: what went wrong is wrapped on its way."""
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
    yield error


def _said(error: BaseException, address: Address, writing: bool) -> str | None:
    import httpx2
    from huggingface_hub import constants, errors, is_offline_mode

    what, hub = f"{address.kind} repository {address.name}", constants.ENDPOINT
    match error:
        case errors.GatedRepoError():
            return f"the {what} is gated: ask for access on its page at {hub}, then log in with `hf auth login`"
        case errors.RepositoryNotFoundError():
            seen = "this token may not see it" if has_token() else "it is private: log in with `hf auth login`, or set HF_TOKEN"
            return f"no {what} on {hub}, or {seen}"
        case errors.RevisionNotFoundError():
            return f"the {what} has no revision {address.revision!r:.100}: name another after the @"
        case errors.HfHubHTTPError():
            return _refused(what, hub, error.response.status_code, _line(error.server_message or error), writing)
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError() | errors.CachedRepoTreeNotFoundError() if (
            is_offline_mode()
        ):
            held = "" if writing else ", and the cache does not hold it"
            return f"HF_HUB_OFFLINE is set, so the hub is not asked for the {what}{held}: unset it, and repeat"
        case httpx2.TransportError() | errors.LocalEntryNotFoundError() | errors.CachedRepoTreeNotFoundError():
            held = "" if writing else ", and the cache does not hold it"
            return f"cannot reach {hub} for the {what}{held}: connect, and repeat"
        case errors.HFValidationError() | errors.FileMetadataError() | errors.XetDownloadError():
            return f"{what}: {_line(error)}"
        case OSError() if error.errno is None and "Consistency check" in str(error):
            return f"the {what} came cut short: repeat"
    return None


def _refused(what: str, hub: str, status: int, said: str, writing: bool) -> str:
    match status:
        case 401 | 403 if writing:
            need = "a token that may write there: `hf auth login`, or set HF_TOKEN"
            return f"{hub} does not let the {what} be written ({status}: {said}): it takes {need}"
        case 401 | 403:
            return f"{hub} refuses the {what} ({status}: {said}): log in anew with `hf auth login`, or set HF_TOKEN"
        case 409 | 412 if writing:
            return f"the {what} was changed by somebody else meanwhile ({status}): repeat"
        case 429:
            return f"{hub} is asked too often (429): repeat later"
        case _ if status >= 500:
            return f"{hub} does not work now ({status}): repeat later"
    return f"{hub} refuses the {what} ({status}: {said})"


def _line(error: object) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())[:300]
