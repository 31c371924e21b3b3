"""Hooks that last as long as their context: on what a module is given, on what it gives, on what a method gives."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def _while_here(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def before(module: nn.Module, hook: Callable[[Tensor], Tensor | None]) -> AbstractContextManager[None]:
    """Run a hook on the first input of a module, and replace the input by what it returns, if anything."""

    def pre(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if args:
            changed = hook(args[0])
            return None if changed is None else ((changed, *args[1:]), kwargs)
        changed = hook(kwargs["hidden_states"])
        return None if changed is None else (args, {**kwargs, "hidden_states": changed})

    return _while_here(module.register_forward_pre_hook(pre, with_kwargs=True))


def called(module: nn.Module, start: Callable[[dict[str, Any]], None]) -> AbstractContextManager[None]:
    """Show the keyword arguments that a module is about to be called with."""

    def pre(_: nn.Module, args: tuple, kwargs: dict) -> None:
        start(kwargs)

    return _while_here(module.register_forward_pre_hook(pre, with_kwargs=True))


def after(module: nn.Module, see: Callable[[tuple, dict[str, Any], Any], None]) -> AbstractContextManager[None]:
    """Show what a module was called with and what it gave: arguments, keyword arguments, output."""

    def post(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        see(args, kwargs, output)

    return _while_here(module.register_forward_hook(post, with_kwargs=True))


@contextmanager
def _instead(owner: nn.Module, method: str, other: Callable) -> Iterator[None]:
    """Another method of a module, where it may have one of its own already."""
    outer = vars(owner).get(method)
    setattr(owner, method, other)
    try:
        yield
    finally:
        if outer is None:
            delattr(owner, method)
        else:
            setattr(owner, method, outer)


def passed_through(module: nn.Module) -> AbstractContextManager[None]:
    """Let a module give back what it is given; hooks on it see that."""
    return _instead(module, "forward", lambda *args, **kwargs: args[0] if args else kwargs["hidden_states"])


def result_of(owner: nn.Module, method: str, see: Callable[[Any], None]) -> AbstractContextManager[None]:
    """Show what a method of a module gives, where what it gives is no module's output."""
    plain = getattr(owner, method)

    @wraps(plain)
    def shown(*args: Any, **kwargs: Any) -> Any:
        found = plain(*args, **kwargs)
        see(found)
        return found

    return _instead(owner, method, shown)
