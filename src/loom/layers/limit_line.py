"""
Calls that wait for the limits of one key, in a fair order.

Each key has one line with one lock, which nobody holds while he waits: a full key never delays
another. Whoever is granted something is told on the loop on which he waits; a grant is part of the
ticket and not of the message, so that none is lost when the message meets a cancellation.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import LimitExceeded
from loom.core.request import Attribution, ChatRequest
from loom.layers.limit_queue import FairQueue, Waiting
from loom.layers.limit_state import Ask, LimitKey, LimitState
from loom.layers.limit_timer import Timer

if TYPE_CHECKING:
    import asyncio

    from loom.layers.limit_estimate import Estimate
    from loom.layers.limit_rate import RateLimit
    from loom.layers.limit_store import LimitStore

__all__ = ["Line", "Ticket"]

# How long the first in line may keep others from going, and how many of them are looked at.
# Source: the project's limiter design, point 5.
_BLOCKS_S = 2.0
_OTHERS = 8
# Deadlines of those who went are forgotten when there are more than this, and than wait.
_GONE = 64


class Ticket(Waiting):
    """
    One call at a limiter: it waits, or was granted, or is over.

    Attributes:
        wait_s: How long it is likely to wait, in seconds; 0 if it was granted at once.
        granted: Whether it may be sent, and `settle` or `release` has not been called.
    """

    __slots__ = (
        "_line", "_loop", "_wake", "ask", "deadline_s", "expired", "granted", "number", "wait_s",
    )  # fmt: skip

    def __init__(self, line: Line, ask: Ask, who: Attribution, deadline_s: float) -> None:
        super().__init__(who.tenant, who.priority, max(1, ask.expected), ask.reserve)
        self.number = next(_numbers)
        self.ask = ask
        self.deadline_s = deadline_s
        self.granted = False
        self.expired = False
        self.wait_s = 0.0
        self._line = line
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """
        Wait for the grant; on the loop where the ticket was drawn.

        Raises:
            LimitExceeded: If the deadline passed before.
        """
        if self._wake is not None and not (self.granted or self.expired):
            await self._wake
        if not self.granted:
            raise self._line.refusal(self._line.wait_of(self))

    def settle(self, tokens: int) -> None:
        """
        End the call with what it used; a second time nothing happens.

        Args:
            tokens: What the vendor charged, or the best guess.
        """
        self._line.end(self, tokens)

    def release(self) -> None:
        """Give the grant back, or stop waiting; nothing was sent. A second time nothing happens."""
        self._line.end(self, None)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where it waits; None if it never did."""
        return self._loop

    def wait_here(self) -> None:
        """Be told on the running loop."""
        from asyncio import get_running_loop  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

        self._loop = get_running_loop()
        self._wake = self._loop.create_future()

    def tell(self) -> bool:
        """Wake who waits, on his own loop; False if that is closed."""
        loop, wake = self._loop, self._wake
        if loop is None or wake is None:
            return True
        try:
            loop.call_soon_threadsafe(_wake, wake)
        except RuntimeError:
            return False
        return True


