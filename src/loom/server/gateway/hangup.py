"""
Callers that hang up before their answer is there: told by the connection, not waited for.

ASGI tells it by a message, so that whoever wants to hear it needs a task that waits: a twentieth of
the CPU of a plain request (`benchmarks/gateway.py`). Our own connection calls instead; under any
other server the message is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from loom.server.line import CallerGone, Receive, Scope, until_gone

__all__ = ["Listeners", "listeners_of", "unless_gone"]

_KEY = "loom.listeners"


class Listeners:
    """Who wants to hear of one connection that it was lost."""

    def __init__(self) -> None:
        self.lost = False
        self._waiting: set[Callable[[], None]] = set()

    def add(self, listener: Callable[[], None]) -> None:
        """Tell it later; whoever looks at `lost` before misses nothing."""
        self._waiting.add(listener)

    def remove(self, listener: Callable[[], None]) -> None:
        """Tell it no more."""
        self._waiting.discard(listener)

    def tell(self) -> None:
        """Tell all that the connection is lost."""
        self.lost = True
        for listener in tuple(self._waiting):
            listener()

    def put_into(self, scope: Any) -> None:
        """Let the application of a request find them."""
        scope[_KEY] = self


def listeners_of(scope: Scope) -> Listeners | None:
    """
    Who listens to the connection of a request.

    Args:
        scope: ASGI's.

    Returns:
        They; None when the connection is none of ours.
    """
    found: Listeners | None = scope.get(_KEY)
    return found


async def unless_gone(
    listeners: Listeners | None, receive: Receive, work: Coroutine[Any, Any, None]
) -> None:
    """
    Do the work, or drop it the moment the caller hangs up.

    Args:
        listeners: Those of the connection; None: `receive` is waited for.
        receive: ASGI's, after the body was read.
        work: What answers the caller.

    Raises:
        CallerGone: If the caller hung up before the work began.
    """
    task = asyncio.current_task()
    if listeners is None or task is None:
        await until_gone(receive, work)
        return
    if listeners.lost:
        work.close()
        raise CallerGone
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        task.cancel()

    listeners.add(leave)
    try:
        await work
    except asyncio.CancelledError:
        # Ours, unless somebody else wants the task to end as well.
        if not gone or task.uncancel():
            raise
    finally:
        listeners.remove(leave)
