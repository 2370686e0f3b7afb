"""Every call has one row, and no budget is passed: the layer, on a ledger in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from loom.catalog.lookup import Catalog
from loom.core.errors import (
    BudgetExceeded,
    InvalidRequest,
    LedgerUnavailable,
    LoomError,
    ServiceUnavailable,
    StreamTruncated,
    TimedOut,
)
from loom.core.events import (
    Completed,
    Rerouted,
    Restarted,
    Retried,
    Sending,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import AudioPart, DocumentPart, Message
from loom.core.provider import LLMProvider
from loom.core.request import Attribution, ChatRequest, Sampling
from loom.core.response import Choice, LLMResponse, Partial, Usage
from loom.core.timeline import Attempt, Charge, Timeline
from loom.layers.account import Accounting
from loom.layers.cost import Costing
from loom.layers.worst import likely_usage, worst_cost
from loom.ledger.budgets import Budget
from loom.ledger.entry import Entry
from loom.ledger.memory import MemoryLedger
from loom.testing import (
    LAYER_LAWS,
    FakeClock,
    LayerCase,
    LayerLaw,
    cancel_everywhere,
    turn,
)

pytestmark = pytest.mark.anyio

CATALOG = Catalog.builtin()
LARGE, SMALL = "mistral-large-latest", "mistral-small-latest"
ASK = ChatRequest(
    model=LARGE,
    messages=(Message.user("x" * 100),),
    sampling=Sampling(max_tokens=100),
    stream=True,
    attribution=Attribution(session="s", tenant="t", tags={"project": "p"}),
)
# November 2024, the fake clock's month: 4 USD input and 12 USD output a million tokens.
USAGE = Usage(input_tokens=100, output_tokens=50, total_tokens=150)


def timeline(*charges: Charge) -> Timeline:
    return Timeline(
        began_s=0.0,
        attempts=tuple(
            Attempt(provider="mistral", model=LARGE, sent_s=1.0, ended_s=2.0, charge=charge)
            for charge in charges
        ),
    )


def answer(usage: Usage = USAGE) -> Completed:
    message = Message.assistant("hello")
    return Completed(
        LLMResponse(
            choices=(Choice(message=message, finish_reason="stop"),),
            usage=usage,
            model=LARGE,
            metadata={"provider": "mistral"},
            timeline=timeline("settled"),
        )
    )


def failing(error: LoomError, *charges: Charge) -> LoomError:
    error.timeline = timeline(*charges)
    error.uncertain = bool({"unknown", "estimated"} & set(charges))
    return error


class Script(LLMProvider):
    """Gives what it was told, an event or an error at a time."""

    name = "mistral"
    model = LARGE

    def __init__(self, *events: StreamEvent | LoomError) -> None:
        self.events: Sequence[Any] = events or (Sending(), TextDelta("hello"), answer())
        self.calls = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        del request
        self.calls += 1
        for event in self.events:
            await turn()
            if isinstance(event, LoomError):
                raise event
            yield event

    async def aclose(self) -> None:
        """Hold nothing, so give nothing back."""


def accounting(
    *events: StreamEvent | LoomError, budgets: tuple[Budget, ...] = ()
) -> tuple[Accounting, MemoryLedger, Script]:
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock)
    script = Script(*events)
    layer = Accounting(
        Costing(script, catalog=CATALOG, clock=clock),
        ledger=ledger,
        budgets=budgets,
        catalog=CATALOG,
        clock=clock,
        scope=lambda: ("https://x", "0123abcd"),
        client="weaver",
    )
    return layer, ledger, script


async def read(layer: LLMProvider, request: ChatRequest = ASK) -> list[StreamEvent]:
    async with aclosing(layer.stream(request)) as events:
        return [event async for event in events]


async def row(ledger: MemoryLedger) -> Entry:
    (entry,) = await ledger.entries()
    return entry


@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_accounting_keeps_the_laws_of_a_layer(law: LayerLaw) -> None:
    """Closing, order, contexts, limits, and settled before `Completed`."""
    ledger = MemoryLedger(clock=FakeClock())
    budget = Budget(limit_usd=1000, on_unknown_price="allow")
    await law(
        LayerCase(
            make=lambda inner: Accounting(
                inner, ledger=ledger, budgets=(budget,), catalog=CATALOG, clock=FakeClock()
            ),
            probes={"open rows": lambda: len(ledger._book.open)},
            settled=lambda: len(ledger._over),
        )
    )


async def test_an_answer_is_a_settled_row() -> None:
    """Who, what, how much, at which price; and nothing of what was said."""
    layer, ledger, _ = accounting()
    await read(layer)
    entry = await row(ledger)
    assert ("settled", Decimal("0.0010"), 100, 50) == (
        entry.state, entry.cost_usd, entry.input_tokens, entry.output_tokens
    )  # fmt: skip
    assert ("s", "t", {"project": "p"}, "0123abcd", "weaver") == (
        entry.session, entry.tenant, dict(entry.tags), entry.key, entry.client
    )  # fmt: skip
    assert (True, 1) == (entry.stream, len(entry.attempts))
    assert entry.price_id
    assert "hello" not in repr(entry)


async def test_usage_that_was_counted_here_is_an_estimate() -> None:
    """The row says so."""
    layer, ledger, _ = accounting(answer(msgspec.structs.replace(USAGE, estimated=True)))
    await read(layer)
    assert "estimated" == (await row(ledger)).state


@pytest.mark.parametrize(
    ("error", "charges", "state", "prompts"),
    [
        (ServiceUnavailable("503"), ("released",), "released", 0),
        (InvalidRequest("400"), ("released",), "released", 0),
        (TimedOut("silent"), ("unknown", "unknown"), "uncertain", 2),
        (ServiceUnavailable("504"), ("released", "unknown"), "uncertain", 1),
        (StreamTruncated("cut"), ("estimated",), "estimated", 1),
    ],
    ids=["503", "400", "silent", "504", "cut"],
)
async def test_a_failure_is_a_row_with_what_it_may_have_cost(
    error: LoomError, charges: tuple[Charge, ...], state: str, prompts: int
) -> None:
    """The fault matrix's column: nothing, the prompt of each doubtful attempt, what came."""
    layer, ledger, _ = accounting(Sending(), failing(error, *charges))
    with pytest.raises(type(error)):
        await read(layer)
    entry = await row(ledger)
    assert (state, error.code, len(charges)) == (entry.state, entry.code, len(entry.attempts))
    likely = likely_usage(ASK, 0, prompts)
    assert likely.input_tokens == entry.input_tokens
    assert (Decimal(4) * likely.input_tokens / 1_000_000 if prompts else 0) == entry.cost_usd


