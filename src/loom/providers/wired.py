"""
A provider = an endpoint, a dialect and a transport. The one request loop for all vendors.

What was sent and received is decided here; what it means is the dialect's business, and how
it travels the transport's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import (
    InvalidAPIKey,
    LoomError,
    MalformedReply,
    StreamStalled,
    StreamTruncated,
    TimedOut,
    Unreachable,
)
from loom.core.events import Completed, Sending, StreamEvent
from loom.core.plan import BYTES_PER_TOKEN
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Timeouts
from loom.core.response import LLMResponse, Usage
from loom.core.secret import Secret
from loom.core.timeline import Charge
from loom.core.version import VERSION
from loom.providers.curl import redacted_curl
from loom.providers.key import Key
from loom.providers.quoted import clean_error
from loom.providers.trip import Trip
from loom.providers.whole import events_of
from loom.transport.contract import HttpReply, HttpRequest, Transport
from loom.wire.dialect import ChatDecoder, Dialect
from loom.wire.encoded import EncodedRequest
from loom.wire.relay import RelayDecoder

__all__ = ["Endpoint", "WiredProvider"]

_log = logging.getLogger("loom.provider")

# How long to wait for usage after the last finish reason.
#
# Mistral sends both in one chunk (121 of 121 recorded streams); OpenAI's family sends usage in
# the next one, at once. Without it the answer is whole and its tokens are estimated.
_USAGE_GRACE_S = 2.0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a vendor is and who we are there.

    Attributes:
        name: The vendor, for example "mistral".
        url: The absolute address of chat completions.
        headers: Sent with each request.
        key: Sent as the bearer token; None: no key is sent.
    """

    name: str
    url: str
    headers: Mapping[str, str | Secret] = {}
    key: Key | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return "/".join(self.url.split("/", 3)[:3])

    @property
    def scope(self) -> tuple[str, str]:
        """Origin and fingerprint of the key: who is asked, and as whom."""
        return self.origin, "" if self.key is None else self.key.fingerprint


