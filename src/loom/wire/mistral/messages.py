"""Messages and their parts as Mistral writes them in JSON, and back (contract: section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, assert_never

from loom.core.errors import InvalidRequest
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
)
from loom.wire.values import boolean, decode_calls, encode_call, needed, string

__all__ = ["decode_content", "decode_message", "decode_part", "encode_message", "encode_part"]

_ROLES = ("system", "user", "assistant", "tool")

# What each role may carry. The server answers 422 `extra_forbidden` to anything else.
_FIELDS: dict[str, frozenset[str]] = {
    "system": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls", "prefix"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}

_PART_FIELDS: dict[str, frozenset[str]] = {
    "text": frozenset({"text"}),
    "image_url": frozenset({"image_url"}),
    "document_url": frozenset({"document_url", "document_name"}),
    "input_audio": frozenset({"input_audio"}),
    "file": frozenset({"file_id"}),
    "reference": frozenset({"reference_ids"}),
    "thinking": frozenset({"thinking", "closed"}),
}


def encode_part(part: Part) -> dict[str, Any]:  # noqa: C901, PLR0911 - one case for each part
    """
    A part as JSON values.

    Args:
        part: Any part.

    Returns:
        The chunk, its `type` among the fields.
    """
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart(url=url, detail=detail):
            if detail is None:
                return {"type": "image_url", "image_url": url}
            return {"type": "image_url", "image_url": {"url": url, "detail": detail}}
        case DocumentPart(url=url, name=name):
            named = {} if name is None else {"document_name": name}
            return {"type": "document_url", "document_url": url, **named}
        case AudioPart(data=data, format=form):
            if form is None:
                return {"type": "input_audio", "input_audio": data}
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
        case FilePart(file_id=file_id):
            return {"type": "file", "file_id": file_id}
        case ReferencePart(reference_ids=ids):
            return {"type": "reference", "reference_ids": list(ids)}
        case ThinkingPart(parts=parts, closed=closed, extra=extra):
            shut = {} if closed is None else {"closed": closed}
            inner = [encode_part(inner) for inner in parts]
            return {"type": "thinking", "thinking": inner, **shut, **extra}
        case RawPart(type=kind, fields=fields):
            return {"type": kind, **fields}
        case _ as never:
            assert_never(never)


def encode_message(message: Message) -> dict[str, Any]:
    """
    A message as JSON values.

    Args:
        message: A legal one (`history.py` sees to that).

    Returns:
        Only fields that Mistral knows for this role.
    """
    content: Any = message.content
    if content is None:
        content = ""
    elif not isinstance(content, str):
        content = [encode_part(part) for part in content]
    wire: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        wire["tool_calls"] = [encode_call(call) for call in message.tool_calls]
    if message.prefix:
        wire["prefix"] = True
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            wire["name"] = message.name
    return wire


def decode_message(value: Any, position: int) -> Message:
    """
    A message from JSON values, as a caller or a recording writes it.

    A field that is null counts as absent. A field that the role does not have is refused by
    name: the vendor would refuse it too.

    Args:
        value: A dict with `role` and `content`.
        position: Its place in the conversation, from 0; for the error.

    Returns:
        The message.

    Raises:
        InvalidRequest: Naming the position, the field and what was wrong.
    """
    where = f"messages[{position}]"
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"{where} must be a Message, a dict or a string, not {type(value).__name__}"
        )
    role = value.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{where}: {_role_problem(role)}")
    given = {name: field for name, field in value.items() if field is not None}
    for name in given:
        if name not in _FIELDS[role]:
            raise InvalidRequest(f"{where}: {_field_problem(str(name), role)}")
    content = given.get("content")
    return Message(
        role=role,
        content=None if content is None else decode_content(content, f"{where}.content"),
        tool_calls=decode_calls(given.get("tool_calls", ()), f"{where}.tool_calls"),
        tool_call_id=string(given.get("tool_call_id"), f"{where}.tool_call_id"),
        name=string(given.get("name"), f"{where}.name"),
        prefix=boolean(given.get("prefix", False), f"{where}.prefix"),
    )


def decode_content(value: Any, where: str) -> str | tuple[Part, ...]:
    """
    The content of a message: a string, or a list of chunks.

    Args:
        value: JSON values.
        where: Its place, for the error, for example "messages[2].content".

    Returns:
        The string, or the parts.

    Raises:
        InvalidRequest: If it is neither, or a chunk lacks what its type needs.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise InvalidRequest(
            f"{where} must be a string or a list of parts, not {type(value).__name__}"
        )
    return tuple(decode_part(chunk, f"{where}[{i}]") for i, chunk in enumerate(value))


