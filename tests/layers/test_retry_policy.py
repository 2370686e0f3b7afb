"""Which failures are tried again, when, and how often: the policy alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import (
    CapacityExceeded,
    CircuitOpen,
    ConfigInvalid,
    Conflict,
    InvalidAPIKey,
    InvalidRequest,
    LoomError,
    MalformedReply,
    RateLimited,
    ServiceUnavailable,
    StreamStalled,
    StreamTruncated,
    TimedOut,
    TLSFailed,
    Unreachable,
)
from loom.layers.retry_policy import RetryPolicy, RetryQuota, Tokens

DEFAULT = RetryPolicy()


@pytest.mark.parametrize(
    ("error", "requests"),
    [
        (ServiceUnavailable("503"), 3),
        (Unreachable("reset", phase="reset"), 3),
        (Conflict("409"), 3),
        (TimedOut("408"), 3),
        (StreamTruncated("cut"), 3),
        (RateLimited("429"), 5),
        (CapacityExceeded("capacity"), 5),
        (RateLimited("not in the plan", retryable=False), 1),
        (InvalidRequest("400"), 1),
        (InvalidAPIKey("401"), 1),
        (InvalidAPIKey("401, and there is a new key", retryable=True), 2),
        (TLSFailed("certificate"), 1),
        (TimedOut("late", phase="total"), 1),
        (CircuitOpen("open"), 1),
    ],
    ids=lambda value: value.message if isinstance(value, LoomError) else str(value),
)
def test_how_often_each_failure_is_sent(error: LoomError, requests: int) -> None:
    """Five times for a 429, three for the rest, once for what the same request cannot change."""
    assert requests == DEFAULT.limit(error)


def test_a_silent_route_and_a_broken_reply_have_a_limit_of_their_own() -> None:
    """One more at most, whatever else is allowed (fault matrix, rows 8, 12 and 14)."""
    assert ("silent", 2) == DEFAULT.kind_limit(TimedOut("late", phase="first_byte"))
    assert ("silent", 2) == DEFAULT.kind_limit(StreamStalled("nothing came"))
    assert ("malformed", 2) == DEFAULT.kind_limit(MalformedReply("html"))
    assert DEFAULT.kind_limit(ServiceUnavailable("503")) is None


def test_an_open_breaker_is_waited_for_only_if_asked() -> None:
    """Fault matrix, row 63."""
    assert 3 == RetryPolicy(wait_for_breaker=True).limit(CircuitOpen("open"))


def test_the_pages_first_recipe() -> None:
    """5 attempts, 2 s doubling, no jitter, 429 only: "retrying in 2s", "in 4s"."""
    policy = RetryPolicy.rate_limit_only()
    limited = RateLimited("429")
    assert [2.0, 4.0, 8.0, 16.0] == [policy.wait_s(n, limited, 0.9) for n in range(1, 5)]
    assert 5 == policy.limit(limited)
    assert 1 == policy.limit(ServiceUnavailable("503"))
    assert 1 == policy.limit(TimedOut("late", phase="first_byte"))


def test_the_pages_second_recipe() -> None:
    """5 attempts, 1 s doubling to 32 s, up to 1 s of jitter; 429, 5xx and time limits."""
    policy = RetryPolicy.robust()
    failed = ServiceUnavailable("503")
    assert [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 32.5] == [
        policy.wait_s(n, failed, 0.5) for n in range(1, 8)
    ]
    for error in (failed, RateLimited("429"), TimedOut("408")):
        assert 5 == policy.limit(error)


def test_off_is_one_attempt() -> None:
    """Nothing is tried again."""
    assert 1 == RetryPolicy.off().limit(RateLimited("429"))
    assert 1 == RetryPolicy.off().limit(ServiceUnavailable("503"))


@given(
    attempt=st.integers(1, 10_000),
    draw=st.floats(0, 1, exclude_max=True),
    limited=st.booleans(),
)
def test_full_jitter_stays_below_the_cap(attempt: int, draw: float, limited: bool) -> None:  # noqa: FBT001  # hypothesis passes it by name
    """`draw * min(cap_s, base_s * 2 ** (attempt - 1))`, for every attempt."""
    error = RateLimited("429") if limited else ServiceUnavailable("503")
    base_s = 1.0 if limited else 0.5
    wait_s = DEFAULT.wait_s(attempt, error, draw)
    assert wait_s is not None
    assert 0 <= wait_s <= 20
    assert pytest.approx(draw * min(20.0, base_s * 2.0 ** min(attempt - 1, 60))) == wait_s


@given(asked_s=st.floats(0, 60), draw=st.floats(0, 1, exclude_max=True))
def test_what_the_vendor_asks_for_is_kept(asked_s: float, draw: float) -> None:
    """Never less than asked, at most 10 % more (R-19)."""
    wait_s = DEFAULT.wait_s(1, RateLimited("429", retry_after_s=asked_s), draw)
    assert wait_s is not None
    assert asked_s <= wait_s <= asked_s * 1.1


@pytest.mark.parametrize("asked_s", [60.001, 3600.0, 1e9])
def test_a_huge_wait_is_not_granted(asked_s: float) -> None:
    """Beyond 60 s the error is raised at once (R-20; fault matrix, row 33e)."""
    assert DEFAULT.wait_s(1, RateLimited("429", retry_after_s=asked_s), 0.5) is None


def test_a_name_is_looked_up_again_at_once() -> None:
    """Once fast, then with the usual waits (fault matrix, row 2)."""
    error = Unreachable("no address", phase="dns")
    assert (DEFAULT.wait_s(1, error, 0.5) or 0) < 0.05
    assert 0.5 == DEFAULT.wait_s(2, error, 0.5)


def test_a_new_key_is_tried_at_once() -> None:
    """Fault matrix, row 37."""
    assert 0.0 == DEFAULT.wait_s(1, InvalidAPIKey("401", retryable=True), 0.5)


def test_attempts_count_from_one() -> None:
    """A caller's mistake is a ValueError."""
    with pytest.raises(ValueError, match="from 1"):
        DEFAULT.wait_s(0, ServiceUnavailable("503"), 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"attempts": 0},
        {"attempts": True},
        {"rate_limit_attempts": 1.5},
        {"base_s": 0},
        {"cap_s": -1},
        {"cap_s": float("nan")},
        {"retry_after_cap_s": "60"},
        {"jitter_s": -0.1},
    ],
    ids=str,
)
def test_a_policy_out_of_range_is_refused(changes: dict[str, float]) -> None:
    """The message names the field."""
    with pytest.raises(ConfigInvalid, match=next(iter(changes))):
        RetryPolicy(**changes)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("changes", [{"reserve": -1}, {"per_call": 2}, {"per_success": -1}])
