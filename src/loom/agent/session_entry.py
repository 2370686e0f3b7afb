"""
Entries as stores hold them: one JSON object each, and back.

What `encode_entry` lets through, `decode_entry` gives back: a store never holds what it cannot
read. A kind that this version does not know is refused when it is read, and stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loom.agent.session import Entry
from loom.core.errors import ConfigInvalid, InvalidRequest

__all__ = ["decode_entry", "encode_entries", "kind_of"]

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Entry)

_KINDS = ("said", "begun", "condensed", "withdrawn")


class _Kind(msgspec.Struct):
    kind: str


_KIND = msgspec.json.Decoder(_Kind)


def encode_entries(entries: Sequence[Entry]) -> list[bytes]:
    """
    Entries as JSON.

    Args:
        entries: What a store is to keep.

    Returns:
        An object each, in UTF-8.

    Raises:
        InvalidRequest: If one cannot be kept; the message says which and why.
    """
    return [_encoded(entry, f"entries[{place}]") for place, entry in enumerate(entries)]


def decode_entry(data: bytes | str, where: str) -> Entry:
    """
    An entry from its JSON.

    Args:
        data: The object.
        where: Which entry it is, for the message.

    Returns:
        The entry.

    Raises:
        ConfigInvalid: If a newer version wrote it, or it is not as it was written.
    """
    try:
        entry: Entry = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        kind = kind_of(data)
        if kind and kind not in _KINDS:
            raise ConfigInvalid(
                f"{where} is of the kind {kind!r}, which this version of looms does not know",
                hint="A newer version wrote it: update this one. Nothing is lost.",
                attempts=0,
            ) from None
        raise ConfigInvalid(
            f"{where} is not as it was written: {error}",
            hint="The file was changed or damaged: take it from a backup.",
            attempts=0,
        ) from None
    return entry


def kind_of(data: bytes | str) -> str:
    """
    The kind of an entry, also of one that this version does not know.

    Args:
        data: Its JSON.

    Returns:
        The kind; empty when it has none.
    """
    try:
        return _KIND.decode(data).kind
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return ""


def _encoded(entry: Entry, where: str) -> bytes:
    try:
        data = _ENCODER.encode(entry)
        _DECODER.decode(data)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{where}: a text holds half of a character (U+{ord(error.object[error.start]):04X})",
            hint='Clean it first: text.encode("utf-8", "replace").decode().',
            attempts=0,
        ) from None
    except RecursionError:
        raise InvalidRequest(f"{where} is nested too deeply", attempts=0) from None
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{where} cannot be kept: {error}", attempts=0) from None
    return data
