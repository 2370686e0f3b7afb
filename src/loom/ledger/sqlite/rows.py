"""
Rows of the file and entries, both ways.

A batch of rows goes in with one statement: the interpreter's lock is given back once a batch and
not once a row, so a busy event loop does not slow the writer down.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from loom.ledger.entry import Entry, Sent
from loom.ledger.ids import clean, micros
from loom.ledger.sqlite.trouble import DamagedRow

__all__ = [
    "FIELDS",
    "ROWS_AT_ONCE",
    "amount_of",
    "decode",
    "encode",
    "moment",
    "save_rows",
    "save_tags",
    "tag_values",
    "tags_of",
    "values",
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

_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in _CHANGED)

ROWS_AT_ONCE = 32
"""How many rows one statement saves: SQLite before 3.32 takes 999 values."""

_TAGS_AT = FIELDS.index("tags")

# Texts that come from outside; those of the opening are clean (`ledger/book.py`).
_TOLD = ("provider", "model", "service_tier", "price_id", "code", "request_id")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER = msgspec.json.Encoder()
_TAGS = msgspec.json.Decoder(dict[str, str])
_ATTEMPTS = msgspec.json.Decoder(tuple[Sent, ...])


@functools.lru_cache(maxsize=ROWS_AT_ONCE)
def save_rows(count: int) -> str:
    """
    The statement that saves rows; one that is over stays as it is.

    Args:
        count: How many, 1 to `ROWS_AT_ONCE`.

    Returns:
        SQL, which takes the values of all rows, one after the other.
    """
    return (
        f"INSERT INTO calls ({', '.join(FIELDS)}) VALUES {_places(len(FIELDS), count)}"  # noqa: S608 - our own columns
        f" ON CONFLICT (id) DO UPDATE SET {_CHANGES} WHERE calls.state IN ('open', 'uncertain')"
    )


@functools.lru_cache(maxsize=ROWS_AT_ONCE)
def save_tags(count: int) -> str:
    """
    The statement that saves the tags of rows.

    Args:
        count: How many tags, 1 to `ROWS_AT_ONCE`.

    Returns:
        SQL, which takes the values of all tags, one after the other.
    """
    return f"INSERT OR IGNORE INTO tags (name, value, id) VALUES {_places(3, count)}"  # noqa: S608 - question marks


def _places(width: int, count: int) -> str:
    one = f"({', '.join('?' * width)})"
    return ", ".join([one] * count)


def values(entry: Entry) -> tuple[Any, ...]:
    """
    A row as SQLite takes it.

    Args:
        entry: The row.

    Returns:
        Values in the order of `FIELDS`.
    """
    return _values(entry if _is_clean(entry) else _cleaned(entry))


def tag_values(row: tuple[Any, ...]) -> list[tuple[str, str, str]]:
    """
    The tags of a row as SQLite takes them.

    Args:
        row: As `values` makes it.

    Returns:
        Name, value and id of each.
    """
    return [(name, value, row[0]) for name, value in tags_of(row[_TAGS_AT]).items()]


def encode(entry: Entry) -> bytes:
    """
    A row as JSON.

    Args:
        entry: The row.

    Returns:
        An array in the order of `FIELDS`.
    """
    return _ENCODER.encode(values(entry))


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


def _is_clean(entry: Entry) -> bool:
    """Whether the file can hold what came from outside."""
    for name in _TOLD:
        text = getattr(entry, name)
        if text is not None and not text.isprintable():
            return False
    return all(
        sent.provider.isprintable()
        and sent.model.isprintable()
        and sent.code.isprintable()
        and (sent.request_id is None or sent.request_id.isprintable())
        for sent in entry.attempts
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
