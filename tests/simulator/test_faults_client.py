"""Faults as our own client meets them: one attempt, and the class of the row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from loom import AsyncMistral
from loom.core.errors import ERROR_TABLE, LoomError, StreamTruncated
from loom.core.request import Timeouts
from loom.core.response import LLMResponse
from loom.server.simulator import Simulator
from loom.server.simulator.faults import fault_table

MODEL = "mistral-small-latest"
PROMPT = "Explain looms in thirty words"
# What waits for time waits for the client's limits: short ones.
HASTY = Timeouts(connect_s=5, write_s=5, first_byte_s=0.2, idle_s=0.2, total_s=20)
PATIENT = Timeouts()
SLOW = ("7-unread", "8-no-headers", "10-stall-body", "14-stall", "25-comments-only")
# As they come they only delay: the settings let the answer come at once.
QUICK = {
    "25-comments-only": "25-comments-only;seconds=0.05",
    "26-gzip-bomb": "26-gzip-bomb",
    "toxic-bandwidth": "toxic-bandwidth:10000000",
    "toxic-latency": "toxic-latency:0",
    "toxic-slow_close": "toxic-slow_close:0",
}
ROWS = fault_table().rows


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    with Simulator() as running:
        yield running


async def attempt(
    simulator: Simulator, fault: str, *, stream: bool, timeouts: Timeouts = PATIENT
) -> LLMResponse:
    async with AsyncMistral(
        simulator.api_key,
        base_url=simulator.base_url,
        model=MODEL,
        timeouts=timeouts,
        retry=None,
        headers={"x-loom-fault": fault},
    ) as client:
        if not stream:
            return await client.chat(PROMPT)
        events = client.stream(PROMPT)
        async for _ in events:
            pass
        return await events.final()


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
async def test_a_fault_raises_what_its_row_says(
    simulator: Simulator, row: Any, *, stream: bool
) -> None:
    """The error's code and its class; or an answer, where the fault leaves one whole."""
    expected = row.raises if stream or row.plain is None else row.plain
    hasty = row.id in SLOW or row.id == "toxic-timeout"
    asking = attempt(
        simulator,
        QUICK.get(row.id, row.id),
        stream=stream,
        timeouts=HASTY if hasty else PATIENT,
    )

    if not expected:
        assert (await asking).choices
        return
    with pytest.raises(LoomError) as raised:
        await asking

    assert expected == raised.value.code
    assert ERROR_TABLE[expected] == raised.value.row()
    assert "mistral" == raised.value.provider


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        ("33-retry-after:2", 2.0),
        ("33b-date:5", 5.0),
        ("33b-date:-5", 0.0),
        ("33c-ms:1500", 1.5),
        ("33d-429", None),
        ("33e-negative", None),
        ("33e-nan", None),
        ("33e-text", None),
        ("33e-huge", 1e9),
        ("33e-two", None),
    ],
)
async def test_the_wait_that_is_asked_for_is_in_the_error(
    simulator: Simulator, fault: str, waits: float | None
) -> None:
    """Seconds, dates and milliseconds; None where nothing sensible was asked."""
    with pytest.raises(LoomError) as raised:
        await attempt(simulator, fault, stream=False)

    assert waits == raised.value.retry_after_s


@pytest.mark.anyio
async def test_what_came_before_a_cut_is_in_the_error(simulator: Simulator) -> None:
    """`partial` holds the words of the events before it."""
    whole = await attempt(simulator, "17-no-done", stream=True)
    for fault in ("15-reset", "15-close", "16-clean-end"):
        with pytest.raises(StreamTruncated) as raised:
            await attempt(simulator, f"{fault}:4", stream=True)

        assert raised.value.partial is not None
        # The first event opens the answer without a word.
        assert 3 == len(raised.value.partial.text.split())
        assert whole.content.startswith(raised.value.partial.text)


@pytest.mark.anyio
async def test_odd_answers_are_kept_as_they_are(simulator: Simulator) -> None:
    """An unknown finish reason, another model's name, a second choice."""
    for stream in (True, False):
        paused = await attempt(simulator, "45-finish-reason", stream=stream)
        other = await attempt(simulator, "50-model", stream=stream)
        second = await attempt(simulator, "49-choices", stream=stream)

        assert "paused" == paused.finish_reason
        assert "mistral-small-2603" == other.model
        assert [0, 1] == [choice.index for choice in second.choices]


@pytest.mark.anyio
async def test_usage_that_is_none_is_estimated(simulator: Simulator) -> None:
    """Missing is not zero, and zero is not missing."""
    for stream in (True, False):
        missing = await attempt(simulator, "46-usage-missing", stream=stream)
        zero = await attempt(simulator, "46-usage-zero", stream=stream)

        assert missing.usage.estimated
        assert missing.usage.total_tokens > 0
        assert (0, False) == (zero.usage.total_tokens, zero.usage.estimated)