def decode_part(value: Any, where: str, *, lenient: bool = False) -> Part:
    """
    One chunk of a content list. A type that this version does not know is kept whole.

    Args:
        value: A dict with `type`, a part, or a string (a text).
        where: Its place, for the error.
        lenient: True for what a vendor sent: fields that this version does not know are kept.
            False for what a caller sends: the vendor would refuse them.

    Returns:
        The part.

    Raises:
        InvalidRequest: If it is no chunk, or lacks what its type needs, or has a field that its
            type does not know.
    """
    if isinstance(value, str):
        return TextPart(value)
    if isinstance(value, Part):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise InvalidRequest(f"{where} must be a part or a dict with a 'type'")
    kind = value["type"]
    rest = {name: field for name, field in value.items() if name != "type"}
    known = _PART_FIELDS.get(kind)
    spare = set(rest) - known if known is not None and kind != "thinking" else set()
    if spare and not lenient:
        raise InvalidRequest(
            f"{where}: Mistral knows no field {min(spare)!r} on a part of type {kind!r}"
        )
    if known is None or spare:
        # Nothing is lost: a chunk of a newer API goes out again as it came in.
        # Fault matrix, row 47.
        return RawPart(kind, rest)
    try:
        return _decode_known(kind, rest, where)
    except KeyError as error:
        raise InvalidRequest(f"{where}: {kind!r} needs the field {error}") from None


def _decode_known(kind: str, rest: dict[str, Any], where: str) -> Part:
    match kind:
        case "text":
            part: Part = TextPart(string(rest["text"], f"{where}.text") or "")
        case "image_url":
            part = _decode_image(rest["image_url"], where)
        case "document_url":
            name = string(rest.get("document_name"), f"{where}.document_name")
            part = DocumentPart(needed(rest["document_url"], f"{where}.document_url"), name)
        case "input_audio":
            part = _decode_audio(rest["input_audio"], where)
        case "file":
            part = FilePart(needed(rest["file_id"], f"{where}.file_id"))
        case "reference":
            part = ReferencePart(_references(rest["reference_ids"], f"{where}.reference_ids"))
        case _:
            part = _decode_thinking(rest, where)
    return part


def _decode_image(value: Any, where: str) -> ImagePart:
    if isinstance(value, Mapping):
        detail = string(value.get("detail"), f"{where}.image_url.detail")
        return ImagePart(needed(value["url"], f"{where}.image_url.url"), detail)
    return ImagePart(needed(value, f"{where}.image_url"))


def _decode_audio(value: Any, where: str) -> AudioPart:
    if isinstance(value, Mapping):
        form = string(value.get("format"), f"{where}.input_audio.format")
        return AudioPart(needed(value["data"], f"{where}.input_audio.data"), form)
    return AudioPart(needed(value, f"{where}.input_audio"))


def _references(value: Any, where: str) -> tuple[int | str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(one, int | str) for one in value):
        return tuple(value)
    raise InvalidRequest(f"{where} must be a list of ids")


def _decode_thinking(rest: dict[str, Any], where: str) -> ThinkingPart:
    thoughts = rest.pop("thinking")
    closed = rest.pop("closed", None)
    if isinstance(thoughts, str):
        # mistral-common writes it so; the API sends a list.
        return ThinkingPart((TextPart(thoughts),), closed, rest)
    if not isinstance(thoughts, list | tuple):
        raise InvalidRequest(f"{where}.thinking must be a list of texts and references")
    parts: list[TextPart | ReferencePart | RawPart] = []
    for i, thought in enumerate(thoughts):
        part = decode_part(thought, f"{where}.thinking[{i}]", lenient=True)
        if not isinstance(part, TextPart | ReferencePart | RawPart):
            raise InvalidRequest(f"{where}.thinking[{i}] must be a text or a reference")
        parts.append(part)
    return ThinkingPart(tuple(parts), closed, rest)


def _role_problem(role: Any) -> str:
    if role == "developer":
        return "Mistral has no role 'developer'; did you mean 'system'?"
    near = get_close_matches(str(role), _ROLES, 1) if isinstance(role, str) else []
    meant = f"; did you mean {near[0]!r}?" if near else f": use one of {', '.join(_ROLES)}"
    return f"unknown role {role!r}{meant}" if isinstance(role, str) else f"a role is needed{meant}"


def _field_problem(name: str, role: str) -> str:
    near = get_close_matches(name, _FIELDS[role], 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    known = ", ".join(sorted(_FIELDS[role] - {"role"}))
    return f"Mistral knows no field {name!r} on a {role} message{meant} (it knows: {known})"
