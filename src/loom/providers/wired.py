"""
A provider = an endpoint, a dialect and a transport. The one request loop for all vendors.

What was sent and received is decided here; what it means is the dialect's business, and how
it travels the transport's.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import (
    LoomError,
    MalformedReply,
    StreamStalled,
    StreamTruncated,
    TimedOut,
    Unreachable,
)
from loom.core.events import Completed, Sending, StreamEvent
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse, Usage
from loom.core.secret import Secret
from loom.core.version import VERSION
from loom.transport.contract import HttpReply, HttpRequest, Transport
from loom.wire.dialect import ChatDecoder, Dialect
from loom.wire.encoded import EncodedRequest

__all__ = ["Endpoint", "WiredProvider"]

# How long to wait for usage after the last finish reason.
#
# Mistral sends both in one chunk (121 of 121 recorded streams); OpenAI's family sends usage in
# the next one, at once. Without it the answer is whole and its tokens are estimated.
_USAGE_GRACE_S = 2.0

# For estimates only. Source: the project's limiter design, "bytes/3.2".
_BYTES_PER_TOKEN = 3.2


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a vendor is and who we are there.

    Attributes:
        name: The vendor, for example "mistral".
        url: The absolute address of chat completions.
        headers: Sent with each request; the key is a `Secret` in `authorization`.
    """

    name: str
    url: str
    headers: Mapping[str, str | Secret] = {}


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
        encoded = self._dialect.encode_request(request)
        started_s = self._clock.monotonic_s()
        yield Sending()
        answered = False
        try:
            async with self._transport.open(self._http(request, encoded)) as reply:
                if reply.status != 200:
                    raise self._dialect.decode_error(
                        reply.status, reply.headers, await reply.read()
                    )
                if request.stream and _is_stream(reply):
                    decoder = self._dialect.decoder(reply.headers, request.sampling.n or 1)
                    batches = self._read(reply, decoder, request.timeouts.idle_s)
                    async with aclosing(batches):
                        async for batch in batches:
                            answered = True
                            for event in batch:
                                yield event
                    response = decoder.finish()
                else:
                    body = await reply.read()
                    _check_body(reply, body)
                    response = self._dialect.decode_response(body, reply.headers)
                attempts = reply.attempts
        except LoomError as error:
            raise self._completed(error, request, answered=answered)  # noqa: B904 - the same error
        yield Completed(self._told(response, request, encoded, started_s, attempts))

    def _http(self, request: ChatRequest, encoded: EncodedRequest) -> HttpRequest:
        accept = "text/event-stream" if request.stream else "application/json"
        return HttpRequest(
            url=self._endpoint.url,
            headers={
                "accept": accept,
                "content-type": "application/json",
                "user-agent": f"looms/{VERSION}",
                **self._endpoint.headers,
            },
            body=encoded.body,
            timeouts=request.timeouts,
            stream=request.stream,
        )

    async def _read(
        self, reply: HttpReply, decoder: ChatDecoder, idle_s: float
    ) -> AsyncGenerator[list[StreamEvent], None]:
        """
        The events of a stream, until its answer is whole or its bytes end.

        They come in batches, as the bytes do: a hop between generators for each is dear.
        """
        chunks = reply.chunks()
        progress_s = self._clock.monotonic_s()
        try:
            while data := await _next(chunks, _USAGE_GRACE_S if decoder.finished else None):
                events = decoder.feed(data)
                if events:
                    yield events
                if decoder.complete:
                    return
                # Comments that keep the connection alive are bytes, not progress.
                now_s = self._clock.monotonic_s()
                if events:
                    progress_s = now_s
                elif now_s - progress_s > idle_s:
                    stall = TimedOut(f"no event for {idle_s} s, only comments", phase="idle")
                    raise _broken(stall, decoder)
        except (TimedOut, Unreachable) as error:
            if not decoder.finished:
                raise _broken(error, decoder) from None

    def _completed(self, error: LoomError, request: ChatRequest, *, answered: bool) -> LoomError:
        error.provider = error.provider or self.name
        error.model = error.model or request.model
        if answered:
            # Nothing is sent again once a part of the answer was handed on.
            error.retryable = False
        for header in self._endpoint.headers.values():
            if isinstance(header, Secret):
                _redact(error, header.reveal().removeprefix("Bearer "))
        return error

    def _told(
        self,
        response: LLMResponse,
        request: ChatRequest,
        encoded: EncodedRequest,
        started_s: float,
        attempts: int,
    ) -> LLMResponse:
        usage = response.usage
        if usage.estimated:
            usage = _estimated(encoded, response)
        metadata: dict[str, object] = {"provider": self.name}
        if encoded.repairs:
            metadata["repairs"] = encoded.repairs
        return msgspec.structs.replace(
            response,
            usage=usage,
            model=response.model or request.model,
            attempts=attempts,
            latency_s=self._clock.monotonic_s() - started_s,
            metadata=metadata,
        )


async def _next(chunks: AsyncIterator[bytes], limit_s: float | None) -> bytes:
    """The next piece; empty at the end, or when `limit_s` passed."""
    if limit_s is None:
        return await anext(chunks, b"")
    from asyncio import timeout  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

    try:
        async with timeout(limit_s):
            return await anext(chunks, b"")
    except TimeoutError:
        return b""


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
    partial = decoder.partial()
    if error.phase == "total":
        error.partial = partial
        return error
    if isinstance(error, TimedOut):
        return StreamStalled(f"the stream stalled: {error.message}", partial=partial, phase="idle")
    return StreamTruncated(
        "the connection broke in the middle of the answer", partial=partial, phase="reset"
    )


def _redact(error: LoomError, key: str) -> None:
    if len(key) >= 4 and key in error.message:
        error.message = error.message.replace(key, "***")
        error.args = (error.message,)


def _estimated(encoded: EncodedRequest, response: LLMResponse) -> Usage:
    said = sum(
        len(choice.message.text.encode()) + len(choice.message.thinking.encode())
        + sum(len(call.arguments) + len(call.name) for call in choice.message.tool_calls)
        for choice in response.choices
    )  # fmt: skip
    prompt = math.ceil(len(encoded.body) / _BYTES_PER_TOKEN)
    answer = math.ceil(said / _BYTES_PER_TOKEN)
    return Usage(
        input_tokens=prompt, output_tokens=answer, total_tokens=prompt + answer, estimated=True
    )
