"""Windows as values, and what they do to callers of a simulator."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom import AsyncMistral, Mistral, RateLimited
from loom.core.errors import CapacityExceeded, ConfigInvalid, InsufficientCredits
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import SIMULATOR_KEY, Simulator
from loom.server.simulator.limits import (
    BucketWindow,
    CalendarWindow,
    SlidingWindow,
    Window,
    new_window,
)
from loom.server.simulator.options import SimulatorOptions, Tier, parse_tier
from loom.testing.clock import FakeClock

MODEL = "mistral-small-latest"
# Steps of an eighth are exact as floats: a test of limits is no test of rounding.
STEPS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 12)), min_size=1, max_size=120)


def granted(window: Window, steps: list[tuple[int, int]]) -> list[tuple[float, int]]:
    """Ask again and again; give what was let through, and when."""
    now_s, through = 0.0, []
    for eighths, n in steps:
        now_s += eighths / 8
        after = window.take(n, now_s)
        if after is not None:
            window = after
            through.append((now_s, n))
    return through


@given(STEPS, st.integers(1, 40))
def test_a_sliding_window_holds_in_any_minute(steps: list[tuple[int, int]], limit: int) -> None:
    """In no 60 seconds more than the limit is granted, wherever they begin."""
    through = granted(SlidingWindow(limit=limit), steps)

    for start_s, _ in through:
        assert sum(n for at_s, n in through if start_s <= at_s < start_s + 60) <= limit


@given(STEPS, st.integers(1, 40))
def test_a_calendar_window_holds_in_each_minute(steps: list[tuple[int, int]], limit: int) -> None:
    """In no minute of the clock more than the limit is granted."""
    through = granted(CalendarWindow(limit=limit), steps)

    for minute in {at_s // 60 for at_s, _ in through}:
        assert sum(n for at_s, n in through if at_s // 60 == minute) <= limit


@given(STEPS, st.integers(1, 600))
def test_a_bucket_holds_over_any_time(steps: list[tuple[int, int]], limit: int) -> None:
    """In t seconds at most what it holds and what flows in, and one request from a full one."""
    bucket = BucketWindow(limit=limit)
    through = granted(bucket, steps)

    for start_s, _ in through:
        taken = [(at_s, n) for at_s, n in through if at_s >= start_s]
        total = 0
        for at_s, n in taken:
            total += n
            most = bucket.capacity + (at_s - start_s) * limit / 60
            assert total <= max(most, n + most - bucket.capacity) + 1e-3


@pytest.mark.parametrize("kind", ["sliding", "calendar", "bucket"])
@given(STEPS, st.integers(0, 40))
def test_a_window_is_a_value(kind: Any, steps: list[tuple[int, int]], limit: int) -> None:
    """Taking edits nothing; what is left is never below 0, and all comes back with time."""
    window, now_s = new_window(kind, limit), 0.0
    unused = window.remaining(0.0)
    for eighths, n in steps:
        now_s += eighths / 8
        before = window.remaining(now_s)
        after = window.take(n, now_s)
        assert before == window.remaining(now_s) >= 0
        if after is not None:
            window = after
            assert max(0, before - n) == window.remaining(now_s)

    assert unused == window.remaining(now_s + 3600)


def test_a_sliding_window_frees_exactly_after_a_minute() -> None:
    """At 60 seconds, not before, what was used is free."""
    window = SlidingWindow(limit=2).take(1, 0.25)
    assert window is not None
    window = window.take(1, 10.0)
    assert window is not None

    assert window.take(1, 60.125) is None
    assert window.take(1, 60.25) is not None
    assert window.take(2, 60.25) is None


def test_a_long_history_is_joined_to_the_safe_side() -> None:
    """With thousands of entries nothing is forgotten early, and all is in the end."""
    window = SlidingWindow(limit=10_000)
    for i in range(5000):
        taken = window.take(1, i / 1000)
        assert taken is not None
        window = taken

    assert len(window.entries) <= 512
    assert 5000 == window.remaining(59.0)
    assert 5000 <= window.remaining(62.0) <= 7000 + 10
    assert 10_000 == window.remaining(65.0)


def test_a_correction_counts_for_the_time_of_what_it_corrects() -> None:
    """What is given back does not outlive what was taken."""
    window = SlidingWindow(limit=100).take(100, 0.0)
    assert window is not None
    window = window.take(0, 50.0)
    assert window is not None
    window = window.charge(-60, 0.0, 50.0)

    assert 60 == window.remaining(50.0)
    assert 100 == window.remaining(60.0)
    assert 100 == window.charge(-60, 0.0, 70.0).remaining(70.0)


@pytest.mark.parametrize(
    ("text", "requests", "tokens"),
    [("free", 5, 10_000), ("starter", 60, 500_000), ("pro", 120, 2_000_000), ("7/90", 7, 90)],
)
def test_a_tier_is_a_name_or_two_numbers(text: str, requests: int, tokens: int) -> None:
    """The reference page's plans, and plans of one's own."""
    expected = Tier(requests_per_minute=requests, tokens_per_minute=tokens)

    assert expected == parse_tier(text)
    assert expected == SimulatorOptions(tier=text).limits


@pytest.mark.parametrize("text", ["gold", "", "5", "5/", "-1/3", "5/x"])
def test_another_tier_is_refused_by_name(text: str) -> None:
    """The error says what there is, before anything is started."""
    with pytest.raises(ConfigInvalid, match="no such tier"):
        Simulator(tier=text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_s": -1.0},
        {"latency_s": float("nan")},
        {"latency_s": float("inf")},
        {"journal_size": -1},
        {"credits_usd": Decimal(-1)},
        {"window": "weekly"},
        {"charge_at": "never"},
        {"refusal": "rude"},
    ],
)
def test_an_option_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    """The message names the option."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Simulator(**wrong)


