"""Answers that are odd but good: their JSON changed, or their lines spelled another way."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from itertools import cycle
from typing import Any, TypeAlias

from loom.server.simulator.fault_wire import Answer, events_of
from loom.server.simulator.faults import Fault, RequestInfo

__all__ = ["edited", "spelled"]

_Values: TypeAlias = dict[str, Any]

_DONE = b"data: [DONE]\n\n"
_CALL_ID = "Dup1icate"
_SECOND = "A second choice."


async def edited(fault: Fault, info: RequestInfo, answer: Answer) -> AsyncGenerator[bytes, None]:
    """
    Change an answer's JSON.

    Args:
        fault: An `edit` of the table.
        info: What is known of the request.
        answer: What to change; an error is left as it is.

    Yields:
        The changed body.
    """
    edit = _EDITS[fault.row.how["as"]]
    if not answer.streamed:
        body = b"".join([piece async for piece in answer.pieces])
        value = json.loads(body) if answer.status == 200 else {}
        # Vectors and lists of models have no choices.
        if value.get("choices"):
            (value,) = edit(value, fault, info, "message")
            body = _json(value)
        yield body
        return
    first = True
    async for event in events_of(answer.pieces):
        if event == _DONE or not event.startswith(b"data: "):
            yield event
            continue
        chunk = json.loads(event.removeprefix(b"data: "))
        if not chunk.get("choices"):
            # An error in the middle of the stream, or the usage as OpenAI tells it: alone.
            if not chunk.get("usage") or edit not in _OF_USAGE:
                yield event
                continue
            for value in edit(chunk, fault, info, "delta"):
                yield _event(value)
            continue
        if first and edit is _choices:
            yield _event(_opened(chunk))
        first = False
        last = any(choice.get("finish_reason") for choice in chunk["choices"])
        changes = edit(chunk, fault, info, "delta") if last or edit in _EVERY_CHUNK else [chunk]
        for value in changes:
            yield _event(value)


def _json(value: _Values) -> bytes:
    # Not msgspec: it would write null for NaN.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _event(value: _Values) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _tool_call(number: int, name: str, arguments: str) -> _Values:
    function = {"name": name, "arguments": arguments}
    return {"id": _CALL_ID, "function": function, "index": number}


def _with_calls(value: _Values, calls: list[_Values], part: str) -> list[_Values]:
    choice = value["choices"][0]
    choice["finish_reason"] = "tool_calls"
    choice[part] |= {"content": "", "tool_calls": calls}
    return [value]


def _duplicate_ids(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del fault
    name = info.tools[0] if info.tools else "lookup"
    calls = [_tool_call(0, name, '{"city":"Paris"}'), _tool_call(1, name, '{"city":"Rome"}')]
    return _with_calls(value, calls, part)


def _call(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    asked = fault.settings.get("value")
    name = str(asked) if asked else (info.tools[0] if info.tools else "lookup")
    return _with_calls(value, [_tool_call(0, name, fault.row.how["arguments"])], part)


def _finish_reason(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del info, part
    for choice in value["choices"]:
        choice["finish_reason"] = fault.settings["value"]
    return [value]


def _usage_missing(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del fault, info, part
    value.pop("usage", None)
    return [value] if value["choices"] else []


def _usage(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del info, part
    if value.get("usage") is None:
        return [value]  # it stands in a chunk of its own
    number = fault.settings["value"]
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    value["usage"] = dict.fromkeys(names, number)
    return [value]


def _extra_fields(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del fault, info
    unknown = {"x_new": {"nested": [1, None, "two"]}}
    value |= unknown
    for choice in value["choices"]:
        choice.update(unknown)
        choice[part].update(unknown)
    return [value]


def _unknown_part(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del fault, info
    for choice in value["choices"]:
        text = choice[part].get("content")
        kept = [{"type": "text", "text": text}] if isinstance(text, str) and text else text or []
        choice[part]["content"] = [*kept, {"type": "hologram", "rays": 7}]
    return [value]


def _no_choices(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del fault, info
    if part == "message":
        return [{**value, "choices": []}]
    usage = value.pop("usage", None)
    return [value, {**value, "choices": [], "usage": usage}]


def _choices(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del fault, info
    said = {"role": "assistant", "content": _SECOND} if part == "message" else {"content": ""}
    second = {"index": 1, "finish_reason": "stop", part: said}
    value["choices"] = [second, *value["choices"]]
    return [value]


def _opened(chunk: _Values) -> _Values:
    delta = {"role": "assistant", "content": _SECOND}
    return {**chunk, "choices": [{"index": 1, "delta": delta, "finish_reason": None}]}


def _model(value: _Values, fault: Fault, info: RequestInfo, part: str) -> list[_Values]:
    del info, part
    value["model"] = fault.settings["value"]
    return [value]


_Edit: TypeAlias = Callable[[_Values, Fault, RequestInfo, str], list[_Values]]

_EDITS: Mapping[str, _Edit] = {
    "call": _call,
    "choices": _choices,
    "duplicate-ids": _duplicate_ids,
    "extra-fields": _extra_fields,
    "finish-reason": _finish_reason,
    "model": _model,
    "no-choices": _no_choices,
    "unknown-part": _unknown_part,
    "usage": _usage,
    "usage-missing": _usage_missing,
}
_EVERY_CHUNK = (_extra_fields, _model)
_OF_USAGE = (_usage, _usage_missing)


async def spelled(spelling: str, size: int, answer: Answer) -> AsyncGenerator[bytes, None]:
    """
    Write a stream's lines another way that means the same.

    Args:
        spelling: Which way.
        size: Bytes of a piece, for "split".
        answer: What to write; a plain body is left as it is.

    Yields:
        The body.
    """
    if not answer.streamed:
        async for piece in answer.pieces:
            yield piece
        return
    ends = cycle((b"\r", b"\n", b"\r\n"))
    number = 0
    async for event in events_of(answer.pieces):
        for piece in _spelled_event(event, spelling, size, number, ends):
            yield piece
        number += 1


def _spelled_event(
    event: bytes, spelling: str, size: int, number: int, ends: Iterator[bytes]
) -> Iterator[bytes]:
    match spelling:
        case "split":
            yield from (event[i : i + size] for i in range(0, len(event), size))
        case "bom":
            yield event if number else b"\xef\xbb\xbf" + event
        case "crlf":
            yield event.replace(b"\n", b"\r\n")
        case "cr":
            yield event.replace(b"\n", b"\r")
        case "mixed":
            # One ending for an event: a CR before a LF would be one ending, not two.
            yield event.replace(b"\n", next(ends))
        case "comments":
            yield b": still here\n\n" + event
        case "fields":
            yield b"event: message\nid: %d\nretry: 3000\n" % number + event
        case "lines":
            # A line feed between two tokens of JSON changes nothing.
            yield event.replace(b",", b",\ndata: ", 1) if b'{"id"' in event else event
        case _:
            yield event.replace(b"data: ", b"data:", 1)
