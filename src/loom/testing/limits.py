"""
For tests of rate limits: a vendor that counts as servers do, and the laws of a `LimitStore`.

    @pytest.mark.parametrize("law", LIMIT_STORE_LAWS)
    def test_my_store_keeps_the_law(law):
        law(MyStore)
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any, TypeAlias

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import RateLimited
from loom.core.events import Completed, Sending, StreamEvent
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Sampling
from loom.core.response import Choice, LLMResponse, RateLimitState, Usage
from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import Ask, LimitKey
from loom.layers.limit_store import LimitStore
from loom.server.simulator.limits import Window, new_window
from loom.server.simulator.options import ChargeAt, Tier, WindowKind

__all__ = [
    "LIMIT_STORE_LAWS",
    "LimitStoreLaw",
    "MeteredCall",
    "MeteredVendor",
    "a_grant_is_all_or_nothing",
    "a_permit_is_settled_once",
    "a_refusal_is_learnt_from_once_a_window",
    "a_settled_call_counts_for_the_whole_window",
    "headers_only_lower",
    "keys_are_apart",
    "limit_store_contract",
    "threads_share_one_limit",
    "what_is_held_does_not_expire",
]


class MeteredCall(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a call to a `MeteredVendor` really uses.

    Attributes:
        prompt: Tokens of its prompt.
        answer: Tokens of its answer.
        most: Its `max_tokens`.
        seconds: How long the answer takes.
        delay_s: How long the request takes to the vendor.
        written: Bytes of the prompt; None: 3.2 for each token.
    """

    prompt: int
    answer: int
    most: int = 1024
    seconds: float = 1.0
    delay_s: float = 0.0
    written: int | None = None

    def request(self, **fields: Any) -> ChatRequest:
        """
        The call as a request.

        Args:
            fields: Fields of `ChatRequest` beside message, model and `max_tokens`.

        Returns:
            A request that a `MeteredVendor` understands.
        """
        size = self.written if self.written is not None else math.ceil(self.prompt * 3.2)
        return ChatRequest(
            model="metered-1",
            messages=(Message.user("x" * size),),
            sampling=Sampling(max_tokens=self.most),
            metadata={"call": self},
            **fields,
        )


