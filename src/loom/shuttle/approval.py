"""Asks who decides about a call; whatever is not a clear yes is a no."""

from __future__ import annotations

import asyncio
import inspect
import logging
from functools import partial
from typing import Any, get_args

from loom.core.errors import ToolDenied
from loom.core.messages import ToolCall
from loom.shuttle.permission import Approval, Permissions, Verdict
from loom.shuttle.threads import WorkerThreads, call_in_thread

__all__ = ["Approvals"]

_log = logging.getLogger("loom.tools")

_VERDICTS: dict[Any, Verdict] = {word: word for word in get_args(Verdict)}
# Hooks have threads of their own: hanging tools must not keep a person from being asked.
_MAX_THREADS = 16


class Approvals:
    """
    Decides about calls, as permissions say.

    Args:
        permissions: Who decides.
    """

    def __init__(self, permissions: Permissions) -> None:
        self._permissions = permissions
        self._threads = WorkerThreads(_MAX_THREADS, "loom-approval")

    def close(self) -> None:
        """End the threads; nobody is waited for."""
        self._threads.shutdown()

    def must_ask(self, own: Verdict) -> bool:
        """
        Whether somebody has to be asked before a call is decided.

        Args:
            own: What the tool says itself.
        """
        return self._permissions.approve is not None or own == "ask"

    async def decide(self, call: ToolCall, own: Verdict, person: asyncio.Lock) -> None:
        """
        Return if a call may be run.

        Args:
            call: Which.
            own: What the tool says itself.
            person: Held while a person is asked: one question at a time.

        Raises:
            ToolDenied: If it may not be run.
        """
        verdict = own
        if self._permissions.approve is not None:
            verdict = await self._asked(self._permissions.approve, call)
        if verdict == "ask":
            if self._permissions.ask is None:
                raise ToolDenied(
                    "permission denied: a person would have to approve it, and nobody can be asked"
                )
            async with person:
                verdict = await self._asked(self._permissions.ask, call)
        if verdict != "allow":
            raise ToolDenied("permission denied")

    async def _asked(self, hook: Approval, call: ToolCall) -> Verdict:
        answer: Any
        try:
            if _is_async(hook):
                answer = hook(call)
            else:
                answer = await call_in_thread(self._threads, partial(hook, call))
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            # A stranger's hook raises anything; what it did not allow is denied.
            _log.exception("Approval of tool %s failed: the call is denied", call.name)
            raise ToolDenied("permission denied: the approval failed") from error
        if answer is True or answer is False:
            return "allow" if answer else "deny"
        if isinstance(answer, str) and answer in _VERDICTS:
            return _VERDICTS[answer]
        _log.error(
            "Approval of tool %s gave a %s, not allow, deny or ask: the call is denied",
            call.name,
            type(answer).__name__,
        )
        return "deny"


def _is_async(hook: Any) -> bool:
    while isinstance(hook, partial):
        hook = hook.func
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__)
