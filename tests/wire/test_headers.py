"""What headers say; garbage in them never fails a call."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.wire.headers import demands_retry, rate_limit_state, request_id, retry_after_s
from loom.wire.mistral.errors import decode_error_reply


def test_the_family_of_2026() -> None:
    """Tokens and requests a minute, and what this call was charged."""
    state = rate_limit_state(
        {
            "x-ratelimit-limit-tokens-minute": "100000",
            "x-ratelimit-remaining-tokens-minute": "97828",
            "x-ratelimit-tokens-query-cost": "97",
            "x-ratelimit-limit-req-minute": "100",
            "x-ratelimit-remaining-req-minute": "98",
        }
    )
    assert (100000, 97828) == (state.limit_tokens_minute, state.remaining_tokens_minute)
    assert (100, 98, 97) == (
        state.limit_requests_minute,
        state.remaining_requests_minute,
        state.query_cost_tokens,
    )
    assert "97" == state.headers["x-ratelimit-tokens-query-cost"]


def test_the_family_of_2025() -> None:
    """Months of tokens; ten-second limits are kept as they came."""
    state = rate_limit_state(
        {"x-ratelimit-limit-tokens-month": "10000000000", "x-ratelimit-limit-req-10-second": "60"}
    )
    assert 10_000_000_000 == state.limit_tokens_month
    assert "60" == state.headers["x-ratelimit-limit-req-10-second"]


def test_the_family_of_2024() -> None:
    """`ratelimitbysize`, with its reset in seconds."""
    state = rate_limit_state(
        {
            "ratelimitbysize-limit": "500000",
            "ratelimitbysize-remaining": "467999",
            "ratelimitbysize-reset": "38",
            "ratelimitbysize-query-cost": "32001",
            "x-ratelimitbysize-limit-month": "1000000000",
        }
    )
    assert (500000, 467999, 32001) == (
        state.limit_tokens_minute,
        state.remaining_tokens_minute,
        state.query_cost_tokens,
    )
    assert 38 == state.reset_s


NAMES = ("x-ratelimit-limit-req-minute", "retry-after", "retry-after-ms", "date")


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30)))
def test_garbage_is_nothing(headers: dict[str, str]) -> None:
    """No text in a header raises, and no wait is negative."""
    rate_limit_state(headers)
    waited = retry_after_s(headers)
    assert waited is None or waited >= 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1, 2"}, None),
        ({"retry-after": "1000000000"}, 1e9),
        (
            {
                "retry-after": "Mon, 23 Nov 2026 10:00:30 GMT",
                "date": "Mon, 23 Nov 2026 10:00:00 GMT",
            },
            30,
        ),
        (
            {
                "retry-after": "Mon, 23 Nov 2026 09:00:00 GMT",
                "date": "Mon, 23 Nov 2026 10:00:00 GMT",
            },
            0,
        ),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT"}, None),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, milliseconds, dates by the server's own clock; nonsense is none."""
    assert expected == retry_after_s(headers)


def test_a_date_without_the_servers_clock_uses_ours() -> None:
    """The caller's clock serves when the reply has no date."""
    now = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    assert 30 == retry_after_s({"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT"}, now)


def test_the_request_id_is_the_vendors() -> None:
    """Mistral's own header first, printable and short."""
    assert "a" == request_id({"mistral-correlation-id": "a", "x-kong-request-id": "b"})
    assert "b" == request_id({"x-kong-request-id": "b"})
    assert request_id({"x-request-id": "a\x00"}) is None
    assert 128 == len(request_id({"x-request-id": "a" * 500}) or "")


@pytest.mark.parametrize(
    ("value", "refused"), [("false", True), (" False ", True), ("true", False)]
)
def test_a_server_may_say_that_trying_again_is_no_use(value: str, *, refused: bool) -> None:
    """`x-should-retry: false` makes an error final, whatever its status."""
    error = decode_error_reply(503, {"x-should-retry": value}, b"{}")
    assert refused == (not error.retryable)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0), ("1s", 1.0), ("17ms", 0.017), ("8.64s", 8.64), ("1h2m3s", 3723.0),
        ("1d", 86_400.0), ("", None), ("soon", None), ("5", None),
    ],
)  # fmt: skip
def test_openais_resets_are_durations(text: str, seconds: float | None) -> None:
    """The later of requests and tokens counts; what is no duration counts as not said."""
    alone = rate_limit_state({"x-ratelimit-reset-tokens": text})
    assert seconds == alone.reset_s
    both = {"x-ratelimit-reset-tokens": text, "x-ratelimit-reset-requests": "1h"}
    assert max(3600.0, seconds or 0.0) == rate_limit_state(both).reset_s


def test_a_server_may_say_that_trying_again_helps() -> None:
    """`x-should-retry: true`, and nothing else."""
    assert demands_retry({"x-should-retry": " True "})
    assert not demands_retry({"x-should-retry": "false"})
    assert not demands_retry({})
