"""
What a tool returned, as the model reads it.

A result is data from outside: it is never run, never trusted, and what is longer than the cap is
not even written. Nothing of it is changed but what cannot be sent: half of a surrogate pair
becomes U+FFFD. Escape sequences of terminals stay; who prints a result cleans it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from loom.core.messages import (
    AudioPart,
    DocumentPart,
    FilePart,
    ImagePart,
    Part,
    RawPart,
    ReferencePart,
    TextPart,
    ThinkingPart,
)

__all__ = ["Unwritable", "as_content", "capped"]

_PARTS = (
    TextPart,
    ImagePart,
    DocumentPart,
    AudioPart,
    FilePart,
    ReferencePart,
    ThinkingPart,
    RawPart,
)
# Images and sounds cannot be cut. Vendors take images of about so many bytes; the cap of texts
# is far below any picture.
_MAX_PART_BYTES = 10 * 1024 * 1024
# What is below this is written by msgspec in one go, in microseconds.
_SMALL_NODES = 500
_NODE_CHARS = 64
_SLICE = 1024 * 1024
_MAX_DEPTH = 200


class Unwritable(TypeError):
    """A value of a kind that no model can read; the message says what to return instead."""


def as_content(value: Any, max_bytes: int | None = None) -> tuple[str | tuple[Part, ...], bool]:
    """
    What the model reads for a value.

    Texts stay as they are; parts are taken as parts; bytes must be UTF-8; everything else is
    written as JSON (None is `null`), and what is no JSON value as `str()` tells it.

    Args:
        value: Anything that a tool may return.
        max_bytes: Bytes (UTF-8) after which texts are cut, at a character, with a notice; None:
            never.

    Returns:
        The content, and whether it was cut.

    Raises:
        Unwritable: For generators and other iterators, for bytes that are no text, and for what
            can be written neither as JSON nor as text.
    """
    if isinstance(value, str):
        return capped(value, max_bytes)
    if isinstance(value, _PARTS):
        return _parts((value,), max_bytes)
    if isinstance(value, list | tuple) and value and all(isinstance(p, _PARTS) for p in value):
        return _parts(value, max_bytes)
    if isinstance(value, bytes | bytearray | memoryview):
        return capped(_decoded(bytes(value)), max_bytes)
    if not isinstance(value, dict | list | tuple | int | float | None):
        _refuse_iterators(value)
    try:
        return _json(value, max_bytes)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, Unwritable):
            raise
        return capped(_told(value), max_bytes)


def capped(text: str, max_bytes: int | None) -> tuple[str, bool]:
    """
    A text that is no longer than its cap, and can be sent.

    Args:
        text: Any text.
        max_bytes: Bytes (UTF-8) that are shown at most, the notice apart; None: all.

    Returns:
        The text, with a notice if it was cut; whether it was.
    """
    if max_bytes is None or len(text) * 4 <= max_bytes:
        return _sendable(text), False
    size = _size(text)
    if size <= max_bytes:
        return _sendable(text), False
    return _noticed(text, max_bytes, f"{size:,}"), True


def _noticed(text: str, max_bytes: int, size: str) -> str:
    # A character has at least one byte: what lies beyond need not be looked at.
    encoded = _sendable(text[:max_bytes]).encode()[:max_bytes]
    # The cut may have hit the middle of a character.
    shown = encoded.decode("utf-8", "ignore")
    count = len(shown.encode())
    return f"{shown}\n[cut: {size} bytes, the first {count:,} are shown]"


def _sendable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins the halves of a pair; one alone is replaced.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _size(text: str) -> int:
    if text.isascii():
        return len(text)
    # In slices: the whole of a huge text is not copied only to be counted.
    slices = (text[at : at + _SLICE] for at in range(0, len(text), _SLICE))
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in slices)


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Unwritable(
            f"it returned {len(data):,} bytes that are no UTF-8 text: return a text, or an"
            " ImagePart, DocumentPart or AudioPart"
        ) from None


def _parts(parts: Iterable[Part], max_bytes: int | None) -> tuple[tuple[Part, ...], bool]:
    """Parts whose texts share one cap; a picture is whole or not there."""
    out: list[Part] = []
    room, big_room, cut = max_bytes, _MAX_PART_BYTES, False
    for part in parts:
        if isinstance(part, TextPart):
            text, was_cut = capped(part.text, room)
            room = None if room is None else max(0, room - _size(part.text))
            out.append(TextPart(text))
            cut = cut or was_cut
            continue
        size = _part_size(part)
        if max_bytes is not None and size > big_room:
            kind = type(part).__name__.removesuffix("Part").lower()
            out.append(TextPart(f"[left out: {kind} of {size:,} bytes]"))
            cut = True
            continue
        big_room -= size
        out.append(part)
    return tuple(out), cut


def _part_size(part: Part) -> int:
    if isinstance(part, ImagePart | DocumentPart):
        return len(part.url)
    if isinstance(part, AudioPart):
        return len(part.data)
    return len(repr(part))


def _refuse_iterators(value: Any) -> None:
    if isinstance(value, Iterator | AsyncIterator):
        raise Unwritable(f"it returned a {type(value).__name__}: return a list or a text instead")


# --- JSON ------------------------------------------------------------------------------------


def _json(value: Any, max_bytes: int | None) -> tuple[str, bool]:
    if max_bytes is None or _is_small(value):
        try:
            return capped(_encoded(value), max_bytes)
        except UnicodeEncodeError:
            # Half of a surrogate pair stands in it; the way below replaces it.
            pass
    out: list[str] = []
    size = 0
    for piece in _pieces(value, max_bytes, frozenset()):
        out.append(piece)
        size += len(piece.encode())
        if max_bytes is not None and size > max_bytes:
            return _noticed("".join(out), max_bytes, f"more than {max_bytes:,}"), True
    return "".join(out), False


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=_other).decode()


def _is_small(value: Any) -> bool:
    waiting, room = [value], _SMALL_NODES
    while waiting:
        one = waiting.pop()
        room -= 1
        if isinstance(one, str | bytes):
            room -= len(one) // _NODE_CHARS
        elif isinstance(one, dict):
            room -= len(one)
            waiting += (*one, *one.values()) if room > 0 else ()
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one if len(one) < room else ()
            room = room if len(one) < room else -1
        if room < 0:
            return False
    return True


def _pieces(value: Any, max_bytes: int | None, above: frozenset[int]) -> Iterator[str]:
    """JSON in pieces, so that its writing can end at the cap."""
    if isinstance(value, str):
        # What lies beyond the cap is not written; the text is cut then anyway.
        yield _encoded(_sendable(value if max_bytes is None else value[: max_bytes + 1]))
        return
    if not isinstance(value, dict | list | tuple | set | frozenset | deque):
        yield _unit(value)
        return
    if id(value) in above or len(above) > _MAX_DEPTH:
        raise ValueError("it contains itself")
    inside = above | {id(value)}
    named = isinstance(value, dict)
    entries: Iterable[tuple[str, Any]] = (
        ((f"{_key(name)}:", item) for name, item in value.items())
        if isinstance(value, dict)
        else (("", item) for item in value)
    )
    yield "{" if named else "["
    for index, (head, item) in enumerate(entries):
        yield f",{head}" if index else head
        if _is_small(item):
            yield from _small_pieces(item, max_bytes, inside)
        else:
            yield from _pieces(item, max_bytes, inside)
    yield "}" if named else "]"


def _small_pieces(item: Any, max_bytes: int | None, inside: frozenset[int]) -> Iterator[str]:
    try:
        text = _encoded(item)
    except UnicodeEncodeError:
        yield from _pieces(item, max_bytes, inside)
    else:
        yield text


def _unit(value: Any) -> str:
    try:
        return _encoded(value)
    except UnicodeEncodeError:
        return _encoded(_sendable(_told(value)))


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _encoded(_sendable(key))
    return _encoded({key: 0})[1:-3]


def _other(value: Any) -> Any:
    """What msgspec does not know, as something that it does."""
    _refuse_iterators(value)
    kind = type(value)
    if hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_dump"):
        return value.model_dump(mode="json")
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | AbstractSet):
        return list(value)
    return _told(value)


def _told(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - it is a stranger's `__str__`
        raise Unwritable(
            f"it returned a {type(value).__name__} that can be written neither as JSON nor as text"
        ) from None
