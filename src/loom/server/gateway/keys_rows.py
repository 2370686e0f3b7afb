"""Keys and what was done to them, as rows of the file, and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec

from loom.core.errors import ConfigInvalid
from loom.ledger.budgets import Budget, Period
from loom.ledger.ids import clean, micros
from loom.ledger.sqlite.rows import moment
from loom.ledger.sqlite.trouble import DamagedRow
from loom.server.gateway.keys import KeyTerms, VirtualKey
from loom.server.gateway.keys_text import digest_of, is_well_formed

__all__ = [
    "Action",
    "Audit",
    "add_key",
    "all_keys",
    "changes",
    "find",
    "named",
    "note",
    "put_end",
    "put_terms",
]

Action: TypeAlias = Literal["create", "update", "revoke"]
"""What was done to a key."""

_KEYS = "SELECT id, name, hash, terms, created, revoked FROM keys"
_AUDIT = "SELECT number, at, actor, action, id, name, hash, change FROM audit"
_MOST_ACTOR = 128


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was done to a key, by whom and when.

    Attributes:
        number: From 1, without gaps.
        at: UTC.
        actor: Who did it.
        action: "create", "update" or "revoke".
        id: The key's.
        name: The key's.
        hash: The key's SHA-256, as hex digits.
        change: Each term that changed, with what it was and what it is; None: no limit.
    """

    number: int
    at: datetime
    actor: str
    action: Action
    id: str
    name: str
    hash: str
    change: Mapping[str, tuple[Any, Any]]

    @classmethod
    def of(cls, file: sqlite3.Connection, which: str | None, limit: int) -> tuple[Audit, ...]:
        """
        Read rows, the newest first.

        Args:
            file: The file.
            which: A key's id, name or secret; None: all.
            limit: How many at most.

        Returns:
            The rows.
        """
        chosen = "" if which is None else "WHERE id = :which OR name = :which OR hash = :hash"
        values = {"which": which, "hash": _digest(which or ""), "limit": limit}
        rows = file.execute(f"{_AUDIT} {chosen} ORDER BY number DESC LIMIT :limit", values)
        return tuple(_audit(row) for row in rows)


class _KeptBudget(msgspec.Struct, frozen=True, omit_defaults=True):
    limit_usd: Decimal
    period: Period | None = None
    warn_usd: Decimal | None = None
    on_unknown_price: Literal["refuse", "allow"] = "refuse"


class _KeptTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """`KeyTerms` as JSON; a budget's amounts stand as text, since a float is no money."""

    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    budget: _KeptBudget | None = None
    max_tokens: int | None = None
    concurrency: int | None = None
    expires_at: datetime | None = None
    tags: dict[str, str] = {}


_TERMS = msgspec.json.Decoder(_KeptTerms)
_CHANGE = msgspec.json.Decoder(dict[str, tuple[Any, Any]])


def all_keys(file: sqlite3.Connection) -> tuple[VirtualKey, ...]:
    """
    Every key there ever was, the oldest first.

    Args:
        file: The file.

    Returns:
        The keys.
    """
    return tuple(_key(row) for row in file.execute(f"{_KEYS} ORDER BY number"))


def find(
    file: sqlite3.Connection, column: Literal["id", "hash"], value: object
) -> VirtualKey | None:
    """
    Find a key by what only it has.

    Args:
        file: The file.
        column: Where to look.
        value: What to look for.

    Returns:
        The key; None if there is none.
    """
    row = file.execute(f"{_KEYS} WHERE {column} = ?", (value,)).fetchone()
    return None if row is None else _key(row)


def named(file: sqlite3.Connection, which: str) -> VirtualKey | None:
    """
    Find the key that somebody means.

    Args:
        file: The file.
        which: Its id, its name, or the key itself.

    Returns:
        The key; of several with one name the one that is not revoked, else the newest; None if
        there is none.
    """
    row = file.execute(
        f"{_KEYS} WHERE id = :which OR name = :which OR hash = :hash"
        " ORDER BY id = :which DESC, revoked IS NULL DESC, number DESC",
        {"which": which, "hash": _digest(which)},
    ).fetchone()
    return None if row is None else _key(row)


