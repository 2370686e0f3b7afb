"""What a key allows: names, patterns, limits, and requests that are held to them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import ConfigInvalid, InvalidRequest, PermissionDenied
from loom.core.messages import Message
from loom.core.request import ChatRequest, Sampling
from loom.layers.limit_rate import RateLimit
from loom.ledger.budgets import Budget
from loom.server.gateway.keys import (
    ADMIN,
    ANYONE,
    KeyTerms,
    VirtualKey,
    allows,
    check_model,
    check_name,
    check_request,
    open_door,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
PATTERN = st.text("abz019._:/@+*?-", min_size=1, max_size=40)


def key(**terms: Any) -> VirtualKey:
    """Give a key with these terms."""
    return VirtualKey(
        **terms, id="key_0123456789abcdef", name="team-a", hash=b"h" * 32, created_at=NOW
    )


def asked(model: str = "mistral-small-latest", **fields: Any) -> ChatRequest:
    """Give a request."""
    return ChatRequest(model=model, messages=(Message.user("hi"),), **fields)


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("mistral-*", "mistral-small-latest", True),
        ("mistral-*", "mistral-", True),
        ("mistral-*", "open-mistral-nemo", False),
        ("mistral-*", "Mistral-small", False),
        ("mistral-*", "mistral:mistral-small", False),
        ("*-latest", "codestral-latest", True),
        ("*-latest", "codestral-latest\n", False),
        ("codestral-25??", "codestral-2501", True),
        ("codestral-25??", "codestral-25011", False),
        ("openai:*", "openai:gpt-4.1", True),
        ("gpt-4.1", "gpt-4x1", False),
        ("*", "anything at all", True),
        ("*", "", True),
        ("a.b+c", "a.b+c", True),
    ],
)
def test_patterns(pattern: str, model: str, fits: bool) -> None:  # noqa: FBT001 - a column
    """A star is any text, a question mark one character, all else is itself."""
    assert fits == allows(key(models=(pattern,)), model)


def test_a_key_without_patterns_may_ask_every_model() -> None:
    """No list is no limit, and one pattern of several is enough."""
    assert allows(key(), "whatever")
    assert allows(key(models=("a", "b*")), "bee")
    assert not allows(key(models=("a", "b*")), "ab")


@given(PATTERN, st.text(max_size=40))
def test_a_pattern_means_what_it_says(pattern: str, model: str) -> None:
    """The same as a plain regular expression made of it."""
    plain = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    expected = re.fullmatch(plain, model, re.DOTALL) is not None
    assert expected == allows(key(models=(pattern,)), model)


@given(PATTERN)
def test_a_pattern_fits_what_it_was_made_for(pattern: str) -> None:
    """With its stars and question marks filled in."""
    assert allows(key(models=(pattern,)), pattern.replace("*", "x-y").replace("?", "7"))


def test_a_pattern_of_many_stars_is_no_trap() -> None:
    """It is tried in one go, not in every way."""
    assert not allows(key(models=("*a" * 60,)), "a" * 59 + "b" * 4000)


@given(st.text(max_size=12))
def test_odd_patterns_are_refused(text: str) -> None:
    """Brackets, blanks, quotation marks and control characters are in none."""
    if re.fullmatch(r"[A-Za-z0-9._:/@+*?-]+", text):
        assert (text,) == key(models=(text,)).models
    else:
        with pytest.raises(ConfigInvalid, match="no pattern of models"):
            key(models=(text,))


@given(st.text("abZ09._@+-", min_size=1, max_size=64))
def test_names(name: str) -> None:
    """Letters, digits and a few marks, a letter or digit first."""
    if name[0] in "._@+-":
        with pytest.raises(ConfigInvalid, match="no name for a key"):
            check_name(name)
    else:
        assert name == check_name(name)


@given(st.text(max_size=70))
def test_a_name_is_safe_wherever_it_stands(name: str) -> None:
    """What passes needs no quoting in a header, a log or a label."""
    try:
        check_name(name)
    except ConfigInvalid:
        return
    assert re.fullmatch(r"[A-Za-z0-9._@+-]{1,64}", name)


@pytest.mark.parametrize("name", ["admin", "Anyone", "key_1", "a" * 65, "", "two words", "a\n"])
def test_names_that_are_none(name: str) -> None:
    """The gateway's own, what looks like an id, and what is too long."""
    with pytest.raises(ConfigInvalid, match="name"):
        check_name(name)


@pytest.mark.parametrize("text", ["loom_sk_12345", " LOOM_SK_12345", "x loom_sk_12345"])
def test_a_key_that_was_given_as_a_name_is_not_shown(text: str) -> None:
    """Somebody mixed up the arguments; the error must not end up in a log with it."""
    with pytest.raises(ConfigInvalid) as caught:
        check_name(text)
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize("name", ["rpm", "tpm", "max_tokens", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "60"])
def test_counts_are_whole_numbers(name: str, value: object) -> None:
    """At least 1; a limit of nothing would be a revoked key."""
    with pytest.raises(ConfigInvalid, match=f"a key's {name} is"):
        key(**{name: value})


def test_other_terms_that_make_no_sense() -> None:
    """A time without a zone, and a list that nobody can read."""
    with pytest.raises(ConfigInvalid, match="time zone"):
        key(expires_at=datetime(2027, 1, 1))  # noqa: DTZ001 - what is refused
    with pytest.raises(ConfigInvalid, match="at most 100 patterns"):
        key(models=("a",) * 101)