class MeteredVendor(LLMProvider):
    """
    A vendor in virtual time that counts requests and tokens as the simulator does.

    Attributes:
        accepted: Calls that were let in.
        refused: Calls that were answered 429.
        used: Tokens of calls that were answered.
        in_flight: Calls that are being answered.
        counted: Every charge of tokens: when, and how many.

    Args:
        tier: The limits.
        clock: Tells the time, and waits.
        window: How a minute is counted.
        charge_at: When tokens are.
        headers: Whether answers name limits and cost.
    """

    def __init__(
        self,
        tier: Tier,
        *,
        clock: Clock,
        window: WindowKind = "sliding",
        charge_at: ChargeAt = "finish",
        headers: bool = False,
    ) -> None:
        self.accepted = 0
        self.refused = 0
        self.used = 0
        self.in_flight = 0
        self.counted: list[tuple[float, int]] = []
        self._tier = tier
        self._clock = clock
        self._kind = window
        self._charge_at = charge_at
        self._headers = headers
        self._requests: Window = new_window(window, tier.requests_per_minute)
        self._tokens: Window = new_window(window, tier.tokens_per_minute)

    @property
    def name(self) -> str:
        """The name "metered"."""
        return "metered"

    @property
    def model(self) -> str:
        """The model "metered-1"."""
        return "metered-1"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Let a call in or refuse it, and answer in its time.

        Args:
            request: Made by `MeteredCall.request`.

        Yields:
            `Sending` and `Completed`.

        Raises:
            RateLimited: If a window is full.
        """
        call: MeteredCall = (request.metadata or {})["call"]
        yield Sending()
        await self._clock.sleep(call.delay_s)
        came_s = self._now_s()
        upfront = 0 if self._charge_at == "finish" else call.prompt + call.most
        if not self._let_in(upfront, came_s):
            self.refused += 1
            raise RateLimited("Rate limit exceeded")
        self.accepted += 1
        self.in_flight += 1
        try:
            await self._clock.sleep(call.seconds)
        finally:
            self.in_flight -= 1
            cost = call.prompt + call.answer
            self.used += cost
            self._charge(cost, upfront, came_s)
        yield Completed(self._response(call))

    async def aclose(self) -> None:
        """There is nothing to close."""

    def take(self, tokens: int) -> None:
        """
        Use tokens for somebody else, whether there is room or not.

        Args:
            tokens: How many.
        """
        now_s = self._now_s()
        self._tokens = self._tokens.charge(tokens, now_s, now_s)

    def _let_in(self, upfront: int, now_s: float) -> bool:
        requests = self._requests.take(1, now_s)
        tokens: Window | None = self._tokens
        if upfront:
            tokens = self._tokens.take(upfront, now_s)
        elif not self._tokens.remaining(now_s):
            tokens = None
        if requests is None or tokens is None:
            return False
        self._requests, self._tokens = requests, tokens
        if upfront:
            self.counted.append((now_s, upfront))
        return True

    def _charge(self, cost: int, upfront: int, came_s: float) -> None:
        if self._charge_at == "arrival":
            return
        now_s = self._now_s()
        at_s = came_s if upfront else now_s
        self._tokens = self._tokens.charge(cost - upfront, at_s, now_s)
        self.counted.append((at_s, cost - upfront))

    def _response(self, call: MeteredCall) -> LLMResponse:
        limits = RateLimitState()
        if self._headers:
            limits = RateLimitState(
                limit_requests_minute=self._tier.requests_per_minute,
                limit_tokens_minute=self._tier.tokens_per_minute,
                query_cost_tokens=call.prompt + call.answer,
            )
        total = call.prompt + call.answer
        return LLMResponse(
            choices=(Choice(message=Message.assistant("."), finish_reason="stop"),),
            usage=Usage(input_tokens=call.prompt, output_tokens=call.answer, total_tokens=total),
            model=self.model,
            rate_limit=limits,
        )

    def _now_s(self) -> float:
        if self._kind == "calendar":
            return self._clock.now().timestamp()
        return self._clock.monotonic_s()


_Maker: TypeAlias = Callable[[RateLimit], LimitStore]
LimitStoreLaw: TypeAlias = Callable[[_Maker], None]

_KEY: LimitKey = ("https://a", "0123abcd", "m")
_OTHER: LimitKey = ("https://a", "0123abcd", "n")
_NOW_S = 1000.0


def limit_store_contract(make: _Maker) -> None:
    """
    Put a store to every law.

    Args:
        make: Makes an empty store with these limits.

    Raises:
        AssertionError: If a law is broken; the message says which and how.
    """
    for law in LIMIT_STORE_LAWS:
        law(make)


def a_grant_is_all_or_nothing(make: _Maker) -> None:
    """A call that lacks one of its limits takes nothing of the others."""
    store = make(RateLimit(requests_per_minute=10, tokens_per_minute=1000, burst_s=60.0))
    _grant(store, 1, 900)
    before = store.state(_KEY, _NOW_S)
    _must(store.take(_KEY, 2, Ask(200, 200, 200), _NOW_S) > 0, "1100 tokens were granted of 1000")
    _must(store.state(_KEY, _NOW_S) == before, "a call that was not granted left a trace")


def a_permit_is_settled_once(make: _Maker) -> None:
    """A second settlement, a release after it, and a number that is unknown change nothing."""
    store = make(RateLimit(tokens_per_minute=1000, burst_s=60.0))
    _grant(store, 1, 100)
    store.settle(_KEY, 1, 70, _NOW_S)
    after = store.state(_KEY, _NOW_S)
    _must((after.held, after.held_tokens, after.used_tokens) == (0, 0, 70), f"settled: {after}")
    store.settle(_KEY, 1, 70, _NOW_S)
    store.release(_KEY, 1, _NOW_S)
    store.settle(_KEY, 99, 70, _NOW_S)
    _must(store.state(_KEY, _NOW_S) == after, "a call was ended twice")
    _grant(store, 2, 100)
    store.release(_KEY, 2, _NOW_S)
    left = store.state(_KEY, _NOW_S)
    _must(
        (left.held, left.held_tokens, left.used_requests) == (0, 0, after.used_requests),
        f"a release left something: {left}",
    )


def what_is_held_does_not_expire(make: _Maker) -> None:
    """The reservation of a call that takes an hour is held for an hour."""
    store = make(RateLimit(tokens_per_minute=1000, burst_s=60.0))
    _grant(store, 1, 900)
    later_s = _NOW_S + 3600
    _must(store.take(_KEY, 2, Ask(200, 1, 200), later_s) == math.inf, "a reservation expired")
    store.settle(_KEY, 1, 1000, later_s)
    _must(store.take(_KEY, 2, Ask(1, 1, 1), later_s + 59.9) > 0, "a long call was not counted")


def a_settled_call_counts_for_the_whole_window(make: _Maker) -> None:
    """What was used counts for 60 seconds at least, wherever in a second it began."""
    for part in range(8):
        store = make(RateLimit(requests_per_minute=1, burst_s=60.0))
        at_s = _NOW_S + part / 8 + 0.01
        _must(store.take(_KEY, 1, Ask(1, 1, 1), at_s) <= 0, "an empty store refused a call")
        store.settle(_KEY, 1, 1, at_s)
        wait_s = store.take(_KEY, 2, Ask(1, 1, 1), at_s + 60)
        _must(wait_s > 0, f"two calls in 60 seconds, the first at {at_s}")
        _must(wait_s <= 2, f"a call of a minute ago counts for {wait_s} s more")


def headers_only_lower(make: _Maker) -> None:
    """Limits that headers name are kept when they are lower, and never raise one."""
    store = make(RateLimit(requests_per_minute=100, tokens_per_minute=10_000))
    for said, expected in ((200, 100), (50, 50), (80, 50), (0, 50)):
        store.announce(_KEY, said, said * 100, _NOW_S)
        state = store.state(_KEY, _NOW_S)
        _must(state.limit_requests == expected, f"{said} was announced: {state.limit_requests}")
        _must(state.limit_tokens <= expected * 100, f"{said} was announced: {state.limit_tokens}")


def a_refusal_is_learnt_from_once_a_window(make: _Maker) -> None:
    """A tenth less after a 429, once in 60 seconds; a full model does not shrink the quota."""
    store = make(RateLimit(requests_per_minute=100))
    for _ in range(5):
        store.refuse(_KEY, "quota", None, _NOW_S)
    _must(store.state(_KEY, _NOW_S).limit_requests == 90, "five 429s at once are one")
    store.refuse(_KEY, "capacity", None, _NOW_S)
    state = store.state(_KEY, _NOW_S)
    _must(state.limit_requests == 90, "a full model shrank the quota")
    _must(state.limit_concurrency < math.inf, "a full model did not narrow it")
    later = store.state(_KEY, _NOW_S + 3600)
    _must(later.limit_requests == 100, f"an hour later it is {later.limit_requests}")
    store.refuse(_KEY, "quota", 30.0, _NOW_S + 3600)
    wait_s = store.take(_KEY, 1, Ask(1, 1, 1), _NOW_S + 3600)
    _must(29 < wait_s < 32, f"30 seconds were asked for, {wait_s} are waited")


def keys_are_apart(make: _Maker) -> None:
    """What one key uses, and how it is refused, is nothing to another."""
    store = make(RateLimit(requests_per_minute=1))
    _grant(store, 1, 1)
    store.refuse(_KEY, "quota", 30.0, _NOW_S)
    _must(store.take(_OTHER, 2, Ask(1, 1, 1), _NOW_S) <= 0, "another key's limit is used up")


def threads_share_one_limit(make: _Maker) -> None:
    """Of 500 calls from eight threads, exactly as many are granted as there is room for."""
    store = make(RateLimit(requests_per_minute=10, burst_s=60.0))
    numbers = range(500)
    with ThreadPoolExecutor(8) as threads:
        waits = threads.map(store.take, repeat(_KEY), numbers, repeat(Ask(1, 1, 1)), repeat(_NOW_S))
        granted = sum(wait_s <= 0 for wait_s in waits)
    _must(granted == 10, f"{granted} of 10 were granted")


LIMIT_STORE_LAWS: tuple[LimitStoreLaw, ...] = (
    a_grant_is_all_or_nothing,
    a_permit_is_settled_once,
    what_is_held_does_not_expire,
    a_settled_call_counts_for_the_whole_window,
    headers_only_lower,
    a_refusal_is_learnt_from_once_a_window,
    keys_are_apart,
    threads_share_one_limit,
)
"""Every law, for `pytest.mark.parametrize`."""


def _grant(store: LimitStore, permit: int, tokens: int) -> None:
    wait_s = store.take(_KEY, permit, Ask(tokens, tokens, tokens), _NOW_S)
    _must(wait_s <= 0, f"{tokens} tokens were not granted: {wait_s} s")


def _must(kept: bool, broken: str) -> None:  # noqa: FBT001  # reads like the assert it stands for
    if not kept:
        raise AssertionError(broken)
