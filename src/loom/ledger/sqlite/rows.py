"""
Rows of the file and entries, both ways.

A batch of rows goes in as one JSON text and one statement (`json_each`): the interpreter's lock is
given back once a batch and not once a row, so a busy event loop does not slow the writer down.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from loom.ledger.entry import Entry, Sent
from loom.ledger.ids import clean, micros
from loom.ledger.sqlite.trouble import DamagedRow

__all__ = [
    "FIELDS",
    "SAVE_ROWS",
    "SAVE_TAGS",
    "amount_of",
    "decode",
    "encode",
    "encode_tags",
    "moment",
    "tags_in",
    "tags_of",
]

FIELDS = (
    "id", "at", "state", "provider", "model", "asked_model", "kind", "stream", "key", "client",
    "session", "tenant", "tags", "input_tokens", "output_tokens", "cached_tokens", "audio_tokens",
    "audio_seconds", "service_tier", "price_id", "cost_usd", "reserved_usd", "attempts",
    "latency_s", "first_byte_s", "code", "request_id",
)  # fmt: skip
"""Columns in the order of a row."""

# What a settlement changes; whose call it was stays.
_CHANGED = (
    "state", "provider", "model", "input_tokens", "output_tokens", "cached_tokens", "audio_tokens",
    "audio_seconds", "service_tier", "price_id", "cost_usd", "reserved_usd", "attempts",
    "latency_s", "first_byte_s", "code", "request_id",
)  # fmt: skip

_VALUES = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(FIELDS)))
_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in _CHANGED)

# Every name comes from the two tuples above; what is a caller's travels as a parameter.
SAVE_ROWS = (
    f"INSERT INTO calls ({', '.join(FIELDS)}) SELECT {_VALUES}"  # noqa: S608 - our own columns
    " FROM json_each(?) WHERE true"
    f" ON CONFLICT (id) DO UPDATE SET {_CHANGES} WHERE calls.state IN ('open', 'uncertain')"
)
"""Saves rows; one that is over stays as it is."""

SAVE_TAGS = (
    "INSERT OR IGNORE INTO tags (name, value, id) SELECT json_extract(value, '$[0]'),"
    " json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)"
)
"""Saves the tags of rows."""

# Texts that come from outside; those of the opening are clean (`ledger/book.py`).
_TOLD = ("provider", "model", "service_tier", "price_id", "code", "request_id")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER = msgspec.json.Encoder()
_TAGS = msgspec.json.Decoder(dict[str, str])
_ATTEMPTS = msgspec.json.Decoder(tuple[Sent, ...])


def encode(entry: Entry) -> bytes:
    """
    A row as JSON.

    Args:
        entry: The row.

    Returns:
        An array in the order of `FIELDS`.
    """
    try:
        encoded = _ENCODER.encode(_values(entry))
    except UnicodeEncodeError:
        return _ENCODER.encode(_values(_cleaned(entry)))
    # SQLite ends a text at its first NUL.
    return _ENCODER.encode(_values(_cleaned(entry))) if b"\\u0000" in encoded else encoded


def encode_tags(entry: Entry) -> list[bytes]:
    """
    The tags of a row as JSON.

    Args:
        entry: The row.

    Returns:
        An array of name, value and id for each.
    """
    return [_ENCODER.encode([name, value, entry.id]) for name, value in entry.tags.items()]


def decode(row: tuple[Any, ...]) -> Entry:
    """
    An entry from its row.

    Args:
        row: Values in the order of `FIELDS`.

    Returns:
        The entry.

    Raises:
        DamagedRow: If it is not as it was written.
    """
    try:
        return _decoded(row)
    except (ValueError, TypeError, DamagedRow) as error:
        raise DamagedRow(f"row {row[0]} cannot be read: {error}") from error


def amount_of(text: str | None) -> Decimal | None:
    """
    An amount as the file holds it.

    Args:
        text: The amount's digits; None when unknown.

    Returns:
        US dollars; None when unknown.

    Raises:
        DamagedRow: If it is not as it was written.
    """
    try:
        return None if text is None else Decimal(text)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise DamagedRow(f"an amount cannot be read: {text!r}") from error


def _decoded(row: tuple[Any, ...]) -> Entry:
    values = dict(zip(FIELDS, row, strict=True))
    values["at"] = moment(values["at"])
    values["stream"] = bool(values["stream"])
    for name in ("cost_usd", "reserved_usd"):
        values[name] = amount_of(values[name])
    values["tags"] = tags_of(values["tags"])
    values["attempts"] = _ATTEMPTS.decode(values["attempts"]) if values["attempts"] else ()
    return msgspec.convert(values, Entry)


def tags_of(text: str) -> dict[str, str]:
    """
    The tags of a row.

    Args:
        text: As the file holds them.

    Returns:
        Names and values.
    """
    return _TAGS.decode(text) if text else {}


def tags_in(rows: Iterable[bytes]) -> list[bytes]:
    """
    The tags of rows that are JSON already.

    Args:
        rows: As `encode` makes them.

    Returns:
        An array of name, value and id for each.
    """
    place = FIELDS.index("tags")
    each = [msgspec.json.decode(row) for row in rows]
    return [
        _ENCODER.encode([name, value, row[0]])
        for row in each
        for name, value in tags_of(row[place]).items()
    ]


def moment(micros_since: int) -> datetime:
    """
    A time as the file holds it.

    Args:
        micros_since: Microseconds since 1970.

    Returns:
        UTC.
    """
    return _EPOCH + timedelta(microseconds=micros_since)


def _values(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.id,
        micros(entry.at),
        entry.state,
        entry.provider,
        entry.model,
        entry.asked_model,
        entry.kind,
        entry.stream,
        entry.key,
        entry.client,
        entry.session,
        entry.tenant,
        _ENCODER.encode(entry.tags).decode() if entry.tags else "",
        entry.input_tokens,
        entry.output_tokens,
        entry.cached_tokens,
        entry.audio_tokens,
        entry.audio_seconds,
        entry.service_tier,
        entry.price_id,
        None if entry.cost_usd is None else str(entry.cost_usd),
        None if entry.reserved_usd is None else str(entry.reserved_usd),
        _ENCODER.encode(entry.attempts).decode() if entry.attempts else "",
        entry.latency_s,
        entry.first_byte_s,
        entry.code,
        entry.request_id,
    )


def _cleaned(entry: Entry) -> Entry:
    """Give the row as the file can hold it: a header may have brought halves of characters."""
    texts = {name: clean(value) for name in _TOLD if isinstance(value := getattr(entry, name), str)}
    attempts = tuple(
        msgspec.structs.replace(
            sent,
            provider=clean(sent.provider),
            model=clean(sent.model),
            code=clean(sent.code),
            request_id=None if sent.request_id is None else clean(sent.request_id),
        )
        for sent in entry.attempts
    )
    return msgspec.structs.replace(entry, attempts=attempts, **texts)