def test_a_quota_out_of_range_is_refused(changes: dict[str, float]) -> None:
    """The message names what holds."""
    with pytest.raises(ConfigInvalid, match="quota"):
        RetryQuota(**changes)


def test_a_quota_is_spent_and_earned() -> None:
    """A call earns a tenth, a success one and what its retries took."""
    tokens = Tokens(RetryQuota(reserve=2))
    assert (True, True, False) == (tokens.take(), tokens.take(), tokens.take())
    for _ in range(10):
        tokens.begin()
    assert pytest.approx(1.0) == tokens.left
    tokens.succeed(1)
    assert 2.0 == tokens.left
    assert tokens.take()
    tokens.give_back()
    assert 2.0 == tokens.left


def test_without_a_quota_there_is_no_limit() -> None:
    """None means: as often as the policy says."""
    tokens = Tokens(None)
    tokens.begin()
    tokens.succeed(0)
    tokens.give_back()
    assert all(tokens.take() for _ in range(1000))


@given(
    st.lists(st.sampled_from(["begin", "take", "give", "succeed"]), max_size=200),
    st.integers(0, 20),
)
def test_tokens_stay_between_nothing_and_the_reserve(steps: list[str], reserve: int) -> None:
    """Whatever happens in whatever order."""
    tokens = Tokens(RetryQuota(reserve=reserve))
    for step in steps:
        match step:
            case "begin":
                tokens.begin()
            case "take":
                tokens.take()
            case "give":
                tokens.give_back()
            case _:
                tokens.succeed(1)
        assert 0 <= tokens.left <= reserve
