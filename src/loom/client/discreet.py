"""
What an error must not carry out of the library: keys and prompts in the locals of its frames.

Tools that report errors write the local variables of every frame into their reports
(`TracebackException(capture_locals=True)`, rich tracebacks, Sentry). So the frames of the library
are emptied where an error leaves it; lines and names stay. The caller's own frames, and those of
functions that he gave, are his.

Source: the project's reliability rules R-45, S8 and S9.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, ParamSpec, TypeVar

__all__ = ["discreet", "discreet_async", "forget"]

# Beside the library itself: what it lends texts to. Other frames may be the caller's functions.
_EMPTIED = frozenset({"loom", "json", "aiohttp"})

P = ParamSpec("P")
T = TypeVar("T")


def forget(error: BaseException) -> None:
    """
    Empty the library's frames that an error, and what it stands on, went through.

    Frames that still run are left: whoever calls this empties his own.

    Args:
        error: An error on its way to the caller.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        left += [each.__cause__, each.__context__]
        trace = each.__traceback__
        while trace is not None:
            _empty(trace.tb_frame)
            trace = trace.tb_next


def discreet(method: Callable[P, T]) -> Callable[P, T]:
    """
    Let no error leave a function with what is in the library's locals, the function's own too.

    Args:
        method: A function that callers call.

    Returns:
        The same for its callers.
    """

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except BaseException as error:  # Ctrl-C too: reports show its frames as any error's
            forget(error)
            del args, kwargs
            raise

    return call


def discreet_async(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """
    Do the same as `discreet` for an `async def`.

    Args:
        method: A function that callers await.

    Returns:
        The same for its callers.
    """

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except BaseException as error:  # Ctrl-C too: reports show its frames as any error's
            forget(error)
            del args, kwargs
            raise

    return call


def _empty(frame: FrameType) -> None:
    if frame.f_globals.get("__name__", "").partition(".")[0] not in _EMPTIED:
        return
    try:
        frame.clear()
    except RuntimeError:
        return  # it still runs
