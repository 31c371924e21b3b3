"""Files that are a sample each, fetched ahead in threads; what cannot be read has its own reason."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from linrep.places import Place

_THREADS = 8  # files are fetched this many at a time: folders on network mounts and object stores answer slowly
_AHEAD = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bytes of a file, or why there are none.

    Attributes:
        data: The bytes; None where they cannot be read.
        trouble: Why they cannot be used.
    """

    data: bytes | None
    trouble: str | None = None


def fetch(file: Place, size: int | None, largest: int) -> Loaded:
    """A file's bytes, or why there are none.

    Args:
        file: The file.
        size: Its bytes as the index has them; None where no index lists the file.
        largest: Most bytes that are read.

    Raises:
        OSError: An object store does not answer; a second try may succeed.
    """
    try:
        # A disk also holds pipes and devices, whose reading would never end.
        if (file.size() if file.local or size is None else size) > largest:
            return Loaded(None, f"more than {largest} bytes are not read")
        data = file.read_bytes()
    except FileNotFoundError:
        return Loaded(None, "no regular file" if file.local and _is_special(file) else "no such file")
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        if file.may_pass(error):
            raise
        return Loaded(None, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if size is not None and len(data) != size and data:
        return Loaded(None, f"has {len(data)} bytes, the index says {size}: it changed since (--reindex)")
    return Loaded(data)


def ahead(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in order, with a bounded number of items under way in threads."""
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(threads.submit(work, item))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _is_special(file: Place) -> bool:
    """Whether something is there that is neither a file nor nothing."""
    return file.exists() and not file.is_file()