def add_key(file: sqlite3.Connection, key: VirtualKey) -> None:
    """
    Write a new key.

    Args:
        file: The file, in a transaction.
        key: The key.
    """
    file.execute(
        "INSERT INTO keys (id, name, hash, terms, created) VALUES (?, ?, ?, ?, ?)",
        (key.id, key.name, key.hash, _terms_json(key), micros(key.created_at)),
    )


def put_terms(file: sqlite3.Connection, key: VirtualKey) -> None:
    """
    Write what a key allows from now on.

    Args:
        file: The file, in a transaction.
        key: The key with its new terms.
    """
    file.execute("UPDATE keys SET terms = ? WHERE id = ?", (_terms_json(key), key.id))


def put_end(file: sqlite3.Connection, key: VirtualKey, at: datetime) -> None:
    """
    Write that a key is revoked.

    Args:
        file: The file, in a transaction.
        key: The key.
        at: When.
    """
    file.execute("UPDATE keys SET revoked = ? WHERE id = ?", (micros(at), key.id))


def changes(old: KeyTerms, new: KeyTerms) -> dict[str, tuple[Any, Any]]:
    """
    What is different.

    Args:
        old: What a key allowed.
        new: What it allows.

    Returns:
        Each term that differs, with both values as JSON has them.
    """
    was, now = msgspec.to_builtins(_kept(old)), msgspec.to_builtins(_kept(new))
    return {
        name: (was.get(name), now.get(name))
        for name in _KeptTerms.__struct_fields__
        if was.get(name) != now.get(name)
    }


def note(
    file: sqlite3.Connection,
    action: Action,
    key: VirtualKey,
    *,
    at: datetime,
    actor: str,
    change: Mapping[str, tuple[Any, Any]],
) -> None:
    """
    Write into the audit what was done.

    Args:
        file: The file, in the transaction that does it.
        action: What was done.
        key: To which key.
        at: When.
        actor: By whom.
        change: As `changes` gives it.
    """
    file.execute(
        "INSERT INTO audit (at, actor, action, id, name, hash, change) VALUES (?,?,?,?,?,?,?)",
        (
            micros(at),
            clean(actor)[:_MOST_ACTOR],
            action,
            key.id,
            key.name,
            key.hash,
            msgspec.json.encode(change).decode(),
        ),
    )


def _digest(which: str) -> bytes:
    return digest_of(which) if is_well_formed(which) else b""


def _kept(terms: KeyTerms) -> _KeptTerms:
    budget = terms.budget
    return _KeptTerms(
        models=terms.models,
        rpm=terms.rpm,
        tpm=terms.tpm,
        budget=None
        if budget is None
        else _KeptBudget(budget.limit, budget.period, budget.warning, budget.on_unknown_price),
        max_tokens=terms.max_tokens,
        concurrency=terms.concurrency,
        expires_at=terms.expires_at,
        tags=dict(terms.tags),
    )


def _terms_json(terms: KeyTerms) -> str:
    return msgspec.json.encode(_kept(terms)).decode()


def _key(row: tuple[Any, ...]) -> VirtualKey:
    try:
        key_id, name, digest, terms, created, revoked = row
        if not isinstance(digest, bytes):
            raise TypeError("its hash is a text")  # noqa: TRY301 - as all else that is wrong here
        kept = _TERMS.decode(terms)
        fields = {field: getattr(kept, field) for field in _KeptTerms.__struct_fields__}
        if kept.budget is not None:
            fields["budget"] = Budget(**msgspec.structs.asdict(kept.budget))
        return VirtualKey(
            **fields,
            id=key_id,
            name=name,
            hash=digest,
            created_at=moment(created),
            revoked_at=None if revoked is None else moment(revoked),
        )
    except (msgspec.MsgspecError, ConfigInvalid, ValueError, TypeError, OverflowError) as error:
        raise DamagedRow(f"the row of a key is not as it was written: {error}") from None


def _audit(row: tuple[Any, ...]) -> Audit:
    number, at, actor, action, key_id, name, digest, change = row
    try:
        return Audit(
            number=number,
            at=moment(at),
            actor=actor,
            action=action,
            id=key_id,
            name=name,
            hash=digest.hex(),
            change=_CHANGE.decode(change),
        )
    except (msgspec.MsgspecError, AttributeError, TypeError, OverflowError) as error:
        raise DamagedRow(f"a row of the audit is not as it was written: {error}") from None
