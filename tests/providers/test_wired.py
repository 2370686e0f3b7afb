"""The one request loop: what is sent, what comes out, what is given back."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from loom.core.errors import (
    InvalidAPIKey,
    LoomError,
    MalformedReply,
    RateLimited,
    StreamStalled,
    StreamTruncated,
    TimedOut,
    Unreachable,
)
from loom.core.events import Completed, Finished, Sending, TextDelta, UsageReported
from loom.core.messages import Message
from loom.core.request import ChatRequest, Sampling, Timeouts
from loom.core.secret import Secret
from loom.providers.key import Key
from loom.providers.wired import Endpoint, WiredProvider
from loom.testing import FakeClock, FakeReply, FakeTransport, cancel_everywhere
from loom.transport.contract import HttpReply
from loom.wire.mistral.dialect import MistralDialect

pytestmark = pytest.mark.anyio

KEY = "canary-not-a-real-key"
ASK = ChatRequest(model="m", messages=(Message.user("Hello"),))
ASK_STREAM = ChatRequest(model="m", messages=(Message.user("Hello"),), stream=True)
WHOLE = (
    b'{"id":"a","model":"m","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7},'
    b'"choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hi"}}]}'
)
TEXT = b'data: {"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
FINISH = (
    b'data: {"id":"a","model":"m","choices":[{"index":0,"delta":{"content":""},'
    b'"finish_reason":"stop"}]'
)
LAST = FINISH + b',"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"


def wired(*replies: FakeReply | Exception) -> tuple[WiredProvider, FakeTransport]:
    transport = FakeTransport(*replies)
    endpoint = Endpoint(
        name="mistral",
        url="https://x/v1/chat/completions",
        headers={"authorization": Secret(f"Bearer {KEY}"), "x-team": "blue"},
    )
    return WiredProvider(endpoint, "m", MistralDialect(), transport, FakeClock()), transport


async def events_of(provider: WiredProvider, request: ChatRequest = ASK_STREAM) -> list[Any]:
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


async def test_a_plain_answer_is_a_stream_of_one_event() -> None:
    """`Sending`, then `Completed` with provider, latency and tokens."""
    provider, transport = wired(FakeReply.of(WHOLE))
    sending, completed = await events_of(provider, ASK)
    assert Sending(1) == sending
    assert isinstance(completed, Completed)
    assert "Hi" == completed.response.content
    assert {"provider": "mistral"} == completed.response.metadata
    sent = transport.requests[0]
    assert "application/json" == sent.headers["accept"]
    assert "blue" == sent.headers["x-team"]
    assert str(sent.headers["user-agent"]).startswith("looms/")
    assert KEY not in repr(sent)


async def test_a_stream_hands_on_events_as_they_come() -> None:
    """Text first, the whole answer last; the socket is back before the caller has it."""
    provider, transport = wired(FakeReply.sse(TEXT, LAST + DONE))
    async with aclosing(provider.stream(ASK_STREAM)) as events:
        seen: list[Any] = []
        async for event in events:
            seen.append(event)
            if isinstance(event, Completed):
                assert 0 == transport.in_use
    assert TextDelta("Hi") == seen[1]
    assert "Hi" == seen[-1].response.content


async def test_an_answer_whose_sentinel_never_comes_ends_at_once() -> None:
    """Finish reason and usage end the answer: what would follow is not waited for."""
    trouble = Unreachable("gone", phase="reset")
    provider, transport = wired(FakeReply.sse(TEXT, LAST, trouble))
    assert "Hi" == (await events_of(provider))[-1].response.content
    assert 0 == transport.in_use


@pytest.mark.parametrize(
    "trouble", [Unreachable("gone", phase="reset"), TimedOut("late", phase="idle")]
)
async def test_a_break_behind_the_finish_reason_is_no_error(trouble: LoomError) -> None:
    """The answer is whole; only its usage is missing, and it is estimated."""
    provider, _ = wired(FakeReply.sse(TEXT, FINISH + b"}\n\n", trouble))
    response = (await events_of(provider))[-1].response
    assert "Hi" == response.content
    assert response.usage.estimated
    assert response.usage.input_tokens > 0


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (Unreachable("gone", phase="reset"), StreamTruncated),
        (TimedOut("late", phase="idle"), StreamStalled),
        (TimedOut("late", phase="total"), TimedOut),
    ],
)
async def test_a_break_in_the_middle_keeps_what_came(
    trouble: LoomError, kind: type[LoomError]
) -> None:
    """The error says how it ended, and holds the text so far; nothing is to be sent again."""
    provider, transport = wired(FakeReply.sse(TEXT, trouble))
    with pytest.raises(kind) as caught:
        await events_of(provider)
    assert caught.value.partial is not None
    assert "Hi" == caught.value.partial.text
    assert not caught.value.retryable
    assert ("mistral", "m") == (caught.value.provider, caught.value.model)
    assert 0 == transport.in_use


async def test_a_break_before_the_first_event_may_be_retried() -> None:
    """Nothing was handed on, so the same request may be sent again."""
    provider, _ = wired(FakeReply.sse(Unreachable("gone", phase="reset")))
    with pytest.raises(StreamTruncated) as caught:
        await events_of(provider)
    assert caught.value.retryable


async def test_a_clean_end_without_a_finish_reason_is_truncated() -> None:
    """A stream that just ends is not taken as complete."""
    provider, _ = wired(FakeReply.sse(TEXT))
    with pytest.raises(StreamTruncated):
        await events_of(provider)


async def test_comments_for_ever_are_no_progress() -> None:
    """Keep-alive comments do not hold a stalled stream open."""

    class Racing(FakeClock):
        def monotonic_s(self) -> float:
            self.advance(1)
            return super().monotonic_s()

    transport = FakeTransport(FakeReply.sse(TEXT, *[b": ping\n\n"] * 50))
    endpoint = Endpoint(name="mistral", url="https://x/v1")
    provider = WiredProvider(endpoint, "m", MistralDialect(), transport, Racing())
    with pytest.raises(StreamStalled, match="only comments") as caught:
        await events_of(provider)
    assert "Hi" == (caught.value.partial.text if caught.value.partial else "")


async def test_an_error_status_is_the_vendors_error() -> None:
    """Status and body decide the class; streams alike."""
    provider, transport = wired(FakeReply.of(b'{"detail":"Invalid API Key"}', status=401))
    for request in (ASK, ASK_STREAM):
        with pytest.raises(InvalidAPIKey, match=r"Mistral API error \(401\): Invalid API Key"):
            await events_of(provider, request)
    assert 0 == transport.in_use


async def test_a_key_that_the_vendor_echoes_is_taken_out() -> None:
    """No error shows the key, whatever the vendor writes."""
    body = b'{"message":"no access for ' + KEY.encode() + b'"}'
    provider, _ = wired(FakeReply.of(body, status=429))
    with pytest.raises(RateLimited) as caught:
        await events_of(provider, ASK)
    assert KEY not in f"{caught.value!r} {caught.value} {vars(caught.value)}"
    assert "***" in str(caught.value)


@pytest.mark.parametrize("request_", [ASK, ASK_STREAM])
async def test_a_web_page_is_no_answer(request_: ChatRequest) -> None:
    """A 200 with HTML says to check the base URL."""
    page = FakeReply(headers={"content-type": "text/html"}, chunks=(b"<html></html>",))
    provider, _ = wired(page)
    with pytest.raises(MalformedReply, match="base_url"):
        await events_of(provider, request_)


async def test_an_empty_body_is_no_answer() -> None:
    """A 200 without a body is refused."""
    provider, _ = wired(FakeReply.of(b" "))
    with pytest.raises(MalformedReply, match="empty"):
        await events_of(provider, ASK)


async def test_json_in_reply_to_a_stream_request_is_one_event() -> None:
    """A relay that does not stream is understood."""
    provider, _ = wired(FakeReply.of(WHOLE))
    assert "Hi" == (await events_of(provider))[-1].response.content


async def test_repairs_of_the_history_are_told() -> None:
    """What was changed before sending stands in the response's metadata."""
    provider, _ = wired(FakeReply.of(WHOLE))
    said = (Message.user("a"), Message.assistant(""), Message.user("b"))
    response = await provider.chat(ChatRequest(model="m", messages=said))
    assert "messages[1]" in response.metadata["repairs"][0]


