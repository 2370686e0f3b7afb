"""What a tool of an MCP server gave back, as the model reads it: nothing is left out in silence."""

from __future__ import annotations

import json
from typing import assert_never

import msgspec
from mcp import types

from loom.core.messages import AudioPart, DocumentPart, ImagePart, Part, TextPart

__all__ = ["answer_of", "words_of"]

# Names under which APIs know what MIME calls otherwise.
_SOUNDS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "x-m4a": "m4a"}


def answer_of(result: types.CallToolResult) -> str | tuple[Part, ...]:
    """
    The result of a call.

    Args:
        result: As the server gave it.

    Returns:
        One text if there is nothing else, or parts: texts, images, sounds and documents in the
        server's order. A link to a resource is told in words. Structured content follows as JSON,
        unless a text says the same.
    """
    parts = [_part(block) for block in result.content]
    structured = result.structured_content
    if structured is not None and not (parts and _told(parts, structured)):
        parts.append(TextPart(json.dumps(structured, ensure_ascii=False)))
    if all(isinstance(part, TextPart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return tuple(parts)


def words_of(result: types.CallToolResult) -> str:
    """
    The result of a call that failed, as words.

    Args:
        result: As the server gave it.

    Returns:
        Its texts; what is no text is named.
    """
    answer = answer_of(result)
    if isinstance(answer, str):
        return answer or "the tool failed and gave no reason"
    return "\n".join(
        part.text if isinstance(part, TextPart) else f"({type(part).__name__} left out)"
        for part in answer
    )


def _part(block: types.ContentBlock) -> Part:
    match block:
        case types.TextContent(text=text):
            return TextPart(text)
        case types.ImageContent(data=data, mime_type=kind):
            return ImagePart(f"data:{kind};base64,{data}")
        case types.AudioContent(data=data, mime_type=kind):
            return _sound(data, kind)
        case types.ResourceLink():
            fields = (block.title or block.name, block.uri, block.mime_type, block.description)
            return TextPart(f"[resource: {', '.join(field for field in fields if field)}]")
        case types.EmbeddedResource(resource=resource):
            return _resource(resource)
        case _:
            assert_never(block)


def _resource(resource: types.TextResourceContents | types.BlobResourceContents) -> Part:
    if isinstance(resource, types.TextResourceContents):
        return TextPart(f"[resource: {resource.uri}]\n{resource.text}")
    kind = resource.mime_type or "application/octet-stream"
    if kind.startswith("image/"):
        return ImagePart(f"data:{kind};base64,{resource.blob}")
    if kind.startswith("audio/"):
        return _sound(resource.blob, kind)
    name = resource.uri.rstrip("/").rpartition("/")[2] or None
    return DocumentPart(f"data:{kind};base64,{resource.blob}", name)


def _sound(data: str, kind: str) -> AudioPart:
    form = kind.partition("/")[2].partition(";")[0].strip()
    return AudioPart(data, _SOUNDS.get(form, form) or None)


def _told(parts: list[Part], structured: object) -> bool:
    """Whether the texts already say it: servers repeat it for clients that know no structure."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    values = [structured]
    # The official SDK wraps what is no object: 3 becomes {"result": 3}.
    if isinstance(structured, dict) and set(structured) == {"result"}:
        values.append(structured["result"])
    read = [_json(text) for text in texts]
    for value in values:
        if value in texts or value in read or (isinstance(value, list) and value in (texts, read)):
            return True
    return False


def _json(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text