async def test_usage_that_came_before_a_cut_counts() -> None:
    """What the vendor reported is better than an estimate."""
    error = failing(StreamTruncated("cut", partial=Partial(text="h", usage=USAGE)), "estimated")
    layer, ledger, _ = accounting(Sending(), TextDelta("h"), error)
    with pytest.raises(StreamTruncated):
        await read(layer)
    assert Decimal("0.001") == (await row(ledger)).cost_usd


@pytest.mark.parametrize(
    ("leave_at", "state"),
    [(Sending, "released"), (UsageReported, "uncertain"), (TextDelta, "estimated")],
    ids=["not sent", "sent", "text"],
)
async def test_a_reader_that_leaves_leaves_a_row(leave_at: type, state: str) -> None:
    """Without waiting: nothing was sent yet, nothing came yet, or something did."""
    said = (TextDelta("four" * 4), ThinkingDelta("h" * 16), ToolCallDelta(0, "", "", "a" * 16))
    layer, ledger, _ = accounting(Sending(), UsageReported(USAGE), *said, answer())
    async with aclosing(layer.stream(ASK)) as events:
        async for event in events:
            if type(event) is leave_at:
                break
    entry = await row(ledger)
    assert (state, "cancelled") == (entry.state, entry.code)
    assert (5 if leave_at is TextDelta else 0) == entry.output_tokens


async def test_what_was_never_sent_costs_nothing() -> None:
    """Cancelled before `Sending`: released."""
    layer, ledger, _ = accounting()
    task = asyncio.ensure_future(read(layer))
    await turn()
    task.cancel()
    await asyncio.wait([task])
    assert ("released", Decimal(0)) == ((await row(ledger)).state, (await row(ledger)).cost_usd)


