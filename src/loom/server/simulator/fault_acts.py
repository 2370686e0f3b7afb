"""
How each fault is done.

An act is named by the `act` of its row in `fault_table.toml`. What a server may do goes out
through the server; what no server would do goes to the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import msgspec

from loom.core.ambient import Clock
from loom.server.line import Send
from loom.server.simulator.fault_edits import edited, spelled
from loom.server.simulator.fault_toxics import shaped
from loom.server.simulator.fault_wire import Answer, Wire, events_of
from loom.server.simulator.faults import Fault, RequestInfo, fault_table
from loom.server.simulator.openai_words import as_openai_tells

__all__ = ["ACTS", "Scene"]

_MIB = 1024 * 1024
# Far beyond what a caller waits for, and an end for one that never does.
_MOST_COMMENTS = 100_000
_DONE = b"[DONE]"
# RFC 9110, sections 15.3.5 and 15.4.5: these have no body, and say nothing of its length.
_BODILESS = (204, 304)


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an act has to work with.

    Attributes:
        fault: What shall happen.
        info: What is known of the request.
        wire: The connection below HTTP.
        send: ASGI's.
        answer: Asks the application; `swapped` asks for the other kind of answer.
        clock: Tells the time.
        openai: Whether errors are told as OpenAI tells them.
    """

    fault: Fault
    info: RequestInfo
    wire: Wire
    send: Send
    answer: Callable[..., AbstractAsyncContextManager[Answer]]
    clock: Clock
    openai: bool = False

    @property
    def how(self) -> Mapping[str, Any]:
        """The fixed parts of the act."""
        return self.fault.row.how


async def _reply(scene: Scene) -> None:
    headers, body = _reply_parts(scene.fault, openai=scene.openai)
    status = int(scene.fault.number("status"))
    if status in _BODILESS:
        body = b""
    else:
        headers.append((b"content-length", str(len(body)).encode()))
    await scene.send({"type": "http.response.start", "status": status, "headers": headers})
    await scene.send({"type": "http.response.body", "body": body, "more_body": False})


async def _dated(scene: Scene) -> None:
    headers, body = _reply_parts(scene.fault, openai=scene.openai)
    now = scene.clock.now()
    until = now + timedelta(seconds=max(-1e9, min(1e9, scene.fault.number("seconds"))))
    # Below the server: its own `date` would be the machine's.
    for name, moment in ((b"date", now), (b"retry-after", until)):
        headers.append((name, format_datetime(moment, usegmt=True).encode()))
    await scene.wire.head(int(scene.fault.number("status")), headers, len(body))
    await scene.wire.body(body)
    await scene.wire.end()


def _reply_parts(fault: Fault, *, openai: bool) -> tuple[list[tuple[bytes, bytes]], bytes]:
    how, status = fault.row.how, int(fault.number("status"))
    filled = {"status": status, "value": fault.settings.get("value", "")}
    headers = [(b"content-type", str(how.get("type", "application/json")).encode())]
    for name, value in how.get("headers", ()):
        headers.append((name.encode(), value.format(**filled).encode("latin-1")))
    if "error" in how or "message" in how:
        body = _envelope(status, fault_table().errors.get(how.get("error", ""), how))
    else:
        text: str = how.get("body", "").replace("{status}", str(status))
        body = text.encode("latin-1" if how.get("latin1") else "utf-8")
    if openai and status >= 400 and body.startswith(b"{"):
        body = as_openai_tells(body, status)
    return headers, body


def _envelope(status: int, error: Mapping[str, Any]) -> bytes:
    """The vendor's body of an error (contract, section 6)."""
    envelope = {"object": "error", "message": error["message"]}
    envelope["type"] = error.get("type", "invalid_request_error")
    envelope |= {"param": None, "code": error.get("code"), "raw_status_code": status}
    return msgspec.json.encode(envelope)


async def _text(scene: Scene) -> None:
    await scene.wire.raw(scene.how["text"].encode("latin-1"))
    await scene.wire.end(scene.how["end"])


async def _silence(scene: Scene) -> None:
    await scene.wire.wait(scene.fault.number("seconds"))
    async with scene.answer() as answer:
        await _pass_on(scene, answer, answer.pieces)


async def _unread(scene: Scene) -> None:
    # The wait is over (`LateReader`): a server that was so long busy gives up.
    await scene.wire.end("reset")


async def _cut(scene: Scene) -> None:
    how, fault = scene.how, scene.fault
    async with scene.answer() as answer:
        if how.get("stream_only") and not answer.streamed:
            await _pass_on(scene, answer, answer.pieces)
            return
        after = int(fault.number("after"))
        if answer.streamed:
            pieces, length = events_of(answer.pieces), None
        else:
            body = b"".join([piece async for piece in answer.pieces])
            at, after = _cut_point(fault, body), 1
            pieces, length = _each(body[:at], body[at:]), len(body)
        await scene.wire.head(answer.status, answer.headers, None if how.get("chunked") else length)
        count, end = 0, "clean"
        async for piece in pieces:
            if count == after:
                end = await _strike(scene)
                if not how.get("rest", True):
                    break
            if how.get("done", True) or _DONE not in piece:
                await scene.wire.body(piece)
            count += 1
    if after < 0:
        end = await _strike(scene)
    await scene.wire.end(end)


def _cut_point(fault: Fault, body: bytes) -> int:
    at = int(fault.number("bytes"))
    return len(body) // 2 if at < 0 else min(at, len(body))


async def _each(*pieces: bytes) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