class WiredProvider(LLMProvider):
    """
    Asks a vendor over a transport, in its dialect.

    Args:
        endpoint: Where to send.
        model: The model when a request names none.
        dialect: How to write and read.
        transport: How to send; not closed by this provider's users but by `aclose`.
        clock: For latencies.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, dialect: Dialect, transport: Transport, clock: Clock
    ) -> None:
        self._endpoint = endpoint
        self._model = model
        self._dialect = dialect
        self._transport = transport
        self._clock = clock
        self._minded = False
        self._origin = endpoint.origin
        # What is the same in every request; the key may change.
        common = {"content-type": "application/json", "user-agent": f"looms/{VERSION}"}
        self._plain = {"accept": "application/json", **common, **endpoint.headers}
        self._streamed = {"accept": "text/event-stream", **common, **endpoint.headers}

    @property
    def name(self) -> str:
        """The vendor's name."""
        return self._endpoint.name

    @property
    def model(self) -> str:
        """The model when a request names none."""
        return self._model

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Send the request once and give what comes.

        Args:
            request: What is asked.

        Yields:
            `Sending`, the model events, `Completed`.

        Raises:
            LoomError: Any error of caller, vendor or transport, with provider, model and what
                had arrived.
        """
        verbatim = request.verbatim
        if verbatim is not None and verbatim.stands_for(request, self._dialect.name):
            encoded = EncodedRequest(body=verbatim.body)
        else:
            verbatim = None
            encoded = self._encode(request)
        sent_s = self._clock.monotonic_s()
        request = request.begun(sent_s)
        trip = Trip(self._endpoint.name, self._origin, request, sent_s)
        yield Sending()
        outgoing = self._http(request, encoded)
        try:
            async with self._transport.open(outgoing) as reply:
                trip.arrive(reply, self._clock.monotonic_s())
                if reply.status != 200:
                    raise self._dialect.decode_error(
                        reply.status, reply.headers, await reply.read()
                    )
                if request.stream and _is_stream(reply):
                    decoder = self._decoder(reply, request)
                    if verbatim is not None:
                        decoder = RelayDecoder(decoder)
                    batches = self._read(reply, decoder, request.timeouts, sent_s)
                    async with aclosing(batches):
                        async for batch in batches:
                            trip.answered = True
                            for event in batch:
                                yield event
                    response = decoder.finish()
                else:
                    body = await reply.read()
                    _check_body(reply, body)
                    self._mind(reply, request)
                    response = self._decode(body, reply.headers, request)
                    if request.stream:
                        trip.answered = True
                        for event in events_of(response):
                            yield event
        except LoomError as error:
            await self._failed(error, request, outgoing, trip)
            raise
        yield Completed(self._told(response, request, encoded, trip))

    def _encode(self, request: ChatRequest) -> EncodedRequest:
        return self._dialect.encode_request(request)

    def _decode(self, body: bytes, headers: Mapping[str, str], request: ChatRequest) -> LLMResponse:
        del request  # for those whose answers do not say what they answer
        return self._dialect.decode_response(body, headers)

    def _mind(self, reply: HttpReply, request: ChatRequest) -> None:
        """Warn once of a vendor that answers in the other way than it was asked to."""
        # Fault matrix, row 31.
        streamed = "event-stream" in reply.headers.get("content-type", "")
        if request.stream is streamed or self._minded:
            return
        self._minded = True
        came, asked = ("JSON", "a stream") if request.stream else ("a stream", "JSON")
        _log.warning("%s answers with %s where %s was asked for", self._origin, came, asked)

    def _decoder(self, reply: HttpReply, request: ChatRequest) -> ChatDecoder:
        decoder = self._dialect.decoder(reply.headers, request.sampling.n or 1)
        decoder.skip_bad_events = request.skip_bad_events
        return decoder

    def _http(self, request: ChatRequest, encoded: EncodedRequest) -> HttpRequest:
        from asyncio import get_running_loop  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

        headers = (self._streamed if request.stream else self._plain).copy()
        if self._endpoint.key is not None:
            headers["authorization"] = self._endpoint.key.bearer
        deadline_s = request.deadline_s
        if deadline_s is not None:
            # Ours is on the client's clock, the transport's on the loop's.
            deadline_s += get_running_loop().time() - self._clock.monotonic_s()
        return HttpRequest(
            url=self._endpoint.url,
            headers=headers,
            body=encoded.body,
            timeouts=_first_byte_timeouts(request),
            deadline_s=deadline_s,
            stream=request.stream,
        )

    async def _read(
        self, reply: HttpReply, decoder: ChatDecoder, timeouts: Timeouts, sent_s: float
    ) -> AsyncGenerator[list[StreamEvent], None]:
        """
        The events of a stream, until its answer is whole or its bytes end.

        They come in batches, as the bytes do: a hop between generators for each is dear.
        """
        chunks = reply.chunks()
        patience = _Patience(timeouts, sent_s, self._clock)
        try:
            while data := await patience.next(chunks, decoder):
                events = decoder.feed(data)
                if events:
                    yield events
                if decoder.complete:
                    return
                patience.look(progress=bool(events))
        except (TimedOut, Unreachable) as error:
            if error.phase == "first_byte":
                raise
            if not decoder.finished:
                raise _broken(error, decoder) from None
        except LoomError as error:
            # Fault matrix, row 11: the transport does not know what came before the framing broke.
            error.partial = error.partial or decoder.partial()
            if not decoder.finished:
                raise

    async def _failed(
        self, error: LoomError, request: ChatRequest, outgoing: HttpRequest, trip: Trip
    ) -> None:
        """Put on an error what is known of its attempt."""
        key = self._endpoint.key
        bearer = outgoing.headers.get("authorization")
        error.provider = error.provider or self.name
        error.model = error.model or request.model
        if trip.answered:
            # Nothing is sent again once a part of the answer was handed on.
            error.retryable = False
        charge = trip.charge(error)
        error.uncertain = charge in ("unknown", "estimated")
        error.curl = redacted_curl(outgoing)
        keys = (each for each in outgoing.headers.values() if isinstance(each, Secret))
        clean_error(error, request, (each.reveal().removeprefix("Bearer ") for each in keys))
        error.timeline = trip.failed(error, charge, self._clock.monotonic_s())
        if isinstance(error, InvalidAPIKey) and key is not None and isinstance(bearer, Secret):
            # Fault matrix, row 37: once more, if there is a new key by now.
            refused = Secret(bearer.reveal().removeprefix("Bearer "))
            error.retryable = await key.renew(refused)

    def _told(
        self, response: LLMResponse, request: ChatRequest, encoded: EncodedRequest, trip: Trip
    ) -> LLMResponse:
        usage = response.usage
        charge: Charge = "settled"
        if usage.estimated:
            usage, charge = _estimated(encoded, response), "estimated"
        metadata: dict[str, object] = {**response.metadata, "provider": self.name}
        if encoded.repairs:
            metadata["repairs"] = encoded.repairs
        timeline = trip.answer(response, charge, self._clock.monotonic_s())
        return msgspec.structs.replace(
            response,
            usage=usage,
            model=response.model or request.model,
            attempts=trip.sends,
            latency_s=timeline.attempts[0].ended_s - timeline.began_s,
            timeline=timeline,
            metadata=metadata,
        )


def _first_byte_timeouts(request: ChatRequest) -> Timeouts:
    timeouts = request.timeouts
    first_s = timeouts.first_token_s
    if not request.stream or first_s is None or first_s >= timeouts.first_byte_s:
        return timeouts
    return msgspec.structs.replace(timeouts, first_byte_s=first_s)


class _Patience:
    """How long the next piece of a stream may take: limits that the transport does not know."""

    def __init__(self, timeouts: Timeouts, sent_s: float, clock: Clock) -> None:
        self._clock = clock
        self._sent_s = sent_s
        self._idle_s = timeouts.idle_s
        self._first_s = timeouts.first_token_s
        self._progress_s = clock.monotonic_s()

    async def next(self, chunks: AsyncIterator[bytes], decoder: ChatDecoder) -> bytes:
        """The next piece; empty at the end."""
        first_s = self._first_s
        if first_s is None:
            return await _next(chunks, _USAGE_GRACE_S if decoder.finished else None) or b""
        left_s = self._sent_s + first_s - self._clock.monotonic_s()
        data = await _next(chunks, max(0.0, left_s))
        if data is None:
            raise TimedOut(
                f"HTTP request failed: deadline exceeded after {first_s:.1f} s"
                " (waiting for the first token)",
                phase="first_byte",
            )
        return data

    def look(self, *, progress: bool) -> None:
        """Comments that keep the connection alive are bytes, not progress."""
        # Fault matrix, row 25.
        now_s = self._clock.monotonic_s()
        if progress:
            self._first_s = None
            self._progress_s = now_s
        elif now_s - self._progress_s > self._idle_s:
            raise TimedOut(f"no event for {self._idle_s} s, only comments", phase="idle")


async def _next(chunks: AsyncIterator[bytes], limit_s: float | None) -> bytes | None:
    """The next piece; empty at the end, None when `limit_s` passed."""
    if limit_s is None:
        return await anext(chunks, b"")
    from asyncio import timeout  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

    try:
        async with timeout(limit_s):
            return await anext(chunks, b"")
    except TimeoutError:
        return None


def _is_stream(reply: HttpReply) -> bool:
    # A relay that does not stream answers a stream request with plain JSON: one event.
    kind = reply.headers.get("content-type", "")
    if "html" in kind:
        raise MalformedReply(f"the reply is {kind!r} and not an answer; check base_url")
    return "application/json" not in kind


def _check_body(reply: HttpReply, body: bytes) -> None:
    kind = reply.headers.get("content-type", "")
    if "html" in kind or not body.strip():
        said = f"is {kind!r}" if "html" in kind else "is empty"
        raise MalformedReply(f"the reply {said} and not an answer; check base_url")


def _broken(error: TimedOut | Unreachable, decoder: ChatDecoder) -> LoomError:
    # Fault matrix, rows 14 to 16.
    partial = decoder.partial()
    if error.phase == "total":
        error.partial = partial
        return error
    if isinstance(error, TimedOut):
        return StreamStalled(f"the stream stalled: {error.message}", partial=partial, phase="idle")
    return StreamTruncated(
        "the connection broke in the middle of the answer", partial=partial, phase="reset"
    )


def _estimated(encoded: EncodedRequest, response: LLMResponse) -> Usage:
    said = sum(
        len(choice.message.text.encode()) + len(choice.message.thinking.encode())
        + sum(len(call.arguments) + len(call.name) for call in choice.message.tool_calls)
        for choice in response.choices
    )  # fmt: skip
    prompt = math.ceil(len(encoded.body) / BYTES_PER_TOKEN)
    answer = math.ceil(said / BYTES_PER_TOKEN)
    return Usage(
        input_tokens=prompt, output_tokens=answer, total_tokens=prompt + answer, estimated=True
    )