def client(simulator: Simulator, **options: Any) -> Mistral:
    options = {"base_url": simulator.base_url, "model": MODEL, "retry": None, **options}
    return Mistral(simulator.api_key, **options)


def test_the_sixth_call_on_free_is_refused_until_a_minute_passed() -> None:
    """429 with code 1300; after the clock was moved the next call is answered."""
    with Simulator(tier="free") as simulator, client(simulator) as mistral:
        for _ in range(5):
            assert "hello" == mistral.chat("Say hello").content
        with pytest.raises(RateLimited, match="Rate limit exceeded") as refused:
            mistral.chat("Say hello")
        simulator.clock.advance(60)
        again = mistral.chat("Say hello")

    assert ("1300", "rate_limited", 429) == (
        refused.value.vendor_code,
        refused.value.vendor_type,
        refused.value.http_status,
    )
    assert (5, 4) == (
        again.rate_limit.limit_requests_minute,
        again.rate_limit.remaining_requests_minute,
    )


@pytest.mark.anyio
async def test_streams_are_limited_and_counted_too() -> None:
    """A stream takes its request and its tokens, and names no limits."""
    with Simulator(tier="2/100000") as simulator:
        async with AsyncMistral(
            simulator.api_key, base_url=simulator.base_url, model=MODEL, retry=None
        ) as mistral:
            async with mistral.stream("Say hello") as stream:
                response = await stream.final()
            second = await mistral.chat("Say hello")
            with pytest.raises(RateLimited):
                async with mistral.stream("Say hello") as third:
                    await third.final()

    assert not response.rate_limit.headers
    used = sum(u.total_tokens - u.cached_tokens for u in (response.usage, second.usage))
    assert 100_000 - used == second.rate_limit.remaining_tokens_minute
    assert 0 == second.rate_limit.remaining_requests_minute
    cost = second.usage.total_tokens - second.usage.cached_tokens
    assert cost == second.rate_limit.query_cost_tokens


def test_keys_and_models_have_windows_of_their_own() -> None:
    """Another key or another model is not held up; an alias is the same model."""
    with Simulator(tier="1/10000", any_key=True) as simulator, client(simulator) as mistral:
        mistral.chat("Say hello")
        mistral.chat("Say hello", model="mistral-large-latest")
        with Mistral("another-key", base_url=simulator.base_url, model=MODEL) as other:
            other.chat("Say hello")
        with pytest.raises(RateLimited):
            mistral.chat("Say hello", model="magistral-small-latest")


def test_tokens_charged_at_finish_let_one_too_many_through() -> None:
    """As with the vendor: the last answer may pass the limit, then the minute is over."""
    with Simulator(tier="100/20") as simulator, client(simulator) as mistral:
        first = mistral.chat("Explain looms")
        with pytest.raises(RateLimited):
            mistral.chat("Say hello")

    assert first.usage.total_tokens > 20
    assert 0 == first.rate_limit.remaining_tokens_minute


def test_tokens_charged_at_arrival_count_what_may_be_answered() -> None:
    """Prompt and max_tokens are taken; a request that cannot fit is refused."""
    with (
        Simulator(tier="100/1000", charge_at="arrival") as simulator,
        client(simulator) as mistral,
    ):
        with pytest.raises(RateLimited):
            mistral.chat("Say hello", max_tokens=1000)
        first = mistral.chat("Say hello", max_tokens=900)
        with pytest.raises(RateLimited):
            mistral.chat("Say hello", max_tokens=900)

    left = first.rate_limit.remaining_tokens_minute
    assert left is not None
    assert left < 100


