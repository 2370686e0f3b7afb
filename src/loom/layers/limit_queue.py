"""
Who goes first: by priority, then fairly by tenant, then in the order of coming.

Each tenant has a virtual time that grows with the tokens it was granted; the one whose time is
least is next (start-time-fair queueing). A tenant that comes begins at the time of the queue, so
nobody saves up a share. A lower priority that waits gets a credit of a part of what goes before
it, and is next when the credit pays for its first call. Nothing here knows a clock.

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from loom.core.request import Priority

__all__ = ["FairQueue", "Waiting"]

_ORDER: tuple[Priority, ...] = ("interactive", "normal", "batch")
_RANK: dict[Priority, int] = {name: rank for rank, name in enumerate(_ORDER)}
# Of what goes before it; so it gets 5 % of all tokens at least.
_SHARE = 0.06
# Times of tenants that do not wait are forgotten when there are more than this.
_TENANTS = 1024
# Those who left stay in line, as a mark, until they are more than this and than the others.
_GONE = 64


class Waiting:
    """
    A call that waits.

    Args:
        tenant: Whose it is.
        priority: How urgent.
        cost: Tokens that its tenant pays, at least 1.
        reserve: Tokens that it needs at once.
    """

    __slots__ = ("cost", "overtaken", "priority", "reserve", "tenant", "waits")

    def __init__(self, tenant: str, priority: Priority, cost: int, reserve: int) -> None:
        self.tenant = tenant
        self.priority: Priority = priority
        self.cost = cost
        self.reserve = reserve
        self.overtaken = 0
        self.waits = False


class FairQueue:
    """A queue for one key; its holder has a lock."""

    def __init__(self) -> None:
        self._classes = tuple(_Class() for _ in _ORDER)

    def __len__(self) -> int:
        """How many wait."""
        return sum(one.count for one in self._classes)

    def push(self, waiting: Waiting) -> None:
        """
        Put a call in line.

        Args:
            waiting: The call.
        """
        waiting.waits = True
        self._classes[_RANK[waiting.priority]].push(waiting)

    def head(self) -> Waiting | None:
        """
        Look who is next.

        Returns:
            The same until somebody comes or goes; None when nobody waits.
        """
        top: Waiting | None = None
        for one in self._classes:
            if not one.count:
                continue
            first = one.first()
            if top is None:
                top = first
            elif one.credit >= first.cost:
                return first
        return top

    def after(self, head: Waiting, at_most: int) -> Iterator[Waiting]:
        """
        Look who could go instead of the first.

        Args:
            head: Who is next.
            at_most: How many to look at.

        Yields:
            Calls that wait, roughly in order.
        """
        seen = 0
        for one in self._classes:
            for waiting in one.roughly():
                if waiting is head or not waiting.waits:
                    continue
                if seen >= at_most:
                    return
                seen += 1
                yield waiting

    def pop(self, waiting: Waiting) -> None:
        """
        Take a call out of line because it was granted; its tenant pays.

        Args:
            waiting: The call.
        """
        rank = _RANK[waiting.priority]
        mine = self._classes[rank]
        if any(one.count for one in self._classes[:rank]):
            mine.credit -= min(mine.credit, waiting.cost)
        mine.pay(waiting)
        mine.remove(waiting)
        for one in self._classes[rank + 1 :]:
            if one.count:
                one.credit += _SHARE * waiting.cost

    def remove(self, waiting: Waiting) -> None:
        """
        Take a call out of line because it gave up; a second time nothing happens.

        Args:
            waiting: The call.
        """
        if waiting.waits:
            self._classes[_RANK[waiting.priority]].remove(waiting)

    def ahead(self, waiting: Waiting) -> tuple[int, int]:
        """
        How much is granted before a call, about, if nobody comes or goes.

        Args:
            waiting: A call that is last of its tenant.

        Returns:
            Calls and tokens, its own not counted.
        """
        calls = tokens = 0
        rank = _RANK[waiting.priority]
        for one in self._classes[:rank]:
            calls += one.count
            tokens += one.tokens
        more = self._classes[rank].ahead(waiting)
        return calls + more[0], tokens + more[1]


class _Flow:
    """The calls of one tenant, in the order of coming."""

    __slots__ = ("count", "line", "tenant", "time", "tokens")

    def __init__(self, tenant: str, time: float) -> None:
        self.tenant = tenant
        self.time = time
        self.line: deque[Waiting] = deque()
        self.count = 0
        self.tokens = 0

    def first(self) -> Waiting:
        while not self.line[0].waits:
            self.line.popleft()
        return self.line[0]


class _Class:
    """The calls of one priority."""

    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0
        self.credit = 0.0
        self._now = 0.0
        self._flows: dict[str, _Flow] = {}
        self._times: dict[str, float] = {}
        # Those of `_flows`, the least time first; the number keeps the order of coming.
        self._heap: list[tuple[float, int, _Flow]] = []
        self._number = 0

    def push(self, waiting: Waiting) -> None:
        flow = self._flows.get(waiting.tenant)
        if flow is None:
            time = max(self._now, self._times.pop(waiting.tenant, 0.0))
            flow = self._flows[waiting.tenant] = _Flow(waiting.tenant, time)
            self._enter(flow)
        flow.line.append(waiting)
        self._count(flow, waiting, 1)

    def first(self) -> Waiting:
        while True:
            time, _, flow = self._heap[0]
            if not flow.count or time != flow.time:
                heapq.heappop(self._heap)
                continue
            return flow.first()

    def roughly(self) -> Iterator[Waiting]:
        for _, _, flow in self._heap:
            yield from flow.line

    def pay(self, waiting: Waiting) -> None:
        flow = self._flows[waiting.tenant]
        self._now = max(self._now, flow.time)
        flow.time += waiting.cost
        self._enter(flow)

    def remove(self, waiting: Waiting) -> None:
        waiting.waits = False
        flow = self._flows[waiting.tenant]
        self._count(flow, waiting, -1)
        if not flow.count:
            del self._flows[waiting.tenant]
            self._remember(flow)
        elif len(flow.line) > 2 * flow.count + _GONE:
            flow.line = deque(one for one in flow.line if one.waits)

    def ahead(self, waiting: Waiting) -> tuple[int, int]:
        mine = self._flows.get(waiting.tenant)
        own = waiting.cost if mine is None else mine.tokens
        calls = tokens = 0
        for flow in self._flows.values():
            # While mine is served up to this call, each of the others gets as much.
            part = min(1.0, own / flow.tokens)
            calls += round(flow.count * part)
            tokens += round(flow.tokens * part)
        waits = waiting.waits
        return calls - waits, tokens - waits * waiting.cost

    def _enter(self, flow: _Flow) -> None:
        self._number += 1
        heapq.heappush(self._heap, (flow.time, self._number, flow))
        if len(self._heap) > 2 * len(self._flows) + _GONE:
            self._heap = [one for one in self._heap if one[2].count and one[0] == one[2].time]
            heapq.heapify(self._heap)

    def _count(self, flow: _Flow, waiting: Waiting, sign: int) -> None:
        flow.count += sign
        flow.tokens += sign * waiting.cost
        self.count += sign
        self.tokens += sign * waiting.cost
        if not self.count:
            self.credit = 0.0

    def _remember(self, flow: _Flow) -> None:
        if flow.time > self._now:
            self._times[flow.tenant] = flow.time
            if len(self._times) > _TENANTS:
                later = {who: time for who, time in self._times.items() if time > self._now}
                # Without a record a tenant is ahead by one call at most.
                self._times = later if len(later) <= _TENANTS else {}