async def test_a_cancellation_anywhere_leaves_no_open_row() -> None:
    """At each suspension, once and twice: every row is closed."""
    layer, ledger, _ = accounting(budgets=(Budget(limit_usd=1000),))
    await cancel_everywhere(
        lambda: read(layer), probes={"open rows": lambda: len(ledger._book.open)}
    )


async def test_what_does_not_fit_is_not_sent() -> None:
    """The error has no attempts and names the sums."""
    layer, ledger, script = accounting(budgets=(Budget(limit_usd="0.001"),))
    with pytest.raises(BudgetExceeded, match="does not fit") as raised:
        await read(layer)
    error = raised.value
    assert (0, "mistral", LARGE, 0) == (error.attempts, error.provider, error.model, script.calls)
    assert error.timeline is not None
    assert () == error.timeline.attempts
    assert () == await ledger.entries()


async def test_two_hundred_at_once_pass_no_budget() -> None:
    """Overshoot 0: at no moment is more spent and kept free than the limit (R-33)."""
    worst = worst_cost(ASK, CATALOG.find(LARGE, FakeClock().now().date()))
    assert worst is not None
    limit = worst * 10
    layer, ledger, script = accounting(budgets=(Budget(limit_usd=limit),))
    results = await asyncio.gather(*(read(layer) for _ in range(200)), return_exceptions=True)
    assert {BudgetExceeded} == {type(r) for r in results if isinstance(r, BaseException)}
    assert 10 == script.calls
    (total,) = await ledger.totals()
    assert (Decimal("0.010"), Decimal(0)) == (total.cost_usd, total.reserved_usd)
    assert total.cost_usd <= limit


async def test_a_session_has_a_budget_of_its_own() -> None:
    """One session's spending refuses no other's."""
    worst = worst_cost(ASK, CATALOG.find(LARGE, FakeClock().now().date()))
    assert worst is not None
    layer, _, _ = accounting(budgets=(Budget(limit_usd=worst, per="session"),))
    await read(layer)
    with pytest.raises(BudgetExceeded, match="session 's'"):
        await read(layer)
    other = msgspec.structs.replace(ASK, attribution=Attribution(session="other"))
    await read(layer, other)


def doubtful() -> LoomError:
    return failing(TimedOut("silent"), "unknown")


@pytest.mark.parametrize(
    ("notice", "times"),
    [
        (Retried(1, 0.1, ServiceUnavailable("503"), 3), 1),
        (Retried(1, 0.1, doubtful(), 3), 2),
        (Rerouted(doubtful(), "mistral", LARGE), 2),
        (Rerouted(ServiceUnavailable("503"), "mistral", LARGE), 1),
        (Restarted("cut", "mistral", LARGE), 2),
    ],
    ids=["503", "doubtful retry", "doubtful route", "503 route", "restart"],
)
async def test_a_dearer_attempt_is_reserved_before_it_is_made(
    notice: StreamEvent, times: int
) -> None:
    """What may be billed is always covered; what certainly was not is not kept twice (law 7)."""
    worst = worst_cost(ASK, CATALOG.find(LARGE, FakeClock().now().date()))
    assert worst is not None
    layer, ledger, _ = accounting(
        Sending(), notice, Sending(2), answer(), budgets=(Budget(limit_usd=worst * times),)
    )
    await read(layer)
    assert worst * times == (await row(ledger)).reserved_usd
    if times == 1:
        return
    layer, ledger, _ = accounting(
        Sending(), notice, Sending(2), answer(), budgets=(Budget(limit_usd=worst),)
    )
    with pytest.raises(BudgetExceeded):
        await read(layer)
    # Of a stream that is begun anew, something came.
    state = "estimated" if type(notice) is Restarted else "uncertain"
    assert state == (await row(ledger)).state


