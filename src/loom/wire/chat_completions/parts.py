"""
Parts of a message as OpenAI writes them in JSON, and back.

Source: openai 3.57 `types/chat/chat_completion_content_part_param.py` and its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from loom.core.errors import InvalidRequest
from loom.core.messages import (
    AudioPart,
    DocumentPart,
    FilePart,
    ImagePart,
    Part,
    RawPart,
    TextPart,
)
from loom.wire.chat_completions.refusals import refused
from loom.wire.values import needed, string

__all__ = ["decode_content", "encode_content"]

_DATA = re.compile(r"data:(?P<kind>[^;,]*)(?:;[^,]*)?;base64,(?P<data>.*)", re.DOTALL)
# What media types of sound are called in `format`.
_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}

# What each role may hold beside text and parts of kinds that this version does not know.
_MEDIA: tuple[type, ...] = (ImagePart, AudioPart, DocumentPart, FilePart)


def encode_content(
    content: str | tuple[Part, ...] | None, role: str, where: str
) -> str | list[dict[str, Any]]:
    """
    The content of a message as JSON values.

    Args:
        content: One without thoughts and references (`history.py` sees to that).
        role: Whose message it is: only a user's may hold more than text.
        where: Its place, for the error.

    Returns:
        A string, or a list of parts.

    Raises:
        InvalidRequest: If OpenAI has no way to write a part.
    """
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[dict[str, Any]] = []
    for place, part in enumerate(content):
        if role != "user" and isinstance(part, _MEDIA):
            kind = type(part).__name__
            raise InvalidRequest(
                f"{where}[{place}]: OpenAI takes no {kind} in a {role} message; put it into a"
                " user message"
            )
        parts.append(_encode_part(part, f"{where}[{place}]"))
    return parts


def _encode_part(part: Part, where: str) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart(url=url, detail=detail):
            closely = {} if detail is None else {"detail": detail}
            return {"type": "image_url", "image_url": {"url": url, **closely}}
        case AudioPart():
            return {"type": "input_audio", "input_audio": _encode_sound(part, where)}
        case FilePart(file_id=file_id):
            return {"type": "file", "file": {"file_id": file_id}}
        case DocumentPart():
            return {"type": "file", "file": _encode_document(part, where)}
        case RawPart(type=kind, fields=fields):
            return {"type": kind, **fields}
        case _:
            raise InvalidRequest(f"{where}: OpenAI has no {type(part).__name__}")


def _encode_sound(part: AudioPart, where: str) -> dict[str, str]:
    data, form = part.data, part.format
    if (inline := _DATA.fullmatch(data)) is not None:
        data = inline["data"]
        name = inline["kind"].rpartition("/")[2]
        form = form or _FORMATS.get(name, name)
    elif "://" in data[:16]:
        raise InvalidRequest(
            f"{where}: OpenAI takes sound as base64, not by address; read it with"
            " AudioPart.from_file"
        )
    if not form:
        raise InvalidRequest(f'{where}: OpenAI wants the format of sound: give format="wav"')
    return {"data": data, "format": form}


def _encode_document(part: DocumentPart, where: str) -> dict[str, str]:
    if not part.url.startswith("data:"):
        raise InvalidRequest(
            f"{where}: OpenAI takes documents as data or by the id of an upload, not by address;"
            " use DocumentPart.from_file or FilePart"
        )
    # The API wants a name beside the data.
    return {"file_data": part.url, "filename": part.name or "document"}


def decode_content(value: Any, where: str) -> str | tuple[Part, ...]:
    """
    The content of a message: a string, or a list of parts.

    Args:
        value: JSON values.
        where: Its place, for the error, for example "messages[2].content".

    Returns:
        The string, or the parts. A kind that this version does not know is kept whole.

    Raises:
        InvalidRequest: If it is neither, or a part lacks what its type needs.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise refused(f"Invalid type for '{where}': expected a string or an array.", where)
    return tuple(_decode_part(part, f"{where}[{i}]") for i, part in enumerate(value))


def _decode_part(value: Any, where: str) -> Part:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(kind, str):
        raise refused(f"Missing required parameter: '{where}.type'.", f"{where}.type")
    rest = {name: field for name, field in value.items() if name != "type"}
    try:
        known = _decode_known(kind, rest, where)
    except KeyError as error:
        lacking = f"{where}.{str(error).strip(chr(39))}"
        code = "missing_required_parameter"
        raise refused(f"Missing required parameter: '{lacking}'.", lacking, code) from None
    # With a field that it has no place for (a mark of the prompt cache) a part is kept whole.
    return RawPart(kind, rest) if known is None else known


_FIELDS = {
    "text": {"text"},
    "image_url": {"image_url"},
    "input_audio": {"input_audio"},
    "file": {"file"},
}


def _decode_known(kind: str, rest: dict[str, Any], where: str) -> Part | None:
    if set(rest) - _FIELDS.get(kind, set()):
        return None
    if kind == "text":
        return TextPart(string(rest["text"], f"{where}.text") or "")
    inner = rest[kind]
    if kind == "image_url" and isinstance(inner, str):
        # Not OpenAI's form; Mistral's, and every server that speaks like OpenAI takes it.
        return ImagePart(needed(inner, f"{where}.image_url"))
    if not isinstance(inner, Mapping):
        raise refused(f"Invalid type for '{where}.{kind}': expected an object.", f"{where}.{kind}")
    place = f"{where}.{kind}"
    if kind == "image_url":
        return ImagePart(
            needed(inner["url"], f"{place}.url"), string(inner.get("detail"), f"{place}.detail")
        )
    if kind == "input_audio":
        return AudioPart(
            needed(inner["data"], f"{place}.data"), needed(inner["format"], f"{place}.format")
        )
    return _decode_file(inner, place)


def _decode_file(inner: Mapping[str, Any], place: str) -> Part:
    if inner.get("file_id") is not None:
        return FilePart(needed(inner["file_id"], f"{place}.file_id"))
    return DocumentPart(
        needed(inner["file_data"], f"{place}.file_data"),
        string(inner.get("filename"), f"{place}.filename"),
    )
