"""
Calls of a ledger once more, in virtual time: through other limits, budgets, models and prices.

The limiter and the budgets are the real ones; only time and the vendor are made up. A call comes
when it came, waits its turn, takes as long as it took, and uses the tokens that it used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from loom.catalog.cost import cost
from loom.core.ambient import Clock
from loom.core.errors import BudgetExceeded, LimitExceeded
from loom.core.model import ModelCard
from loom.core.request import Attribution, ChatRequest, Sampling
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.ledger.book import Book
from loom.ledger.budgets import Budget
from loom.ledger.entry import Entry, Opening
from loom.ledger.reprice import PriceOf, repriced
from loom.testing.seeded_loop import LoopClock, SeededLoop

__all__ = ["CardOf", "Outcome", "Scene", "replay"]

CardOf = Callable[[str, str, date], ModelCard | None]
"""Gives the card of a provider's model on a day."""

# A call of which nobody knows how long it took.
_FLIGHT_S = 1.0
_TURNS = 1 << 62  # as many as it takes: the calls are counted


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """
    What would have been otherwise.

    Attributes:
        rate_limit: Limits of each key and model; None: none.
        budget: What calls must fit into; None: nothing.
        model: Who would have answered; None: who did.
        provider: Whose model that is; None: whoever was asked.
        on: Whose prices; None: those of each call's own day.
        deadline_s: How long a call may take in all, its wait among it.
        max_tokens: The longest answer that was asked for, which the ledger does not know.
    """

    rate_limit: RateLimit | None = None
    budget: Budget | None = None
    model: str | None = None
    provider: str | None = None
    on: date | None = None
    deadline_s: float = 600.0
    max_tokens: int = 4096


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    What would have become of a call.

    Attributes:
        entry: Its row.
        wait_s: How long it would have waited; None if it would have been refused.
        refused: By what: "limit", "budget", "window"; empty if it would have been answered.
        cost_usd: What it would have cost; None when unknown.
    """

    entry: Entry
    wait_s: float | None = None
    refused: str = ""
    cost_usd: Decimal | None = None


def replay(
    entries: Sequence[Entry], scene: Scene, price_of: PriceOf, card_of: CardOf
) -> tuple[Outcome, ...]:
    """
    Let calls happen once more.

    Args:
        entries: Their rows, in the order in which they came.
        scene: What is otherwise.
        price_of: The prices.
        card_of: The models.

    Returns:
        What would have become of each, in the same order.
    """
    if not entries:
        return ()
    loop = SeededLoop(most_turns=_TURNS)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        clock = LoopClock(loop, entries[0].at)
        return runner.run(_Play(scene, price_of, card_of, clock).all(entries))


class _Play:
    def __init__(self, scene: Scene, price_of: PriceOf, card_of: CardOf, clock: Clock) -> None:
        self._scene = scene
        self._price_of = price_of
        self._card_of = card_of
        self._clock = clock
        self._book = Book(clock)
        self._limiter = None
        if scene.rate_limit is not None:
            self._limiter = Limiter(scene.rate_limit, count=_prompt_tokens)

    async def all(self, entries: Sequence[Entry]) -> tuple[Outcome, ...]:
        """Begin each call when it began."""
        began_s, start = self._clock.monotonic_s(), entries[0].at
        tasks = []
        for entry in entries:
            at_s = began_s + (entry.at - start).total_seconds()
            if at_s > self._clock.monotonic_s():
                await self._clock.sleep(at_s - self._clock.monotonic_s())
            tasks.append(asyncio.create_task(self._call(entry)))
        return tuple(await asyncio.gather(*tasks))

    async def _call(self, entry: Entry) -> Outcome:
        card = self._card(entry)
        if card is not None and entry.input_tokens > (card.context_window or entry.input_tokens):
            return Outcome(entry=entry, refused="window")
        price_usd = self._cost(entry)
        budgets = () if self._scene.budget is None else (self._scene.budget,)
        try:
            row = self._book.reserve(self._opening(entry, card), budgets)
        except BudgetExceeded:
            return Outcome(entry=entry, refused="budget")
        wait_s = await self._waited(entry)
        refused = wait_s is None
        final = msgspec.structs.replace(
            row,
            state="released" if refused else "settled",
            cost_usd=None if refused else price_usd,
        )
        self._book.settle(row.id, final)
        if refused:
            return Outcome(entry=entry, refused="limit")
        return Outcome(entry=entry, wait_s=wait_s, cost_usd=price_usd)

    async def _waited(self, entry: Entry) -> float | None:
        """Wait for a grant, be answered, and give the wait; None if it was refused."""
        limiter, clock = self._limiter, self._clock
        if limiter is None:
            await clock.sleep(_flight_s(entry))
            return 0.0
        began_s = clock.monotonic_s()
        request = self._request(entry, began_s)
        estimate = limiter.estimator.estimate(request, request.model)
        try:
            key = (entry.provider, entry.key, request.model)
            ticket = limiter.draw(key, request, estimate, clock)
            if not ticket.granted:
                await ticket.wait()
        except LimitExceeded:
            return None
        wait_s = clock.monotonic_s() - began_s
        await clock.sleep(_flight_s(entry))
        used = entry.input_tokens + entry.output_tokens
        ticket.settle(used)
        if entry.output_tokens:
            limiter.estimator.learn(
                request, request.model, estimate, prompt=entry.input_tokens, total=used
            )
        return wait_s

    def _request(self, entry: Entry, now_s: float) -> ChatRequest:
        card = self._card(entry)
        model = self._model(entry) if card is None else card.id
        return ChatRequest(
            model=model,
            messages=(),
            sampling=Sampling(max_tokens=self._scene.max_tokens),
            attribution=Attribution(tenant=entry.tenant, tags=entry.tags),
            deadline_s=now_s + self._scene.deadline_s,
            extra={"tokens": entry.input_tokens},
        )

    def _opening(self, entry: Entry, card: ModelCard | None) -> Opening:
        worst_usd = None
        if card is not None and card.price is not None:
            worst_usd = cost(
                card.price,
                input_tokens=entry.input_tokens,
                output_tokens=max(entry.output_tokens, self._scene.max_tokens),
            )
        return Opening(
            provider=entry.provider,
            asked_model=entry.asked_model,
            key=entry.key,
            client=entry.client,
            session=entry.session,
            tenant=entry.tenant,
            tags=entry.tags,
            worst_usd=worst_usd,
        )

    def _cost(self, entry: Entry) -> Decimal | None:
        model = self._scene.model or entry.model
        if not model:
            return entry.cost_usd
        other = msgspec.structs.replace(entry, provider=self._provider(entry), model=model)
        return repriced(other, self._price_of, self._scene.on).cost_usd

    def _card(self, entry: Entry) -> ModelCard | None:
        on = self._scene.on or entry.at.date()
        return self._card_of(self._provider(entry), self._model(entry), on)

    def _provider(self, entry: Entry) -> str:
        return self._scene.provider or entry.provider

    def _model(self, entry: Entry) -> str:
        return self._scene.model or entry.model or entry.asked_model


def _prompt_tokens(request: ChatRequest) -> int:
    tokens: int = request.extra["tokens"]
    return tokens


def _flight_s(entry: Entry) -> float:
    """How long a call was on its way, without what it waited then."""
    if entry.attempts:
        return max(0.0, sum(sent.ended_s - sent.sent_s for sent in entry.attempts))
    return _FLIGHT_S if entry.latency_s is None else max(0.0, entry.latency_s)