@pytest.mark.parametrize(
    "terms",
    [
        {"models": ("loom_sk_12345",)},
        {"tags": {"a": "LOOM_SK_12345"}},
        {"tags": {"loom_sk_12": ""}},
    ],
)
def test_a_key_that_was_given_as_a_term_is_not_kept(terms: dict[str, Any]) -> None:
    """Somebody mixed up the options; it would stand in the file in clear."""
    with pytest.raises(ConfigInvalid, match="begins like a key") as caught:
        key(**terms)
    assert "12345" not in str(caught.value)


def test_a_budget_is_that_of_the_key() -> None:
    """Whatever it was made for, its sum is that of the tenant, and the tenant is the key."""
    terms = KeyTerms(budget=Budget(limit_usd="20", period="month", per="client"))
    assert Budget(limit_usd=Decimal(20), period="month", per="tenant") == terms.budget


def test_limits_are_those_of_the_limiter() -> None:
    """Requests, tokens and concurrency, or nothing to keep."""
    expected = RateLimit(requests_per_minute=60, tokens_per_minute=100_000, concurrency=2)
    assert expected == key(rpm=60, tpm=100_000, concurrency=2).rate_limit
    assert key(max_tokens=5).rate_limit is None


def test_states() -> None:
    """It expires at the very moment, and who is revoked is not merely expired."""
    later = NOW.replace(hour=13)
    assert "active" == key(expires_at=later).state(NOW)
    assert "expired" == key(expires_at=NOW).state(NOW)
    gone = msgspec.structs.replace(key(expires_at=NOW), revoked_at=NOW)
    assert "revoked" == gone.state(NOW)


def test_a_model_that_is_not_allowed_is_forbidden_and_not_missing() -> None:
    """403 with what the key may ask: nobody shall look for a typo."""
    with pytest.raises(
        PermissionDenied, match=r"'team-a' may not ask the model 'gpt-4\.1'"
    ) as caught:
        check_model(key(models=("mistral-*", "codestral-*")), "gpt-4.1")
    assert 403 == caught.value.http_status
    assert "It may ask mistral-*, codestral-*" in caught.value.hint
    with pytest.raises(PermissionDenied):
        check_request(key(models=("a",)), asked("b"))


def test_a_long_name_of_a_model_is_cut() -> None:
    """What a caller sends comes back in part at most."""
    with pytest.raises(PermissionDenied) as caught:
        check_model(key(models=("a",)), "x" * 100_000)
    assert len(str(caught.value)) < 300


def test_nothing_to_hold_leaves_the_request_alone() -> None:
    """The same object: whoever relays the caller's own bytes may go on."""
    plain, short = asked(), asked(sampling=Sampling(max_tokens=10))
    assert check_request(key(), plain) is plain
    assert check_request(key(max_tokens=10), short) is short


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ({}, 100),
        ({"n": 1}, 100),
        ({"n": 3}, 33),
        ({"n": 100}, 1),
        ({"max_tokens": 100}, 100),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 50, "n": 2}, 50),
        ({"max_tokens": 0}, 0),
    ],
)
def test_the_longest_answer_is_put_in_where_none_is_named(said: dict[str, Any], sent: int) -> None:
    """All choices together have what one has alone; what was said stays."""
    held = check_request(key(max_tokens=100), asked(sampling=Sampling(**said)))
    assert sent == held.sampling.max_tokens


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ({"max_tokens": 101}, "101 max_tokens: the key 'team-a' has at most 100"),
        ({"max_tokens": 51, "n": 2}, "51 max_tokens for each of 2 answers"),
        ({"n": 101}, "no max_tokens for each of 101 answers"),
    ],
)
def test_a_longer_answer_is_refused(said: dict[str, Any], part: str) -> None:
    """It is not cut in silence: both numbers are said."""
    with pytest.raises(InvalidRequest, match=part) as caught:
        check_request(key(max_tokens=100), asked(sampling=Sampling(**said)))
    assert 400 == caught.value.http_status


@pytest.mark.parametrize("name", ["model", "n", "max_tokens", "max_completion_tokens"])
def test_a_limit_cannot_be_passed_by_the_side_door(name: str) -> None:
    """A field beside the request that would overwrite what was checked is refused."""
    with pytest.raises(InvalidRequest, match=f"'{name}' may not be said twice"):
        check_request(key(models=("mistral-*",), max_tokens=5), asked(extra={name: 1}))


@given(st.integers(1, 10_000), st.one_of(st.none(), st.integers(0, 10_000)), st.integers(1, 50))
def test_no_request_passes_the_longest_answer(cap: int, wanted: int | None, n: int) -> None:
    """Whatever is asked: refused, or at most that."""
    try:
        held = check_request(key(max_tokens=cap), asked(sampling=Sampling(max_tokens=wanted, n=n)))
    except InvalidRequest:
        return
    assert held.sampling.max_tokens is not None
    assert held.sampling.max_tokens * n <= cap


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),  # noqa: S104 - what must not be open
        ("::", False),
        ("192.168.1.5", False),
        ("::ffff:10.0.0.1", False),
        ("gateway.example", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_the_door(host: str, is_open: bool) -> None:  # noqa: FBT001 - a column
    """Without keys on this machine alone; with any key, even a revoked one, never."""
    gone = msgspec.structs.replace(key(), revoked_at=NOW)
    assert is_open == open_door(host, ())
    assert not open_door(host, (key(),))
    assert not open_door(host, (gone,))


def test_the_gateways_own_keys() -> None:
    """They have no limit, and only one of them may do everything."""
    assert ADMIN.is_admin
    assert not ANYONE.is_admin
    assert not key().is_admin
    assert KeyTerms() == KeyTerms(**{f: getattr(ADMIN, f) for f in KeyTerms.__struct_fields__})