async def test_what_is_in_doubt_stays_covered_on_a_dearer_route() -> None:
    """One attempt that may be billed, one that is not, and a dearer route: both prices."""
    day = FakeClock().now().date()
    large, small = (worst_cost(ASK, CATALOG.find(model, day)) for model in (LARGE, SMALL))
    assert large is not None
    assert small is not None
    cheap = msgspec.structs.replace(ASK, model=SMALL)
    script = (
        Sending(), Retried(1, 0.1, doubtful(), 3), Sending(2),
        Rerouted(ServiceUnavailable("503"), "mistral", LARGE), Sending(3), answer(),
    )  # fmt: skip
    layer, ledger, _ = accounting(*script, budgets=(Budget(limit_usd=small + large),))
    await read(layer, cheap)
    assert small + large == (await row(ledger)).reserved_usd
    tight = Budget(limit_usd=small + large - Decimal("0.000001"))
    layer, ledger, _ = accounting(*script, budgets=(tight,))
    with pytest.raises(BudgetExceeded) as raised:
        await read(layer, cheap)
    assert ["unknown"] == [one.charge for one in (raised.value.timeline or timeline()).attempts]
    assert ("uncertain", 1) == ((await row(ledger)).state, len((await row(ledger)).attempts))


async def test_a_dearer_route_that_is_refused_after_a_503_costs_nothing() -> None:
    """What certainly was not billed is not written down as if it were."""
    error = failing(ServiceUnavailable("503"), "released")
    small = worst_cost(ASK, CATALOG.find(SMALL, FakeClock().now().date()))
    assert small is not None
    script = (Sending(), Rerouted(error, "mistral", LARGE), Sending(2), answer())
    layer, ledger, _ = accounting(*script, budgets=(Budget(limit_usd=small),))
    with pytest.raises(BudgetExceeded) as raised:
        await read(layer, msgspec.structs.replace(ASK, model=SMALL))
    assert 1 == raised.value.attempts
    assert ("released", Decimal(0)) == ((await row(ledger)).state, (await row(ledger)).cost_usd)


@pytest.mark.parametrize(
    ("error", "state", "charges"),
    [
        (failing(ServiceUnavailable("503"), "released"), "released", ["released"]),
        (failing(TimedOut("silent"), "unknown"), "uncertain", ["unknown"]),
    ],
    ids=["503", "silent"],
)
async def test_leaving_between_two_attempts_leaves_what_is_known(
    error: LoomError, state: str, charges: list[str]
) -> None:
    """A call that ends in the wait after a 503 costs nothing; after a silence, one prompt."""
    layer, ledger, _ = accounting(Sending(), Retried(1, 0.1, error, 3), Sending(2), answer())
    async with aclosing(layer.stream(ASK)) as events:
        async for event in events:
            if type(event) is Retried:
                break
    entry = await row(ledger)
    assert (state, "cancelled") == (entry.state, entry.code)
    assert charges == [attempt.charge for attempt in entry.attempts]


async def test_leaving_a_restarted_answer_counts_both() -> None:
    """What came of the first route and what was sent to the second may both be billed."""
    script = (
        Sending(), TextDelta("a" * 16), Restarted("cut", "mistral", SMALL), Sending(2),
        TextDelta("b" * 16), answer(),
    )  # fmt: skip
    layer, ledger, _ = accounting(*script)
    async with aclosing(layer.stream(ASK)) as events:
        async for event in events:
            if event == TextDelta("b" * 16):
                break
    entry = await row(ledger)
    assert ["estimated", "estimated"] == [attempt.charge for attempt in entry.attempts]
    assert (likely_usage(ASK, 0, 2).input_tokens, 10) == (entry.input_tokens, entry.output_tokens)


async def test_a_cheaper_route_needs_no_more() -> None:
    """A dearer one does."""
    day = FakeClock().now().date()
    large, small = (worst_cost(ASK, CATALOG.find(model, day)) for model in (LARGE, SMALL))
    assert large is not None
    assert small is not None
    assert small < large
    notice = Rerouted(ServiceUnavailable("503"), "mistral", SMALL)
    layer, ledger, _ = accounting(Sending(), notice, answer(), budgets=(Budget(limit_usd=large),))
    await read(layer)
    assert large == (await row(ledger)).reserved_usd
    cheap = msgspec.structs.replace(ASK, model=SMALL)
    notice = Rerouted(ServiceUnavailable("503"), "mistral", LARGE)
    layer, _, _ = accounting(Sending(), notice, answer(), budgets=(Budget(limit_usd=small),))
    with pytest.raises(BudgetExceeded):
        await read(layer, cheap)


