"""
Accounts for every call: money is kept free before it is sent, and the truth is written after.

The layer stands around whoever prices the answers, so a call has one row whoever answered it, and
failed attempts are fields of that row.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable
from datetime import date
from decimal import Decimal

import msgspec

from loom.catalog.cost import price_usage
from loom.catalog.lookup import Catalog
from loom.core.ambient import Clock
from loom.core.errors import LoomError, Refusal
from loom.core.events import (
    NOTICES,
    Completed,
    Relayed,
    Rerouted,
    Restarted,
    Retried,
    Sending,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse, Usage
from loom.core.timeline import Attempt, Charge, Timeline
from loom.layers.worst import likely_usage, worst_cost
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Ledger, Receipt, Ticket
from loom.ledger.entry import Entry, Opening, State
from loom.ledger.money import ZERO, add, less

__all__ = ["Accounting"]

_log = logging.getLogger("loom.cost")


class Accounting(Layer):
    """
    Keeps budgets, and writes the ledger.

    Before a call is sent its worst case is kept free in every budget and its row is durable; before
    a dearer attempt more is kept free; before the answer is handed on, the truth is written. A call
    that is broken off is written without waiting.

    Args:
        inner: The provider that answers, with prices.
        ledger: Where rows and sums are.
        budgets: What every call must fit into.
        catalog: The dated prices.
        clock: Tells the day.
        as_of: Another day whose prices hold; None: the day of the call, UTC.
        scope: Gives the key's fingerprint; a key may change.
        client: The client's name.
        owned: Whether the ledger is closed with the provider.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        ledger: Ledger,
        budgets: tuple[Budget, ...] = (),
        catalog: Catalog,
        clock: Clock,
        as_of: date | None = None,
        scope: Callable[[], tuple[str, str]] | None = None,
        client: str = "",
        owned: bool = False,
    ) -> None:
        super().__init__(inner)
        self.ledger = ledger
        self.budgets = budgets
        self._catalog = catalog
        self.clock = clock
        self._as_of = as_of
        self._scope = scope
        self._client = client
        self._owned = owned
        self._spent = ZERO
        self._lock = threading.Lock()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass every event on, once the money for it is kept free.

        Args:
            request: What is asked.

        Yields:
            The inner provider's events.

        Raises:
            BudgetExceeded: If the worst case does not fit into a budget, before anything is sent
                or before a dearer attempt is.
            LedgerUnavailable: If the ledger cannot be written; nothing was sent.
            LoomError: Whatever the inner provider raises.
        """
        request = request.begun(self.clock.monotonic_s())
        tab = await self._opened(request)
        try:
            events = self.inner.stream(request)
            try:
                async for event in events:
                    kind = type(event)
                    if kind is Completed:
                        yield Completed(await tab.answered(event.response))  # type: ignore[union-attr] # `kind` says so
                        continue
                    if kind in NOTICES:
                        await tab.noticed(event)
                    else:
                        tab.heard(event)
                    yield event
                    if kind is Sending:
                        # A reader that leaves at the notice lets nothing be sent.
                        tab.sent()
            finally:
                await events.aclose()
        except LoomError as error:
            await tab.failed(error)
            raise
        finally:
            # Cancelled, or left early: nothing may be awaited here.
            tab.left()

    async def aclose(self) -> None:
        """Close the inner provider, and the ledger if it is ours."""
        await super().aclose()
        if self._owned:
            await self.ledger.aclose()

    def priced(self, usage: Usage, model: str, provider: str | None = None) -> Usage:
        """
        A usage with its cost, by the prices of today or of `as_of`.

        Args:
            usage: Tokens.
            model: Whose.
            provider: Who serves it; None: the inner provider.

        Returns:
            A copy with cost and price.
        """
        card = self._catalog.find(model, self._day(), provider=provider or self.name)
        return price_usage(usage, card)

    def worst(
        self, request: ChatRequest, model: str, provider: str | None = None
    ) -> Decimal | None:
        """
        The most that one attempt at a model may cost.

        Args:
            request: What is asked.
            model: Of whom.
            provider: Who serves it; None: the inner provider.

        Returns:
            US dollars; None when unknown.
        """
        card = self._catalog.find(model, self._day(), provider=provider or self.name)
        return worst_cost(request, card)

    def told(self, receipt: Receipt) -> None:
        """
        Say in the log what a call cost, and which budgets are nearly used up.

        Args:
            receipt: What became of its settlement.
        """
        entry = receipt.entry
        if entry.cost_usd is not None:
            with self._lock:
                total = self._spent = add(self._spent, entry.cost_usd)
            if entry.code == "":
                facts = {
                    "turn_cost": f"{entry.cost_usd:.6f}",
                    "total_cost": f"{total:.6f}",
                    "input_tokens": entry.input_tokens,
                    "output_tokens": entry.output_tokens,
                }
                _log.info("Turn completed", extra=facts)
        for crossing in receipt.crossings:
            standing = crossing.standing
            kind = "Session" if standing.budget.per == "session" else "Total"
            _log.warning(
                "%s cost exceeds threshold", kind,
                extra={
                    "total_cost": f"{standing.spent_usd:.6f}",
                    "threshold": f"{standing.budget.warning:.6f}",
                    "budget": standing.budget.title(standing.value),
                },
            )  # fmt: skip

    def refused(
        self, error: Refusal, request: ChatRequest, attempts: tuple[Attempt, ...] = ()
    ) -> Refusal:
        """
        Put on a refusal what is known of its call.

        Args:
            error: It.
            request: What was asked.
            attempts: What was sent before.

        Returns:
            The same error.
        """
        error.provider = error.provider or self.name
        error.model = error.model or request.model
        error.attempts = sum(attempt.sends for attempt in attempts)
        error.timeline = self.timeline(request, attempts)
        return error

    def timeline(self, request: ChatRequest, attempts: tuple[Attempt, ...]) -> Timeline:
        """
        A call, from what was seen of it here.

        Args:
            request: What was asked.
            attempts: What was sent, the oldest first.

        Returns:
            It.
        """
        began_s = request.began_s
        return Timeline(
            began_s=self.clock.monotonic_s() if began_s is None else began_s, attempts=attempts
        )

    async def _opened(self, request: ChatRequest) -> _Tab:
        who = request.attribution
        opening = Opening(
            provider=self.name,
            asked_model=request.model,
            kind=request.kind,
            stream=request.stream,
            key="" if self._scope is None else self._scope()[1],
            client=self._client,
            session=who.session,
            tenant=who.tenant,
            tags=who.tags,
            worst_usd=self.worst(request, request.model),
        )
        try:
            ticket = await self.ledger.reserve(opening, self.budgets)
        except Refusal as error:
            raise self.refused(error, request)  # noqa: B904 - the same error
        return _Tab(self, request, ticket)

    def _day(self) -> date:
        return self._as_of or self.clock.now().date()


class _Tab:
    """One call's row, from its reservation to its settlement; it is settled once."""

    def __init__(self, layer: Accounting, request: ChatRequest, ticket: Ticket) -> None:
        self._layer = layer
        self._request = request
        self._ticket: Ticket | None = ticket
        self._kept_usd = ticket.entry.reserved_usd
        # What the attempt under way may cost, and those before it that may have been billed.
        self._now_usd = self._kept_usd
        self._doubt_usd: Decimal | None = ZERO
        self._doubts = 0
        self._model = request.model
        self._provider: str | None = None
        self._sent_s: float | None = None
        self._said = 0
        self._past: tuple[Attempt, ...] = ()
        self._here: tuple[Attempt, ...] = ()

    def sent(self) -> None:
        """Take note of an attempt that leaves now."""
        self._sent_s = self._layer.clock.monotonic_s()

    async def noticed(self, event: StreamEvent) -> None:
        """Keep more free before an attempt that makes the call dearer."""
        match event:
            case Retried(error=error):
                self._here += _attempts(error)
                await self._next(doubtful=error.uncertain)
            case Rerouted(error=error, provider=provider, model=model):
                # It tells of all attempts on its route.
                self._past, self._here = self._past + (_attempts(error) or self._here), ()
                self._provider, self._model = provider, model
                await self._next(doubtful=error.uncertain)
            case Restarted(error=error, provider=provider, model=model):
                told = () if error is None else _attempts(error)
                untold = (*self._here, *self._broken_off("estimated", ""))
                self._past, self._here = self._past + (told or untold), ()
                self._provider, self._model = provider, model
                await self._next(doubtful=True)
            case _:
                pass

    async def _next(self, *, doubtful: bool) -> None:
        """Keep free what the next attempt may cost, beside what earlier ones may have."""
        # What failed for certain costs nothing: the next attempt has its part. An error that is
        # told again, because a breaker ended the retries, is counted once.
        if doubtful and self._sent_s is not None:
            self._doubts += 1
            self._doubt_usd = _sum(self._doubt_usd, self._now_usd)
        self._sent_s = None
        ticket, kept_usd = self._ticket, self._kept_usd
        if ticket is None:
            return
        self._now_usd = self._layer.worst(self._request, self._model, self._provider)
        worst_usd = _sum(self._doubt_usd, self._now_usd)
        if worst_usd is None or kept_usd is None or worst_usd > kept_usd:
            try:
                self._ticket = await self._layer.ledger.top_up(ticket, worst_usd)
            except Refusal as error:
                raise self._layer.refused(error, self._request, self._past + self._here)  # noqa: B904 - the same error
            self._kept_usd = worst_usd

    def heard(self, event: StreamEvent) -> None:
        """Count what came, for a call that is broken off."""
        match event:
            case TextDelta(text=text) | ThinkingDelta(text=text):
                self._said += len(text)
            case ToolCallDelta(arguments=arguments):
                self._said += len(arguments)
            case Relayed(said=said):
                self._said += said
            case _:
                pass

    async def answered(self, response: LLMResponse) -> LLMResponse:
        """Settle with the answer, and say on it what is left of the budgets."""
        state: State = "estimated" if response.usage.estimated else "settled"
        ticket = self._taken()
        if ticket is None:
            return response
        entry = closed(ticket.entry, state, response=response)
        receipt = await self._layer.ledger.settle(ticket, entry)
        self._layer.told(receipt)
        if not receipt.standings:
            return response
        left = min(less(each.budget.limit, each.spent_usd) for each in receipt.standings)
        return msgspec.structs.replace(response, budget_remaining_usd=max(left, ZERO))

    async def failed(self, error: LoomError) -> None:
        """Settle with the error."""
        ticket = self._taken()
        if ticket is not None:
            entry = self._failure(ticket, error)
            self._layer.told(await self._layer.ledger.settle(ticket, entry))

    def left(self) -> None:
        """Settle a call that was cancelled or left, without waiting."""
        ticket = self._taken()
        if ticket is None:
            return
        prompts = self._doubts + (self._sent_s is not None)
        charge: Charge = "estimated" if self._said else "unknown"
        attempts = (*self._past, *self._here, *self._broken_off(charge, "cancelled"))
        entry = closed(
            ticket.entry,
            _STATES[charge] if prompts else "released",
            usage=self._likely(prompts, self._said) if prompts else None,
            timeline=self._layer.timeline(self._request, attempts),
        )
        self._layer.ledger.book(ticket, msgspec.structs.replace(entry, code="cancelled"))

    def _broken_off(self, charge: Charge, code: str) -> tuple[Attempt, ...]:
        """The attempt under way, which nobody tells of any more."""
        if self._sent_s is None:
            return ()
        attempt = Attempt(
            provider=self._provider or self._layer.name,
            model=self._model,
            sent_s=self._sent_s,
            ended_s=self._layer.clock.monotonic_s(),
            code=code,
            charge=charge,
        )
        return (attempt,)

    def _failure(self, ticket: Ticket, error: LoomError) -> Entry:
        charges = [attempt.charge for attempt in _attempts(error)]
        doubtful = [charge for charge in charges if charge in _STATES]
        prompts = max(len(doubtful), self._doubts)
        if not prompts:
            return closed(ticket.entry, "released", error=error)
        charge: Charge = "estimated" if "estimated" in charges else "unknown"
        partial = error.partial
        if partial is not None and partial.usage is not None:
            usage = self._priced(partial.usage)
        else:
            came = 0 if partial is None else len(partial.text) + len(partial.thinking)
            usage = self._likely(prompts, max(self._said, came))
        return closed(ticket.entry, _STATES[charge], error=error, usage=usage)

    def _likely(self, prompts: int, said: int) -> Usage:
        return self._priced(likely_usage(self._request, said, prompts))

    def _priced(self, usage: Usage) -> Usage:
        return self._layer.priced(usage, self._model, self._provider)

    def _taken(self) -> Ticket | None:
        ticket, self._ticket = self._ticket, None
        return ticket


_STATES: dict[Charge, State] = {"estimated": "estimated", "unknown": "uncertain"}


def _attempts(error: LoomError) -> tuple[Attempt, ...]:
    return () if error.timeline is None else error.timeline.attempts


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else add(one, other)
