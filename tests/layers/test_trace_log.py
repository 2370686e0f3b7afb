"""The lines of a call in the log: the reference page's messages and fields, and no content."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest

from loom.core.errors import LoomError, RateLimited
from loom.core.events import Completed, Sending, StreamEvent, TextDelta
from loom.core.messages import Message, ToolCall
from loom.core.provider import fold
from loom.core.request import ChatRequest, ToolSpec
from loom.core.response import Choice, LLMResponse, Usage
from loom.layers.trace import Tracing
from loom.testing import FakeClock, Witness

pytestmark = pytest.mark.anyio

ASKED = ChatRequest(
    model="m",
    messages=(Message.system("words"), Message.user("words")),
    tools=(ToolSpec(name="t"),),
)
CALLS = (ToolCall("call1", "t", {"words": 1}), ToolCall("call2", "t", {"words": 2}))
ANSWER = LLMResponse(
    choices=(Choice(message=Message.assistant("words", tool_calls=CALLS), finish_reason="stop"),),
    usage=Usage(input_tokens=145, output_tokens=423, cost_usd=Decimal("0.005660")),
    model="m-2411",
    request_id="request-1",
)
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class Mistral(Witness):
    """A witness under the vendor's name, whose events take 1.234 s each."""

    def __init__(self, clock: FakeClock, *events: StreamEvent, **more: Any) -> None:
        super().__init__(events, **more)
        self._clock = clock

    @property
    def name(self) -> str:
        return "mistral"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                await self._clock.sleep(1.234)
                yield event


def tracing(*events: StreamEvent, **more: Any) -> Tracing:
    clock = FakeClock(auto=True)
    return Tracing(Mistral(clock, *events, **more), clock=clock)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _USUAL}


async def test_an_answer_is_two_lines_with_the_fields_of_the_reference_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Messages to the letter; the fields travel beside them."""
    caplog.set_level(logging.INFO, logger="loom.mistral")

    await tracing(Completed(ANSWER)).chat(ASKED)

    before, after = caplog.records
    assert ("Mistral request", "loom.mistral", "INFO") == (
        before.msg,
        before.name,
        before.levelname,
    )
    assert {"model": "m", "input_message_count": 2, "tools": 1, "stream": False} == fields(before)
    assert ("Mistral response", "INFO") == (after.msg, after.levelname)
    assert {
        "latency": "1.234s",
        "model": "m-2411",
        "input_tokens": 145,
        "output_tokens": 423,
        "cost_usd": Decimal("0.005660"),
        "tool_calls": 2,
        "finish_reason": "stop",
        "attempts": 1,
        "request_id": "request-1",
    } == fields(after)
    assert "words" not in str([vars(record) for record in caplog.records])


async def test_a_failure_is_a_warning_with_its_code(caplog: pytest.LogCaptureFixture) -> None:
    """Code, status, attempts and the request's id; the message stays with the error."""
    caplog.set_level(logging.INFO, logger="loom.mistral")
    error = RateLimited("words", attempts=5, request_id="request-9")

    with pytest.raises(RateLimited):
        await tracing(Sending(), TextDelta("words"), error=error, fail_at=1).chat(ASKED)

    _, line = caplog.records
    assert ("Mistral request failed", "WARNING") == (line.msg, line.levelname)
    assert {
        "latency": "1.234s",
        "model": "m",
        "code": "rate_limit_exceeded",
        "http_status": 429,
        "attempts": 5,
        "request_id": "request-9",
    } == fields(line)


async def test_a_call_that_is_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A reader that stops is told of at INFO."""
    caplog.set_level(logging.INFO, logger="loom.mistral")
    async with aclosing(tracing(Sending(2), TextDelta("words")).stream(ASKED)) as events:
        await anext(events)
    _, line = caplog.records
    assert ("Mistral request ended early", "INFO") == (line.msg, line.levelname)
    expected = {"latency": "1.234s", "model": "m", "code": "abandoned", "attempts": 2}
    assert expected == fields(line)


async def test_an_answer_without_choices_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    """A foreign provider may give one; the log is not what fails then."""
    caplog.set_level(logging.INFO, logger="loom.mistral")
    empty = LLMResponse(choices=(), usage=Usage(), model="m")
    await fold(tracing(Completed(empty)).stream(ASKED))
    assert (0, None) == (
        fields(caplog.records[1])["tool_calls"],
        caplog.records[1].__dict__["finish_reason"],
    )


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
async def test_a_log_at_warning_hears_nothing(caplog: pytest.LogCaptureFixture, level: int) -> None:
    """The layer stands aside: the error itself is with the caller."""
    caplog.set_level(level, logger="loom.mistral")
    with pytest.raises(LoomError):
        await tracing(Sending(), error=RateLimited("no")).chat(ASKED)
    assert [] == caplog.records


def test_a_plain_program_sees_retries_once_and_no_lines_of_calls() -> None:
    """Python's handler of last resort shows warnings; the library installs none of its own."""
    program = """
from loom import Mistral, RetryPolicy
from loom.testing import FakeClock, simulator

with simulator() as sim:
    client = Mistral(
        sim.api_key,
        base_url=sim.base_url,
        headers={"x-loom-fault": "503;times=1"},
        clock=FakeClock(auto=True),
        retry=RetryPolicy(),
    )
    with client as m:
        assert m.chat("Hello").attempts == 2
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (0, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert "Request failed (attempt 1/" in done.stderr