async def test_a_request_that_was_sent_twice_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept socket turned out to be closed: the answer tells of two attempts."""
    monkeypatch.setattr(HttpReply, "attempts", 2)
    provider, _ = wired(FakeReply.of(WHOLE))
    assert 2 == (await events_of(provider, ASK))[-1].response.attempts


async def test_all_answers_of_n_are_waited_for() -> None:
    """With n=2 the first finish reason does not end the stream."""
    second = LAST.replace(b'"index":0', b'"index":1')
    provider, _ = wired(FakeReply.sse(TEXT + FINISH + b"}\n\n", second))
    request = ChatRequest(
        model="m", messages=(Message.user("x"),), sampling=Sampling(n=2), stream=True
    )
    assert 2 == len((await events_of(provider, request))[-1].response.choices)


@pytest.mark.parametrize("request_", [ASK, ASK_STREAM])
async def test_cancelled_anywhere_nothing_leaks(request_: ChatRequest) -> None:
    """Cancelled at each suspension, once and twice, early and late: no socket is held."""
    reply = FakeReply.sse(TEXT, LAST, DONE) if request_.stream else FakeReply.of(WHOLE)
    provider, transport = wired(reply)
    survey = await cancel_everywhere(
        lambda: events_of(provider, request_), probes={"sockets": lambda: transport.in_use}
    )
    assert survey.suspensions > 1


@pytest.mark.parametrize(
    ("reply", "code", "charge", "retryable"),
    [
        (FakeReply.of(b"{}", status=500), "service_unavailable", "released", True),
        (FakeReply.of(b"{}", status=504), "service_unavailable", "unknown", True),
        (FakeReply.of(b"{}", status=408), "timeout", "unknown", True),
        (FakeReply.of(b"{}", status=429), "rate_limit_exceeded", "released", True),
        (FakeReply.of(b"{}", status=400), "invalid_request", "released", False),
        (FakeReply.of(b"not JSON"), "malformed_reply", "unknown", True),
        (Unreachable("refused", phase="connect"), "unreachable", "released", True),
        (Unreachable("reset", phase="reset", uncertain=True), "unreachable", "unknown", True),
        (TimedOut("late", phase="first_byte", uncertain=True), "timeout", "unknown", True),
        (MalformedReply("not HTTP"), "malformed_reply", "released", True),
        (MalformedReply("too long", uncertain=True), "malformed_reply", "unknown", True),
        (FakeReply.sse(TEXT, Unreachable("reset")), "stream_truncated", "estimated", False),
        (FakeReply.sse(TEXT), "stream_truncated", "estimated", False),
        (FakeReply.sse(Unreachable("reset")), "stream_truncated", "unknown", True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_failure_says_what_it_may_have_cost(
    reply: FakeReply | Exception, code: str, charge: str, *, retryable: bool
) -> None:
    """One attempt in the timeline, with the charge of the fault matrix."""
    provider, _ = wired(reply)
    with pytest.raises(LoomError) as caught:
        await events_of(provider)
    error = caught.value
    assert error.timeline is not None
    (attempt,) = error.timeline.attempts
    assert (code, code, charge) == (error.code, attempt.code, attempt.charge)
    assert (charge in ("unknown", "estimated")) == error.uncertain
    assert (retryable, "mistral", "m") == (error.retryable, attempt.provider, attempt.model)
    assert "https://x" == attempt.origin


async def test_what_came_before_the_framing_broke_is_kept() -> None:
    """The transport's own error has what was read so far (fault matrix, row 11)."""
    provider, _ = wired(FakeReply.sse(TEXT, MalformedReply("not HTTP")))
    with pytest.raises(MalformedReply) as caught:
        await events_of(provider)
    assert caught.value.partial is not None
    assert "Hi" == caught.value.partial.text


