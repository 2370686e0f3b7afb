"""Requests, responses and cards: plain values, in which None is unknown and 0 is zero."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from loom.core.messages import Message, TextPart, ThinkingPart, ToolCall
from loom.core.model import ModelCard, Price
from loom.core.request import ChatRequest, ResponseFormat, Sampling, Timeouts, ToolSpec
from loom.core.response import Choice, LLMResponse, Partial, RateLimitState, Usage
from loom.core.version import VERSION

CALL = ToolCall("a", "now")
FIRST = Message.assistant((ThinkingPart((TextPart("hm"),)), TextPart("Hello")), tool_calls=(CALL,))
RESPONSE = LLMResponse(
    choices=(
        Choice(message=FIRST, finish_reason="tool_calls"),
        Choice(index=1, message=Message.assistant("Other"), finish_reason="stop"),
    ),
    usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7, cost_usd=Decimal("0.000007")),
    model="mistral-small-latest",
)


def test_short_ways_mean_the_first_answer() -> None:
    """What a response says of itself is what its first choice says."""
    assert FIRST is RESPONSE.message
    assert ("Hello", "hm", (CALL,), "tool_calls") == (
        RESPONSE.content,
        RESPONSE.thinking,
        RESPONSE.tool_calls,
        RESPONSE.finish_reason,
    )


def test_raw_is_the_vendors_body() -> None:
    """The body is there with the fields that no value here has; None if it was not kept."""
    assert RESPONSE.raw is None
    kept = msgspec.structs.replace(RESPONSE, raw_body=b'{"new_field": [1]}')
    assert {"new_field": [1]} == kept.raw


def test_unknown_is_none_and_never_zero() -> None:
    """What a vendor did not say stays None: money, limits, times."""
    assert Usage().cost_usd is None
    assert {None} == {
        value
        for name, value in msgspec.structs.asdict(RateLimitState()).items()
        if name != "headers"
    }
    assert (None, None, None) == (RESPONSE.created, RESPONSE.request_id, RESPONSE.parsed)
    assert (None, None) == (ModelCard(id="x").price, ModelCard(id="x").context_window)


def test_nothing_is_sent_that_was_not_given() -> None:
    """All sampling is open by default; a temperature of 0 is not open."""
    assert {None} == set(msgspec.structs.asdict(Sampling()).values())
    assert Sampling(temperature=0.0) != Sampling()


def test_timeouts_of_the_contract() -> None:
    """The phases have the limits that the documents promise, in seconds."""
    assert {
        "pool_s": 10.0,
        "connect_s": 5.0,
        "write_s": 30.0,
        "first_byte_s": 60.0,
        "idle_s": 30.0,
        "total_s": 600.0,
        "first_token_s": None,
    } == msgspec.structs.asdict(Timeouts())


def test_batch_is_half_price() -> None:
    """A price row knows what batches and the priority tier pay, in decimals."""
    price = Price(id="x@2026-01-01", input_usd_per_mtok=Decimal("0.15"))
    assert (Decimal("0.5"), Decimal("1.75")) == (price.batch_factor, price.priority_factor)


VALUES: list[Any] = [
    ChatRequest(model="m", messages=(Message.user("Hi"),), tools=(ToolSpec(name="now"),)),
    ResponseFormat(type="json_schema", name="P", schema={"type": "object"}),
    RESPONSE,
    Partial(text="so far", tool_calls=(CALL,)),
    Price(id="x", usd_per_page=Decimal("0.001"), valid_from=date(2026, 1, 1)),
    ModelCard(id="x", abilities=frozenset({"chat"})),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_and_equal_by_content(value: Any) -> None:
    """A value cannot be changed, only replaced; a replaced copy is equal."""
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)
    assert value == msgspec.structs.replace(value)


def test_version_has_three_numbers() -> None:
    """The version is that of a release."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
