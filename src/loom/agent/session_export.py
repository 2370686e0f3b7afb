"""
A session as text: to move it between machines, for other programs, for people.

`jsonl` has a head and then an entry a line, and is what `import_session` reads back. `json` is one
document. `markdown` is for people: what was said stands in fences that it cannot close, so that no
text becomes a link, an image that calls home, a heading or a tag; what would steer a terminal or
turn the direction of writing is shown as its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from loom.agent.session import Begun, Condensed, Entry, Said, SessionInfo, Withdrawn
from loom.agent.session_entry import decode_entry, encode_entries
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.core.messages import (
    AudioPart,
    DocumentPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RawPart,
    ReferencePart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from loom.core.response import Usage

__all__ = ["EXPORT_VERSION", "ExportForm", "export_session", "import_session"]

ExportForm: TypeAlias = Literal["jsonl", "json", "markdown"]

EXPORT_VERSION = 1
"""Of `jsonl` and `json`; a form that this version does not know is refused."""

_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
# A longer address says nothing more, and a data URI is no text for people.
_LONGEST_URL = 200


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    session: SessionInfo


class _Versioned(msgspec.Struct):
    version: int


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    session: SessionInfo
    entries: tuple[msgspec.Raw, ...]


def export_session(info: SessionInfo, entries: Sequence[Entry], form: ExportForm = "jsonl") -> str:
    """
    Write a session down.

    Args:
        info: What is known of it; `entries` in it is set to their number.
        entries: Its entries, the oldest first.
        form: "jsonl" to read it back, "json" for other programs, "markdown" for people.

    Returns:
        The text; it ends with a line feed.

    Raises:
        InvalidRequest: If an entry cannot be written, or there is no such form.
    """
    info = msgspec.structs.replace(info, entries=len(entries))
    match form:
        case "jsonl":
            head = msgspec.json.encode(_Head(version=EXPORT_VERSION, session=info))
            return b"".join(line + b"\n" for line in (head, *encode_entries(entries))).decode()
        case "json":
            document = _Document(
                version=EXPORT_VERSION,
                session=info,
                entries=tuple(msgspec.Raw(data) for data in encode_entries(entries)),
            )
            return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
        case "markdown":
            return "\n".join(_markdown(info, entries)) + "\n"
        case _:
            raise InvalidRequest(
                f"{form!r} is no form of a session: 'jsonl', 'json' or 'markdown'", attempts=0
            )


def import_session(text: str) -> tuple[Entry, ...]:
    """
    Read what `export_session` wrote as "jsonl".

    Sums, title and times are made anew by the store that the entries go into.

    Args:
        text: All lines.

    Returns:
        The entries, the oldest first.

    Raises:
        InvalidRequest: If it is none, or not whole; the message names the line.
        ConfigInvalid: If a newer version wrote it.
    """
    first, *lines = text.removeprefix("\ufeff").rstrip().split("\n")
    head = _head_of(first)
    if len(lines) != head.session.entries:
        raise InvalidRequest(
            f"the session is not whole: line 1 says {head.session.entries} entries, and"
            f" {len(lines)} lines follow",
            hint="Export it again, or copy the whole file.",
            attempts=0,
        )
    return tuple(_imported(line, number) for number, line in enumerate(lines, 2))


def _head_of(line: str) -> _Head:
    try:
        version = msgspec.json.decode(line, type=_Versioned).version
        if version > EXPORT_VERSION:
            raise ConfigInvalid(
                f"the session was exported in form {version}, and this version of looms knows"
                f" {EXPORT_VERSION}",
                hint="Update looms.",
                attempts=0,
            )
        return msgspec.json.decode(line, type=_Head)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidRequest(
            f"line 1 is not the head of a session: {error}",
            hint='Give the text that export_session wrote with form="jsonl".',
            attempts=0,
        ) from None


def _imported(line: str, number: int) -> Entry:
    try:
        return decode_entry(line, f"line {number}")
    except ConfigInvalid as error:
        if "does not know" in error.message:
            raise
        raise InvalidRequest(error.message, hint="Export it again.", attempts=0) from None


# --- for people ----------------------------------------------------------------------------


def _markdown(info: SessionInfo, entries: Sequence[Entry]) -> Iterator[str]:
    yield f"# {_inline(info.title or info.id)}"
    yield ""
    yield f"- session: {_code(info.id)}"
    yield f"- from {info.created_at:%Y-%m-%d %H:%M} to {info.updated_at:%Y-%m-%d %H:%M} UTC"
    yield f"- {info.input_tokens:,} tokens in, {info.output_tokens:,} out"
    unknown = f", and {info.unpriced_calls} calls of unknown price" if info.unpriced_calls else ""
    yield f"- {info.cost_usd:f} USD{unknown}"
    for place, entry in enumerate(entries):
        yield ""
        match entry:
            case Said():
                yield from _turn(entry, place)
            case Begun(name=name, call_id=call_id):
                yield f"*{place}: the tool {_code(name)} began ({_code(call_id)})*"
            case Condensed(until=until, summary=summary, usage=usage):
                yield f"*{place}: entries before {until} are told to the model in short"
                yield f"from here on{_paid(usage)}:*"
                yield from _fenced(summary)
            case Withdrawn(since=since):
                yield f"*{place}: entries from {since} to here no longer count for the model*"


def _turn(entry: Said, place: int) -> Iterator[str]:
    message = entry.message
    model = f", {_code(entry.model)}" if entry.model else ""
    answers = f", {_code(message.tool_call_id)}" if message.tool_call_id else ""
    name = f" {_code(message.name)}" if message.name else ""
    yield f"## {place}: {_NAMES[message.role]}{name}{answers}{model}{_paid(entry.usage)}"
    yield from _content(message)
    for call in message.tool_calls:
        yield from _called(call)


def _content(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        if message.content:
            yield from _fenced(message.content)
        return
    for part in message.content or ():
        yield from _part(part)


def _part(part: Part) -> Iterator[str]:
    match part:
        case TextPart(text=text):
            yield from _fenced(text)
        case ThinkingPart():
            yield ""
            yield "*Thinking:*"
            yield from _fenced(part.text)
        case ImagePart(url=url):
            yield from _thing("Image", url)
        case DocumentPart(url=url, name=name):
            yield from _thing("Document" if name is None else f"Document {_code(name)}", url)
        case AudioPart(data=data):
            yield from _thing("Sound", data)
        case FilePart(file_id=file_id):
            yield from _thing("File", file_id)
        case ReferencePart(reference_ids=ids):
            yield from _thing("Sources", ", ".join(map(str, ids)))
        case RawPart(type=kind, fields=fields):
            yield ""
            yield f"*A part of the kind {_code(kind)}:*"
            yield from _fenced(_json(fields), "json")


def _thing(what: str, where: str) -> Iterator[str]:
    yield ""
    if where.startswith(("http:", "https:")) or len(where) <= _LONGEST_URL:
        yield f"*{what}:* {_code(where[:_LONGEST_URL])}"
    else:
        yield f"*{what}:* {len(where):,} characters of data"


def _called(call: ToolCall) -> Iterator[str]:
    yield ""
    yield f"*Calls the tool* {_code(call.name)} ({_code(call.id)}):"
    yield from _fenced(call.arguments or "{}", "json")


def _paid(usage: Usage | None) -> str:
    if usage is None:
        return ""
    cost = "unknown price" if usage.cost_usd is None else f"{usage.cost_usd:f} USD"
    return f" ({usage.input_tokens:,} + {usage.output_tokens:,} tokens, {cost})"


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _fenced(text: str, language: str = "text") -> Iterator[str]:
    """Give a text in a fence that is longer than any within."""
    shown = _shown(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    yield ""
    yield f"{fence}{language}"
    yield shown
    yield fence


def _code(text: str) -> str:
    """Give a short text as code on one line."""
    shown = " ".join(_shown(text).split()) or "-"
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if "`" in shown else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def _inline(text: str) -> str:
    """Give a short text with every sign of Markdown and HTML made plain."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(_shown(text).split()))


def _shown(text: str) -> str:
    """Give a text whose signs can all be seen; line feeds and tabs stay."""
    lines = text.replace("\r\n", "\n")
    if lines.isprintable():
        return lines
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else f"\\u{{{ord(letter):x}}}"
        for letter in lines
    )
