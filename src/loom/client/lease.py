"""
Who uses the portal, and for how long.

All blocking clients of a process share one portal. The first call makes it, closing the last client
stops it, and a forked child makes its own. Finalizers keep the second law of `client/portal.py`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from loom.client.refusals import CLOSED, EXITING

if TYPE_CHECKING:
    from loom.client.portal import Closer, Portal

__all__ = ["Lease"]


class _Process:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        # In a forked child the lock may be held by a thread that does not exist there.
        self.lock = threading.Lock()
        self.portal: Portal | None = None
        self.exiting = False

    def join(self, lease: Lease) -> Portal:
        with self.lock:
            if lease.closed:
                raise RuntimeError(CLOSED)
            if self.exiting:
                raise RuntimeError(EXITING)
            if self.portal is None:
                from loom.client.portal import Portal  # noqa: PLC0415 - asyncio costs 25 ms

                self.portal = Portal()
            self.portal.closers[lease] = lease.closer
            return self.portal

    def leave(self, lease: Lease, *, stop: bool) -> Portal | None:
        with self.lock:
            portal = self.portal
            if portal is None or lease not in portal.closers:
                return None
            del portal.closers[lease]
            if portal.closers or not stop:
                return None
            self.portal = None
            return portal

    def close_at_exit(self) -> None:
        self.exiting = True
        if self.portal is not None:
            self.portal.close(exiting=True)


_process = _Process()
# Here and not at the first call: exit runs the last registered first, so that what the user
# registers after importing the library may still use a client.
atexit.register(_process.close_at_exit)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_process.reset)


class Lease:
    """
    A client's share of the portal.

    Args:
        closer: Closes the async client; must not refer to the blocking one, which could then
            never be collected.
    """

    def __init__(self, closer: Closer) -> None:
        self.closer = closer
        self.closed = False
        self._portal: Portal | None = None

    def portal(self) -> Portal:
        """
        The process's portal, made at the first use and anew after a fork.

        Returns:
            A running portal.

        Raises:
            RuntimeError: If the client is closed, or the interpreter is exiting.
        """
        portal = self._portal
        if portal is None or self.closed or portal.pid != os.getpid():
            portal = self._portal = _process.join(self)
        return portal

    def close(self) -> None:
        """
        Close the client, and stop the portal if it was the last one; safe to call twice.

        Raises:
            RuntimeError: On the portal's own thread.
        """
        if self.closed:
            return
        portal = self.portal()
        portal.refuse_own_thread()
        self.closed = True
        try:
            portal.call(self.closer)
        finally:
            last = _process.leave(self, stop=True)
            if last is not None:
                last.close()

    def abandon(self) -> None:
        """Have a forgotten client closed; for finalizers, which may only post."""
        portal = self._portal
        if portal is None or self.closed or portal.pid != os.getpid():
            return
        self.closed = True
        with suppress(RuntimeError):
            portal.post(lambda: portal.loop.create_task(self._abandoned()))

    async def _abandoned(self) -> None:
        # The portal stays, idle: its own thread cannot wait for itself to end.
        try:
            await self.closer()
        finally:
            _process.leave(self, stop=False)