async def test_a_reply_that_breaks_late_counts_every_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that a stale socket lost was sent twice, whatever befell its reply."""
    monkeypatch.setattr(HttpReply, "attempts", 2)
    provider, _ = wired(FakeReply.of(b"not JSON"))
    with pytest.raises(MalformedReply) as caught:
        await events_of(provider, ASK)
    timeline = caught.value.timeline
    assert timeline is not None
    assert (2, 2) == (caught.value.attempts, timeline.sends)


async def test_the_other_kind_of_answer_is_read_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """JSON for a stream gives the stream's events, a stream for JSON its answer (row 31)."""
    provider, _ = wired(FakeReply.of(WHOLE), FakeReply.of(WHOLE))
    first, second = await events_of(provider), await events_of(provider)
    assert first[1:-1] == second[1:-1]
    assert [TextDelta, Finished, UsageReported] == [type(event) for event in first[1:-1]]
    told = "https://x answers with JSON where a stream was asked for"
    assert [told] == [record.getMessage() for record in caplog.records]

    other, _ = wired(FakeReply.sse(b": a comment\n\n", TEXT, LAST, DONE))
    assert "Hi" == (await other.chat(ASK)).content
    assert "https://x answers with a stream where JSON was asked for" == caplog.messages[-1]


async def test_an_answer_says_when_it_was_sent() -> None:
    """The timeline of an answer has its one attempt, and what was charged."""
    provider, _ = wired(FakeReply.of(WHOLE))
    response = await provider.chat(ASK)
    assert response.timeline is not None
    (attempt,) = response.timeline.attempts
    assert ("", 200, "settled", 1) == (
        attempt.code, attempt.status, attempt.charge, attempt.sends
    )  # fmt: skip
    counted, _ = wired(FakeReply.of(WHOLE.replace(b'"usage"', b'"other"')))
    timeline = (await counted.chat(ASK)).timeline
    assert timeline is not None
    assert "estimated" == timeline.attempts[0].charge


