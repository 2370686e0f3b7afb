"""
Keeps the limits of a plan: what calls share, and how they are asked to wait.

The limits stand in `limit_account.py`, the order in `limit_queue.py`, the waiting in
`limit_line.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

from loom.core.ambient import Clock
from loom.core.request import ChatRequest
from loom.layers.limit_estimate import Counting, Estimate, Estimator
from loom.layers.limit_line import Line, Ticket
from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import LimitKey, LimitState, Refused
from loom.layers.limit_store import LimitStore, MemoryStore

__all__ = ["Limiter", "StoreFactory"]

_log = logging.getLogger("loom.limit")

StoreFactory: TypeAlias = Callable[[RateLimit], LimitStore]
"""Makes the place where accounts are kept."""


class Limiter:
    """
    Limits for each origin, key and model; give one to several clients to share them.

    Args:
        limit: What each key may use; None: what the vendor's headers announce.
        store: Makes the place where accounts are kept.
        count: Counts a prompt exactly; None: it is estimated from its bytes, and from what such
            estimates were wrong by.
    """

    def __init__(
        self,
        limit: RateLimit | None = None,
        *,
        store: StoreFactory = MemoryStore,
        count: Counting | None = None,
    ) -> None:
        self.limit = RateLimit() if limit is None else limit
        self.estimator = Estimator(count)
        self._store = store(self.limit)
        self._lines: dict[LimitKey, Line] = {}
        self._lock = threading.Lock()

    def state(self, key: LimitKey) -> LimitState:
        """
        Look at one key's limits.

        Args:
            key: Origin, key fingerprint and model.

        Returns:
            What is held, queued and used now, and the limits as learnt so far.
        """
        line = self._lines.get(key)
        return LimitState() if line is None else line.state()

    def states(self) -> Mapping[LimitKey, LimitState]:
        """
        Look at every key that has seen a call.

        Returns:
            The states by origin, key fingerprint and model.
        """
        with self._lock:
            lines = list(self._lines.values())
        return {line.key: line.state() for line in lines}

    @property
    def held(self) -> int:
        """Calls on their way, of all keys."""
        return sum(state.held for state in self.states().values())

    @property
    def queued(self) -> int:
        """Calls that wait, of all keys."""
        return sum(state.queued for state in self.states().values())

    def draw(self, key: LimitKey, request: ChatRequest, estimate: Estimate, clock: Clock) -> Ticket:
        """
        Ask for a grant; `settle` or `release` must be called on what is given.

        Args:
            key: Whose limits.
            request: For its tenant, priority and deadline.
            estimate: What it will use.
            clock: Tells the time to whoever waits.

        Returns:
            A ticket that was granted, or waits: then `await ticket.wait()`.

        Raises:
            LimitExceeded: If it would wait beyond its deadline.
        """
        line = self._lines.get(key)
        if line is None:
            with self._lock:
                line = self._lines.setdefault(key, Line(key, self.limit, self._store, clock))
        return line.draw(request, estimate, clock)

    def refuse(
        self, key: LimitKey, why: Refused, retry_after_s: float | None, now_s: float
    ) -> None:
        """
        Learn from a 429.

        Args:
            key: Whose limits.
            why: Quota or capacity.
            retry_after_s: What the server asked to wait; None if it did not.
            now_s: Seconds of the clock's monotonic time.
        """
        before = self._store.state(key, now_s)
        self._store.refuse(key, why, retry_after_s, now_s)
        after = self._store.state(key, now_s)
        if after.scale < before.scale:
            _log.warning(
                "%s at %s refused a call: its limits are used to %.0f %% from now on",
                key[2], key[0], after.scale * 100,
            )  # fmt: skip
        elif after.limit_concurrency < before.limit_concurrency:
            _log.warning(
                "%s at %s is overloaded: at most %d calls at once from now on",
                key[2], key[0], after.limit_concurrency,
            )  # fmt: skip

    def announce(
        self, key: LimitKey, requests: int | None, tokens: int | None, now_s: float
    ) -> None:
        """
        Lower the limits of a minute to what headers name.

        Args:
            key: Whose limits.
            requests: What they name; None if they do not.
            tokens: The same of tokens.
            now_s: Seconds of the clock's monotonic time.
        """
        if requests is not None or tokens is not None:
            self._store.announce(key, requests, tokens, now_s)
