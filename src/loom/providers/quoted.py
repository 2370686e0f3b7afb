"""
Takes out of a vendor's error what it quotes: the key it was asked with, and what it was asked.

Errors are logged, traced and relayed to callers; a vendor's words in them are not ours to vouch
for. What is shorter than a clause is left: `maximum context length` stands in prompts too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from loom.core.errors import LoomError
from loom.core.messages import TextPart
from loom.core.request import ChatRequest

__all__ = ["clean_error"]

_MASK = "***"
_CUT = "..."
# A key that is shorter is a word like others.
_SHORTEST_KEY = 4
# So many characters in a row are a quote; any holds one of these runs, at every `_STEP`th place.
_QUOTE = 32
_RUN = 16
_STEP = 8
# What is looked through: the end of what was asked, so that an error costs milliseconds.
_LOOKED_THROUGH = 256 * 1024
_WORD = re.compile(r"[\w.:/-]{1,64}")
_ID = re.compile(r"[\x21-\x7e]{1,256}")


def clean_error(error: LoomError, request: ChatRequest, keys: Iterable[str]) -> None:
    """
    Clean the words of an error that a vendor may have written.

    Args:
        error: Changed in place.
        request: What was asked.
        keys: What it was asked with.
    """
    message = error.message
    for key in keys:
        if len(key) < _SHORTEST_KEY:
            continue
        message = message.replace(key, _MASK)
        for name in ("vendor_code", "vendor_type", "request_id"):
            if key in (getattr(error, name) or ""):
                setattr(error, name, None)
    if len(message) >= _QUOTE:
        message = _without_quotes(message, request)
    if message != error.message:
        error.message = message
        error.args = (message,)
    for name in ("vendor_code", "vendor_type"):
        if not _WORD.fullmatch(getattr(error, name) or "-"):
            setattr(error, name, None)
    if not _ID.fullmatch(error.request_id or "-"):
        error.request_id = None


def _without_quotes(message: str, request: ChatRequest) -> str:
    asked = "\n".join(_texts(request))[-_LOOKED_THROUGH:]
    out: list[str] = []
    done = start = 0
    while start + _RUN <= len(message):
        place = asked.find(message[start : start + _RUN])
        if place < 0:
            start += _STEP
            continue
        end = start + _RUN
        while end < len(message):
            further = asked.find(message[start : end + 1], place)
            if further < 0:
                break
            place, end = further, end + 1
        while start > done and place > 0 and message[start - 1] == asked[place - 1]:
            start, place = start - 1, place - 1
        if end - start >= _QUOTE:
            out += (message[done:start], _CUT)
            done = end
        start = end
    return "".join((*out, message[done:]))


def _texts(request: ChatRequest) -> Iterator[str]:
    for tool in request.tools:
        yield tool.description or ""
    if request.metadata:
        yield msgspec.json.encode(request.metadata).decode()
    # What stands behind a gap is there.
    yield from (value for value in request.extra.values() if isinstance(value, str))
    for message in request.messages:
        if isinstance(message.content, str):
            yield message.content
        for part in message.content or ():
            if isinstance(part, TextPart):
                yield part.text
        for call in message.tool_calls:
            yield call.arguments