class Line:
    """
    Those who wait for one key, under one lock.

    Args:
        key: Whose limits.
        rules: The limits as configured.
        store: Keeps the account.
        clock: Tells the time; the one that was used last is kept.
    """

    def __init__(self, key: LimitKey, rules: RateLimit, store: LimitStore, clock: Clock) -> None:
        self.key = key
        self._rules = rules
        self._store = store
        self._clock = clock
        self._queue = FairQueue()
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._timer: Timer | None = None
        self._lock = threading.Lock()
        self._month_end_s = -math.inf

    def state(self) -> LimitState:
        """The account and the queue."""
        state = self._store.state(self.key, self._clock.monotonic_s())
        return msgspec.structs.replace(state, queued=len(self._queue))

    def draw(self, request: ChatRequest, estimate: Estimate, clock: Clock) -> Ticket:
        """Grant a call, put it in line, or refuse it."""
        now_s = clock.monotonic_s()
        ask = Ask(estimate.reserve, estimate.expected, estimate.most, self._month_end(clock, now_s))
        deadline_s = math.inf if request.deadline_s is None else request.deadline_s
        ticket = Ticket(self, ask, request.attribution, deadline_s)
        with self._lock:
            self._clock = clock
            wait_s = math.inf
            if not self._queue:
                wait_s = self._store.take(self.key, ticket.number, ask, now_s)
                if wait_s <= 0:
                    ticket.granted = True
                    return ticket
            self._queue.push(ticket)
            # It may be more urgent than who waits, or smaller.
            wait_s = self._grant(now_s)
            if ticket.granted:
                return ticket
            first = self._queue.head() is ticket
            ticket.wait_s = self._predicted_s(ticket, wait_s if first else 0.0, now_s)
            if now_s + ticket.wait_s > deadline_s:
                self._queue.remove(ticket)
                self._set_timer(wait_s, now_s)
                raise self.refusal(ticket.wait_s)
            ticket.wait_here()
            if deadline_s < math.inf:
                self._watch(ticket)
            self._set_timer(wait_s, now_s)
        return ticket

    def end(self, ticket: Ticket, tokens: int | None) -> None:
        """Settle, release, or take out of line; then see who is next."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if ticket.granted:
                ticket.granted = False
                if tokens is None:
                    self._store.release(self.key, ticket.number, now_s)
                else:
                    self._store.settle(self.key, ticket.number, tokens, now_s)
            elif ticket.waits:
                # Fault matrix, row 51.
                self._queue.remove(ticket)
            else:
                return
            self._go_on(now_s)

    def wait_of(self, ticket: Ticket) -> float:
        """How long a call would wait from now on."""
        with self._lock:
            return self._predicted_s(ticket, 0.0, self._clock.monotonic_s())

    def refusal(self, wait_s: float) -> LimitExceeded:
        """The error for a call that cannot be granted in time."""
        return LimitExceeded(
            f"the rate limit of {self.key[2]!r} at {self.key[0]} has no room before the deadline:"
            f" the wait is about {wait_s:.1f} s, with {len(self._queue)} calls in line",
            retry_after_s=wait_s,
            model=self.key[2],
            attempts=0,
        )

    def _go_on(self, now_s: float) -> None:
        if self._queue:
            self._set_timer(self._grant(now_s), now_s)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _grant(self, now_s: float) -> float:
        """Grant whoever can be; give the seconds until the first in line can."""
        self._expire(now_s)
        while (head := self._queue.head()) is not None:
            assert isinstance(head, Ticket)  # noqa: S101 - only tickets are pushed
            wait_s = self._take(head, now_s)
            if wait_s <= 0:
                continue
            if wait_s <= _BLOCKS_S or not self._grant_smaller(head, now_s):
                return wait_s
        return math.inf

    def _grant_smaller(self, head: Ticket, now_s: float) -> bool:
        """Let a smaller call go first; what goes before a large one is never more than itself."""
        for other in list(self._queue.after(head, _OTHERS)):
            assert isinstance(other, Ticket)  # noqa: S101 - only tickets are pushed
            if other.reserve >= head.reserve or head.overtaken + other.cost > head.cost:
                continue
            if self._take(other, now_s) <= 0:
                head.overtaken += other.cost
                return True
        return False

    def _take(self, ticket: Ticket, now_s: float) -> float:
        wait_s = self._store.take(self.key, ticket.number, ticket.ask, now_s)
        if wait_s <= 0:
            self._queue.pop(ticket)
            ticket.granted = True
            if not ticket.tell():
                # Its loop was closed under it: nobody will ever send this call.
                ticket.granted = False
                self._store.release(self.key, ticket.number, now_s)
        return wait_s

    def _expire(self, now_s: float) -> None:
        while self._deadlines:
            deadline_s, _, ticket = self._deadlines[0]
            if ticket.waits and deadline_s > now_s:
                return
            heapq.heappop(self._deadlines)
            if ticket.waits:
                self._queue.remove(ticket)
                ticket.expired = True
                ticket.tell()

    def _watch(self, ticket: Ticket) -> None:
        heapq.heappush(self._deadlines, (ticket.deadline_s, ticket.number, ticket))
        if len(self._deadlines) > 2 * len(self._queue) + _GONE:
            self._deadlines = [one for one in self._deadlines if one[2].waits]
            heapq.heapify(self._deadlines)

    def _set_timer(self, wait_s: float, now_s: float) -> None:
        """Ring when the first in line may go, or the first deadline passes."""
        head = self._queue.head()
        at_s = now_s + wait_s
        if self._deadlines:
            at_s = min(at_s, self._deadlines[0][0])
        assert head is None or isinstance(head, Ticket)  # noqa: S101 - only tickets are pushed
        loop = None if head is None else head.loop
        timer = self._timer
        if timer is not None:
            # One that rings too early is no harm: it is set again then.
            if loop is timer.loop and timer.at_s <= at_s:
                return
            timer.cancel()
            self._timer = None
        if loop is not None and at_s < math.inf:
            self._timer = Timer(loop, self._clock, at_s, self._ring)
            self._timer.start()

    def _ring(self, timer: Timer) -> None:
        with self._lock:
            if timer is self._timer:
                self._timer = None
                self._go_on(self._clock.monotonic_s())

    def _predicted_s(self, ticket: Ticket, least_s: float, now_s: float) -> float:
        """About how long a call waits, with those before it; 0 where nothing is known."""
        state = self._store.state(self.key, now_s)
        calls, tokens = self._queue.ahead(ticket)
        wait_s = max(
            least_s if least_s < math.inf else 0.0,
            state.held_back_s,
            (calls + 1) / state.requests_per_s if calls else 0.0,
            (tokens + ticket.cost) / state.tokens_per_s if tokens else 0.0,
        )
        if state.held >= state.limit_concurrency:
            wait_s = max(wait_s, (calls + 1) / state.limit_concurrency * state.flight_s)
        return wait_s

    def _month_end(self, clock: Clock, now_s: float) -> float:
        if self._rules.tokens_per_month is None:
            return math.inf
        if now_s >= self._month_end_s:
            self._month_end_s = now_s + _month_left_s(clock.now())
        return self._month_end_s


_numbers = itertools.count(1)


def _month_left_s(now: datetime) -> float:
    end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = end.replace(year=now.year + now.month // 12, month=now.month % 12 + 1)
    return (end - now).total_seconds()


def _wake(wake: asyncio.Future[None]) -> None:
    if not wake.done():
        wake.set_result(None)
