"""
Where virtual keys are kept: one SQLite file, for any number of processes at once.

A method opens the file, does one thing, and closes it: nothing is held between two calls, so a
gateway, a command line and a backup never wait for each other longer than a commit takes. Every
change writes a row of the audit in the same transaction: there is no change without one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loom.core.ambient import Clock, SystemClock, secret_bytes
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.core.secret import Secret
from loom.ledger.sqlite.file import Connect, plain_connect
from loom.server.gateway.keys import KeyTerms, VirtualKey, check_name
from loom.server.gateway.keys_file import BUSY_S, open_reader, opened, trouble_of_keys
from loom.server.gateway.keys_rows import (
    Audit,
    add_key,
    all_keys,
    changes,
    find,
    named,
    note,
    put_end,
    put_terms,
)
from loom.server.gateway.keys_text import digest_of, new_key

__all__ = ["KeyStore", "MadeKey"]

T = TypeVar("T")

_ID_BYTES = 8


class MadeKey(msgspec.Struct, frozen=True, kw_only=True):
    """
    A new key, and the only moment at which its secret is known.

    Attributes:
        key: As it is kept.
        secret: What the caller sends; it cannot be had a second time.
    """

    key: VirtualKey
    secret: Secret


class KeyStore:
    """
    A file of virtual keys.

    Args:
        path: The file; it and its folder are made with the first key, for their owner alone.
        clock: Dates what is done.
        connect: How the file is opened.
        busy_s: How long to wait for another process, in seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        connect: Connect = plain_connect,
        busy_s: float = BUSY_S,
    ) -> None:
        self.path = path
        self._clock = clock or SystemClock()
        self._connect = connect
        self._busy_s = busy_s

    def create(self, name: str, terms: KeyTerms | None = None, *, actor: str) -> MadeKey:
        """
        Make a key.

        Args:
            name: What people call it; no other key that is not revoked may have it.
            terms: What it allows; None: everything.
            actor: Who makes it.

        Returns:
            The key with its secret.

        Raises:
            ConfigInvalid: If the name cannot be one or is taken, or the file cannot be used.
            KeysUnavailable: If the file cannot be used now.
        """
        check_name(name)
        now, secret = self._clock.now(), new_key()
        key = VirtualKey(
            **msgspec.structs.asdict(terms or KeyTerms()),
            id=f"key_{secret_bytes(_ID_BYTES).hex()}",
            name=name,
            hash=digest_of(secret.reveal()),
            created_at=now,
        )
        with self._changing() as file:
            same = named(file, name)
            if same is not None and same.revoked_at is None:
                raise ConfigInvalid(
                    f"there is a key {name!r} already",
                    hint="Give another name, or revoke that key first.",
                    attempts=0,
                )
            add_key(file, key)
            note(file, "create", key, at=now, actor=actor, change=changes(KeyTerms(), key))
        return MadeKey(key=key, secret=secret)

    def list(self) -> tuple[VirtualKey, ...]:
        """
        Every key there ever was, the oldest first.

        Returns:
            The keys; none if there is no file yet.

        Raises:
            ConfigInvalid: If the file cannot be used.
            KeysUnavailable: If it cannot be used now.
        """
        return self._read(all_keys, ())

    def get(self, which: str) -> VirtualKey | None:
        """
        Find a key.

        Args:
            which: Its id, its name, or the key itself: whoever finds one may ask whose it is.

        Returns:
            The key; None if there is none. Of several with one name the one that is not
            revoked, else the newest.

        Raises:
            ConfigInvalid: If the file cannot be used.
            KeysUnavailable: If it cannot be used now.
        """
        return self._read(lambda file: named(file, which), None)

    def find_by_hash(self, digest: bytes) -> VirtualKey | None:
        """
        Find a key by what is stored of it.

        Args:
            digest: The SHA-256 of its secret.

        Returns:
            The key, whatever became of it; None if there is none.

        Raises:
            ConfigInvalid: If the file cannot be used.
            KeysUnavailable: If it cannot be used now.
        """
        return self._read(lambda file: find(file, "hash", digest), None)

    def revoke(self, which: str, *, actor: str) -> VirtualKey:
        """
        Let a key end, for good; a second time changes nothing.

        Args:
            which: Its id, its name, or the key itself.
            actor: Who does it.

        Returns:
            The key as it stands now.

        Raises:
            InvalidRequest: If there is no such key.
            ConfigInvalid: If the file cannot be used.
            KeysUnavailable: If it cannot be used now.
        """
        now = self._clock.now()
        with self._changing(which) as file:
            key = _known(file, which)
            if key.revoked_at is not None:
                return key
            gone = msgspec.structs.replace(key, revoked_at=now)
            put_end(file, key, now)
            note(file, "revoke", gone, at=now, actor=actor, change={})
        return gone

    def update(self, which: str, terms: Mapping[str, Any], *, actor: str) -> VirtualKey:
        """
        Change what a key allows; its secret stays.

        Args:
            which: Its id, its name, or the key itself.
            terms: Fields of `KeyTerms` with their new values; the others stay.
            actor: Who does it.

        Returns:
            The key as it stands now.

        Raises:
            InvalidRequest: If there is no such key, or it is revoked.
            ConfigInvalid: If a value makes no sense, or the file cannot be used.
            KeysUnavailable: If the file cannot be used now.
        """
        if unknown := sorted(set(terms) - set(KeyTerms.__struct_fields__)):
            raise ConfigInvalid(f"a key has no term {unknown[0]!r}", attempts=0)
        now = self._clock.now()
        with self._changing(which) as file:
            key = _known(file, which)
            if key.revoked_at is not None:
                raise InvalidRequest(
                    f"the key {key.name!r} is revoked",
                    hint="Make a new one: a revoked key never comes back.",
                    attempts=0,
                )
            new = msgspec.structs.replace(key, **terms)
            change = changes(key, new)
            if change:
                put_terms(file, new)
                note(file, "update", new, at=now, actor=actor, change=change)
        return new

    def audit(self, which: str | None = None, *, limit: int = 1000) -> tuple[Audit, ...]:
        """
        What was done to keys, the newest first.

        Args:
            which: The id, the name, or the key itself; None: all keys. A name means every key
                that ever had it.
            limit: How many rows at most.

        Returns:
            The rows.

        Raises:
            ConfigInvalid: If the file cannot be used.
            KeysUnavailable: If it cannot be used now.
        """
        return self._read(lambda file: Audit.of(file, which, limit), ())

    def _changing(self, which: str | None = None) -> AbstractContextManager[sqlite3.Connection]:
        if which is not None and not self.path.exists():
            # No file is made for a key that there is not.
            raise _unknown(which)
        return opened(self.path, connect=self._connect, busy_s=self._busy_s)

    def _read(self, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        file = open_reader(self.path, connect=self._connect, busy_s=self._busy_s)
        if file is None:
            return nothing
        with closing(file):
            try:
                return question(file)
            except sqlite3.Error as error:
                raise trouble_of_keys(self.path, error) from error


def _known(file: sqlite3.Connection, which: str) -> VirtualKey:
    key = named(file, which)
    if key is None:
        raise _unknown(which)
    return key


def _unknown(which: str) -> InvalidRequest:
    # Somebody may have given the key itself, or one with a typo: it is not shown.
    secret = "loom_sk_" in which.lower()
    return InvalidRequest(
        "there is no such key" if secret else f"there is no key {which[:64]!r}",
        hint="`looms keys list` names every key.",
        http_status=404,
        attempts=0,
    )