async def _strike(scene: Scene) -> str:
    """Do what happens at the cut; give how the connection ends."""
    how, wire = scene.how, scene.wire
    if scene.fault.settings.get("seconds"):
        await wire.wait(scene.fault.number("seconds"))
    if "framing" in how:
        await wire.raw(how["framing"].encode("latin-1"))
    if "fill" in how:
        await wire.body(how["fill"].encode())
        for _ in range(int(scene.fault.number("mib"))):
            await wire.body(b"x" * _MIB)
            # So that the caller's end of the connection is read meanwhile.
            await scene.clock.sleep(0)
    if "insert" in how:
        text = _inserted(how["insert"], openai=scene.openai) + "\n\n"
        await wire.body(text.encode("latin-1" if how.get("latin1") else "utf-8"))
    return str(how.get("end", "clean"))


def _inserted(text: str, *, openai: bool) -> str:
    data = text.removeprefix("data: ")
    if openai and data.startswith('{"object":"error"'):
        return f"data: {as_openai_tells(data.encode()).decode()}"
    return text


async def _comments(scene: Scene) -> None:
    async with scene.answer() as answer:
        if not answer.streamed:
            await _pass_on(scene, answer, answer.pieces)
            return
        await scene.wire.head(answer.status, answer.headers, None)
        count = 0
        async for event in events_of(answer.pieces):
            if count == scene.fault.number("after"):
                break
            await scene.wire.body(event)
            count += 1
    for _ in range(_MOST_COMMENTS):
        await scene.wire.body(b": keep-alive\n\n")
        await scene.wire.wait(scene.fault.number("seconds"))
    await scene.wire.end("close")


async def _length(scene: Scene) -> None:
    async with scene.answer() as answer:
        body = b"".join([piece async for piece in answer.pieces])
        off = int(scene.fault.number("off"))
        length = max(0, len(body) + off)
        # In one write: a reader that has the whole body before the rest comes may never see it.
        await scene.wire.head(answer.status, answer.headers, length, then=body)
    await scene.wire.end("close")


async def _bomb(scene: Scene) -> None:
    packed = await asyncio.to_thread(_packed, int(scene.fault.number("mib")))
    headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    await scene.wire.head(200, headers, len(packed))
    await scene.wire.body(packed)
    await scene.wire.end()


def _packed(mib: int) -> bytes:
    import zlib  # noqa: PLC0415 - for this fault alone

    # 31: the largest window, with a gzip header (zlib manual, deflateInit2).
    packer = zlib.compressobj(wbits=31)
    return b"".join([packer.compress(b" " * _MIB) for _ in range(mib)]) + packer.flush()


async def _headers(scene: Scene) -> None:
    count, kib = int(scene.fault.number("count")), int(scene.fault.number("kib"))
    extra = [(b"x-fill-%d" % i, b"x") for i in range(count)]
    if kib:
        extra.append((b"x-fill", b"x" * kib * 1024))
    async with scene.answer() as answer:
        await scene.wire.head(answer.status, [*answer.headers, *extra], None)
        async for piece in answer.pieces:
            await scene.wire.body(piece)
    await scene.wire.end()


async def _swap(scene: Scene) -> None:
    async with scene.answer(swapped=True) as answer:
        await _pass_on(scene, answer, answer.pieces)


async def _edit(scene: Scene) -> None:
    async with scene.answer() as answer:
        await _pass_on(scene, answer, edited(scene.fault, scene.info, answer))


async def _spell(scene: Scene) -> None:
    async with scene.answer() as answer:
        pieces = spelled(scene.how["as"], int(scene.fault.number("size")), answer)
        await _pass_on(scene, answer, pieces)


async def _toxic(scene: Scene) -> None:
    fault, wire = scene.fault, scene.wire
    seconds = fault.number("seconds")
    if fault.row.short == "timeout":
        await wire.wait(seconds)
        await wire.end("close")
        return
    if fault.row.short == "reset_peer":
        await wire.wait(seconds)
        await wire.end("reset")
        return
    wire.shape = shaped(fault, wire.wait, scene.info.number)
    if fault.row.short == "slow_close":
        wire.close_late_s = seconds
    async with scene.answer() as answer:
        if answer.streamed:
            pieces, length = answer.pieces, None
        else:
            body = b"".join([piece async for piece in answer.pieces])
            pieces, length = _each(body), len(body)
        await wire.head(answer.status, answer.headers, length)
        async for piece in pieces:
            await wire.body(piece)
    await wire.end()


async def _pass_on(scene: Scene, answer: Answer, pieces: AsyncGenerator[bytes, None]) -> None:
    """Let the server send an answer."""
    headers = [line for line in answer.headers if line[0] != b"content-length"]
    body = b""
    if not answer.streamed:
        body = b"".join([piece async for piece in pieces])
        headers.append((b"content-length", str(len(body)).encode()))
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await scene.send(start)
    if answer.streamed:
        async for piece in pieces:
            await scene.send({"type": "http.response.body", "body": piece, "more_body": True})
    await scene.send({"type": "http.response.body", "body": body, "more_body": False})


ACTS: Mapping[str, Callable[[Scene], Awaitable[None]]] = {
    "bomb": _bomb,
    "comments": _comments,
    "cut": _cut,
    "dated": _dated,
    "edit": _edit,
    "headers": _headers,
    "length": _length,
    "reply": _reply,
    "silence": _silence,
    "spell": _spell,
    "swap": _swap,
    "text": _text,
    "toxic": _toxic,
    "unread": _unread,
}
"""Every act, by its name in the table."""