def test_a_corrected_charge_gives_back_what_was_not_used() -> None:
    """At the end the estimate becomes what was used; a refused prompt costs nothing."""
    with (
        Simulator(tier="100/1000", charge_at="arrival_corrected") as simulator,
        client(simulator) as mistral,
    ):
        first = mistral.chat("Say hello", max_tokens=900)
        second = mistral.chat("Say hello", max_tokens=900)

    used = sum(u.total_tokens - u.cached_tokens for u in (first.usage, second.usage))
    assert 1000 - used == second.rate_limit.remaining_tokens_minute


@pytest.mark.parametrize(("window", "wait_s"), [("calendar", 31.0), ("bucket", 12.0)])
def test_other_servers_count_otherwise(window: Any, wait_s: float) -> None:
    """A calendar minute ends with the clock's; a bucket of 5 a minute gives one each 12 s."""
    clock = FakeClock(datetime(2026, 8, 19, 12, 0, 30, tzinfo=UTC))
    count = 1 if window == "bucket" else 5
    with (
        Simulator(tier="5/1000000", window=window, clock=clock) as simulator,
        client(simulator) as mistral,
    ):
        for _ in range(count):
            mistral.chat("Say hello")
        simulator.clock.advance(wait_s - 2)
        with pytest.raises(RateLimited):
            mistral.chat("Say hello")
        simulator.clock.advance(2)
        mistral.chat("Say hello")


def test_a_server_may_speak_of_capacity() -> None:
    """By switch the full window is told as code 3505."""
    with Simulator(tier="1/9999", refusal="capacity") as simulator, client(simulator) as mistral:
        mistral.chat("Say hello")
        with pytest.raises(CapacityExceeded, match="Service tier capacity exceeded") as refused:
            mistral.chat("Say hello")

    assert "3505" == refused.value.vendor_code


@pytest.mark.parametrize("name", [MODEL, "mistral-small-2603"])
def test_a_model_outside_the_plan_has_a_limit_of_nothing(name: str) -> None:
    """The 429 names a limit of 0, so that a client does not try again."""
    with (
        Simulator(not_in_plan=[name]) as simulator,
        client(simulator) as mistral,
        pytest.raises(RateLimited) as refused,
    ):
        mistral.chat("Say hello")

    assert not refused.value.retryable
    assert refused.value.rate_limit is not None
    assert 0 == refused.value.rate_limit.limit_requests_minute


def test_credits_run_out() -> None:
    """What answers cost is taken until nothing is left; then 402, until a reset."""
    with Simulator(credits_usd=Decimal("0.00001")) as simulator, client(simulator) as mistral:
        first = mistral.chat("Explain looms")
        with pytest.raises(InsufficientCredits, match="Please add credits") as refused:
            mistral.chat("Explain looms")
        entry = simulator.journal[-1]
        simulator.reset()
        mistral.chat("Say hello")

    assert first.usage.cost_usd is not None
    assert first.usage.cost_usd > Decimal("0.00001")
    assert 402 == refused.value.http_status
    assert {
        "object": "error",
        "message": "Insufficient credits. Please add credits to your account.",
        "type": "insufficient_credits",
        "param": None,
        "code": None,
        "raw_status_code": 402,
    } == json.loads(entry.answer)


def test_a_wrong_key_or_body_uses_nothing() -> None:
    """401 and 422 come before the limits."""
    with Simulator(tier="1/10000") as simulator, client(simulator) as mistral:
        address = simulator.base_url.split("/")[2]
        for key, body, status in (
            ("another", b"{}", 401),
            (SIMULATOR_KEY, b"{}", 422),
            (SIMULATOR_KEY, b"not JSON", 422),
        ):
            connection = http.client.HTTPConnection(address, timeout=20)
            headers = {"authorization": f"Bearer {key}"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            assert status == connection.getresponse().status
            connection.close()

        assert "hello" == mistral.chat("Say hello").content


def test_the_latency_passes_before_the_answer() -> None:
    """It is waited for on the simulator's clock, and told in the headers."""
    clock = FakeClock(auto=True)
    with (
        Simulator(latency_s=0.2, clock=clock, provider=ScriptedProvider(["hi"])) as simulator,
        client(simulator) as mistral,
    ):
        assert "hi" == mistral.chat("Say hello").content
        entry = simulator.journal[-1]

    assert 0.2 in clock.slept
    assert "200" == entry.answer_headers["x-envoy-upstream-service-time"]
