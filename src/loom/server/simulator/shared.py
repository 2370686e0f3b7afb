"""One simulator for all clients of a process that ask for one (`Mistral(sim=True)`)."""

from __future__ import annotations

import atexit
import os
import threading
from datetime import date
from typing import Self

import msgspec

from loom.server.simulator.run import Simulator

__all__ = ["SharedSimulator", "shared_simulator"]


class _Running(msgspec.Struct):
    simulator: Simulator
    leases: int = 0


# Reentrant: the garbage collector may release a lease while this thread takes another.
_lock = threading.RLock()
_running: dict[date | None, _Running] = {}
_owner_pid = 0


class SharedSimulator:
    """
    A lease on the process's simulator; the last one to be released stops it.

    Attributes:
        base_url: Where it listens; ends in `/v1`.
        openai_base_url: Where it speaks as OpenAI does; ends in `/openai/v1`.
        openai_base_url: Where it speaks as OpenAI does.
        api_key: The key that it accepts.

    Args:
        as_of: The day whose models exist; None for today.
    """

    def __init__(self, as_of: date | None) -> None:
        with _lock:
            running = _of_this_process(as_of)
            running.leases += 1
            self.base_url = running.simulator.base_url
            self.openai_base_url = running.simulator.openai_base_url
            self.openai_base_url = running.simulator.openai_base_url
            self.api_key = running.simulator.api_key
        self._running: _Running | None = running
        self._as_of = as_of
        self._pid = os.getpid()

    def release(self) -> None:
        """Give the lease back; safe to call twice, from any thread, and in a forked child."""
        with _lock:
            running, self._running = self._running, None
            if running is None or self._pid != os.getpid():
                return
            running.leases -= 1
            if running.leases:
                return
            _running.pop(self._as_of, None)
        # Outside the lock: the simulator's thread may be collecting a lease of its own.
        running.simulator.stop()

    def __enter__(self) -> Self:
        """The lease itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Release it."""
        self.release()


def shared_simulator(as_of: date | None = None) -> SharedSimulator:
    """
    Use the process's simulator; start it if nobody else does.

    Args:
        as_of: The day whose models exist; None for today. Each day has its own simulator.

    Returns:
        A lease; release it.
    """
    return SharedSimulator(as_of)


def _of_this_process(as_of: date | None) -> _Running:
    global _owner_pid  # noqa: PLW0603 - the process is what is shared
    if _owner_pid != os.getpid():
        # A fork copies the table but not the threads.
        for running in _running.values():
            running.simulator.abandon()
        _running.clear()
        _owner_pid = os.getpid()
    running = _running.get(as_of) or _Running(Simulator(as_of=as_of).start())
    _running[as_of] = running
    return running


@atexit.register
def _stop_all() -> None:
    with _lock:
        left = list(_running.values()) if _owner_pid == os.getpid() else []
        _running.clear()
    for running in left:
        running.simulator.stop()