async def test_an_unknown_price_is_refused_or_let_pass() -> None:
    """Never counted as nothing without being asked."""
    unknown = msgspec.structs.replace(ASK, model="nobody-knows")
    layer, _, _ = accounting(budgets=(Budget(limit_usd=5),))
    with pytest.raises(BudgetExceeded, match="price is unknown"):
        await read(layer, unknown)
    layer, ledger, _ = accounting(budgets=(Budget(limit_usd=5, on_unknown_price="allow"),))
    await read(layer, unknown)
    assert None is (await row(ledger)).reserved_usd


async def test_the_log_tells_what_a_turn_cost(caplog: pytest.LogCaptureFixture) -> None:
    """The page's lines: `Turn completed`, and `Session cost exceeds threshold` once."""
    caplog.set_level(logging.INFO, logger="loom.cost")
    budget = Budget(limit_usd=5, warn_usd="0.0015", per="session")
    layer, _, _ = accounting(budgets=(budget,))
    for _ in range(4):
        await read(layer)
    turns = [record for record in caplog.records if record.message == "Turn completed"]
    assert ["0.001000", "0.002000", "0.003000", "0.004000"] == [
        r.__dict__["total_cost"] for r in turns
    ]
    assert ("0.001000", 100, 50) == tuple(
        turns[0].__dict__[name] for name in ("turn_cost", "input_tokens", "output_tokens")
    )
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["Session cost exceeds threshold"] == [record.message for record in warnings]
    assert "0.002000" == warnings[0].__dict__["total_cost"]


async def test_a_ledger_that_cannot_be_written_stops_the_call() -> None:
    """Nothing is sent that could not be accounted for."""

    class Broken(MemoryLedger):
        async def reserve(self, *_: object, **__: object) -> Any:
            raise LedgerUnavailable("the disk is full", attempts=0)

    script = Script()
    layer = Accounting(script, ledger=Broken(clock=FakeClock()), catalog=CATALOG, clock=FakeClock())
    with pytest.raises(LedgerUnavailable):
        await read(layer)
    assert 0 == script.calls


async def test_only_its_own_ledger_is_closed() -> None:
    """A ledger that the caller made is the caller's."""

    def around(ledger: MemoryLedger, *, owned: bool) -> Accounting:
        return Accounting(Script(), ledger=ledger, catalog=CATALOG, clock=FakeClock(), owned=owned)

    own, foreign = MemoryLedger(clock=FakeClock()), MemoryLedger(clock=FakeClock())
    await around(own, owned=True).aclose()
    await around(foreign, owned=False).aclose()
    await read(around(foreign, owned=False))
    with pytest.raises(RuntimeError, match="closed"):
        await read(around(own, owned=True))


def test_worst_cases() -> None:
    """A byte is at most a token; sound is unknown; a document fills the window."""
    day = FakeClock().now().date()
    card = CATALOG.find(LARGE, day)
    assert card is not None
    assert Decimal(4 * (100 + 64 + 16) + 12 * 100) / 1_000_000 == worst_cost(ASK, card)
    two = msgspec.structs.replace(ASK, sampling=Sampling(max_tokens=100, n=2))
    assert Decimal(4 * 180 + 12 * 200) / 1_000_000 == worst_cost(two, card)
    paper = Message.user(DocumentPart("https://x.example/a.pdf"))
    document = msgspec.structs.replace(ASK, messages=(paper,))
    assert Decimal(4 * 32768 + 12 * 100) / 1_000_000 == worst_cost(document, card)
    endless = msgspec.structs.replace(ASK, sampling=Sampling())
    assert Decimal(4 * 180 + 12 * 32768) / 1_000_000 == worst_cost(endless, card)
    assert worst_cost(ASK, None) is None
    assert worst_cost(ASK, msgspec.structs.replace(card, price=None)) is None
    assert worst_cost(endless, msgspec.structs.replace(card, context_window=None)) is None
    assert 0 == likely_usage(document, 0).input_tokens


def test_sound_has_no_known_worst_case() -> None:
    """It is billed by the second, and nobody has listened to it yet."""
    card = CATALOG.find("voxtral-small-latest", date(2026, 11, 20))
    assert card is not None
    assert card.price is not None
    assert card.price.usd_per_audio_second
    sound = msgspec.structs.replace(ASK, messages=(Message.user(AudioPart("UklGRg==")),))
    assert worst_cost(sound, card) is None
    assert worst_cost(ASK, card)