async def test_a_failed_call_can_be_repeated_by_hand() -> None:
    """The curl has the shape of the request, and neither key nor text."""
    provider, _ = wired(FakeReply.of(b"{}", status=500))
    with pytest.raises(LoomError) as caught:
        await events_of(provider)
    curl = caught.value.curl
    assert curl is not None
    assert curl.startswith("curl -sS -X POST https://x/v1/chat/completions")
    assert KEY not in curl
    assert "Hello" not in curl
    assert '"content":"(5 characters)"' in curl
    story = caught.value.explain(curl=True)
    assert "attempt 1: sent to mistral m at https://x" in story
    assert "service_unavailable; nothing is charged" in story
    assert curl in story
    assert curl not in caught.value.explain()


async def test_a_stream_that_says_nothing_is_left() -> None:
    """Comments come, no token does: after `first_token_s` the route is silent."""

    class Racing(FakeClock):
        def monotonic_s(self) -> float:
            self.advance(1)
            return super().monotonic_s()

    request = ChatRequest(
        model="m", messages=ASK.messages, stream=True, timeouts=Timeouts(first_token_s=12.0)
    )
    transport = FakeTransport(FakeReply.sse(*[b": ping\n\n"] * 50))
    endpoint = Endpoint(name="mistral", url="https://x/v1")
    provider = WiredProvider(endpoint, "m", MistralDialect(), transport, Racing())
    with pytest.raises(TimedOut, match=r"after 12\.0 s \(waiting for the first token\)") as caught:
        await events_of(provider, request)
    assert ("first_byte", True) == (caught.value.phase, caught.value.retryable)
    assert 12.0 == transport.requests[0].timeouts.first_byte_s


async def test_a_first_token_ends_its_limit() -> None:
    """Later pieces have `idle_s` alone."""

    class Late(FakeClock):
        def monotonic_s(self) -> float:
            self.advance(5)
            return super().monotonic_s()

    request = ChatRequest(
        model="m", messages=ASK.messages, stream=True, timeouts=Timeouts(first_token_s=60.0)
    )
    transport = FakeTransport(FakeReply.sse(TEXT, *[TEXT] * 30, LAST, DONE))
    endpoint = Endpoint(name="mistral", url="https://x/v1")
    provider = WiredProvider(endpoint, "m", MistralDialect(), transport, Late())
    assert isinstance((await events_of(provider, request))[-1], Completed)


async def test_a_bad_event_is_left_out_if_asked() -> None:
    """It is counted; without the option it is an error (fault matrix, rows 22 and 23)."""
    bad = (b"data: {not JSON\n\n", b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')
    provider, _ = wired(FakeReply.sse(TEXT, *bad, LAST, DONE))
    asked = ChatRequest(model="m", messages=ASK.messages, stream=True, skip_bad_events=True)
    response = (await events_of(provider, asked))[-1].response
    assert ("Hi", 2) == (response.content, response.metadata["skipped_events"])
    provider, _ = wired(FakeReply.sse(TEXT, *bad, LAST, DONE))
    with pytest.raises(MalformedReply) as caught:
        await events_of(provider)
    assert caught.value.partial is not None
    assert "Hi" == caught.value.partial.text


async def test_a_refused_key_is_looked_for_once_more() -> None:
    """With a new one the error may be tried again (fault matrix, row 37)."""
    for found, retryable in ((KEY, False), ("a-new-key", True)):
        key = Key(Secret(KEY), lambda found=found: Secret(found))  # type: ignore[misc]  # bound now
        endpoint = Endpoint(name="mistral", url="https://x/v1", key=key)
        transport = FakeTransport(FakeReply.of(b'{"detail":"no"}', status=401))
        provider = WiredProvider(endpoint, "m", MistralDialect(), transport, FakeClock())
        with pytest.raises(InvalidAPIKey) as caught:
            await events_of(provider, ASK)
        assert retryable == caught.value.retryable
        assert Secret(f"Bearer {KEY}") == transport.requests[0].headers["authorization"]
        assert found == key.secret.reveal()


async def test_a_deadline_goes_to_the_transport_on_its_clock() -> None:
    """What is left of the call is what the transport may take."""
    provider, transport = wired(FakeReply.of(WHOLE))
    now_s = FakeClock().monotonic_s()
    asked = ChatRequest(model="m", messages=ASK.messages, deadline_s=now_s + 7.0)
    loop_s = asyncio.get_running_loop().time()
    await provider.chat(asked)
    deadline_s = transport.requests[0].deadline_s
    assert deadline_s is not None
    assert pytest.approx(7.0, abs=0.5) == deadline_s - loop_s


async def test_closing_closes_the_transport() -> None:
    """A provider gives back its door."""
    provider, transport = wired(FakeReply.of(WHOLE))
    await provider.aclose()
    assert transport.shut
    assert ("mistral", "m") == (provider.name, provider.model)
