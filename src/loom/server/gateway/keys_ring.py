"""
Whom the gateway lets in: asked for every request, answered from memory in microseconds.

Rule 1: every refusal is one error with one text, whatever was wrong, after the same steps: hash,
look up, compare, look at the clock. The log tells the operator more, and never the key.
Rule 2: the file is read on a thread of its own. While it cannot be read the keys that were read
last hold, and `trouble` says so to whoever asks for readiness.
Rule 3: a door that was shut stays shut until the process ends, even if the file of keys vanishes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hmac import compare_digest
from typing import TYPE_CHECKING, Self

from loom.core.ambient import Clock, SystemClock
from loom.core.errors import InvalidAPIKey, KeysUnavailable, LimitExceeded, LoomError
from loom.server.gateway.keys import ADMIN, ANYONE, VirtualKey, open_door
from loom.server.gateway.keys_failures import Failures
from loom.server.gateway.keys_text import digest_of

if TYPE_CHECKING:
    from loom.server.gateway.keys_watch import KeyWatch

__all__ = ["LOOK_S", "KeyRing"]

LOOK_S = 0.25
"""How often the file is looked at, in seconds: one look may fail, and the second is kept."""

_log = logging.getLogger("loom.keys")

# No key of ours is longer; what is longer is not hashed, so that a header costs no time.
_MOST_CHARACTERS = 512
_SAID = "The API key is missing or not valid."
_HINT = (
    "Send `Authorization: Bearer KEY` with a key of this gateway; keys expire and are revoked,"
    " and who runs the gateway can make a new one."
)


class KeyRing:
    """
    The keys of a gateway, in memory.

        async with KeyRing(KeyWatch(path), host="127.0.0.1") as ring:
            key = ring.admit(authorization, address)

    Args:
        watch: Looks at the file.
        host: The address that the gateway listens on.
        admin_hash: The SHA-256 of the gateway's own key; None: it has none.
        clock: Tells the time, and when to look again.
        failures: Counts wrong keys by address.
    """

    def __init__(
        self,
        watch: KeyWatch,
        *,
        host: str,
        admin_hash: bytes | None = None,
        clock: Clock | None = None,
        failures: Failures | None = None,
    ) -> None:
        self._watch = watch
        self._host = host
        self._admin_hash = admin_hash
        self._clock = clock or SystemClock()
        self._failures = failures or Failures()
        self._by_hash: dict[bytes, VirtualKey] = {}
        self._open = False
        self._shut = False
        self._task: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loom-keys")
        self.trouble: LoomError | None = None
        """Why the file could not be read at the last look; None: it could."""

    @property
    def is_open(self) -> bool:
        """Whether callers on this machine need no key."""
        return self._open

    @property
    def keys(self) -> tuple[VirtualKey, ...]:
        """Every key there ever was, as of the last look."""
        return tuple(self._by_hash.values())

    def admit(self, authorization: str | None, address: str = "") -> VirtualKey:
        """
        Let a caller in, or not.

        Args:
            authorization: The header of that name; None when there is none.
            address: Where the caller comes from, for counting wrong keys.

        Returns:
            Whose call it is: a key, `ADMIN`, or `ANYONE` while the door is open.

        Raises:
            InvalidAPIKey: One error for no key, and for a malformed, unknown, expired or revoked
                one.
            LimitExceeded: If too many wrong keys came from this address.
        """
        digest = digest_of(_bearer(authorization))
        key = self._by_hash.get(digest, ANYONE)
        # Each of these is looked at, whatever the one before it says.
        is_admin = compare_digest(self._admin_hash or ADMIN.hash, digest)
        is_key = compare_digest(key.hash, digest)
        state = key.state(self._clock.now())
        if is_key and state == "active":
            return key
        if is_admin and self._admin_hash is not None:
            return ADMIN
        if self._open:
            return ANYONE
        raise self._refusal(key, state, address)

    def admit_admin(self, authorization: str | None, address: str = "") -> VirtualKey:
        """
        Let in nobody but the gateway's own key: for what makes and revokes keys.

        Args:
            authorization: The header of that name; None when there is none.
            address: Where the caller comes from.

        Returns:
            `ADMIN`.

        Raises:
            InvalidAPIKey: For everybody else, as `admit` says it.
            LimitExceeded: If too many wrong keys came from this address.
        """
        digest = digest_of(_bearer(authorization))
        is_admin = compare_digest(self._admin_hash or ADMIN.hash, digest)
        if is_admin and self._admin_hash is not None:
            return ADMIN
        raise self._refusal(ANYONE, "not the admin's", address)

    def take(self, keys: Sequence[VirtualKey]) -> None:
        """
        Take these keys from now on; requests on their way go on.

        Args:
            keys: Every key there ever was, revoked ones too.
        """
        before = self._by_hash
        # Who counts by a key keeps counting: one that is the same stays the same object.
        self._by_hash = {
            key.hash: same if (same := before.get(key.hash)) == key else key for key in keys
        }
        self._shut = self._shut or bool(keys)
        was_open, self._open = self._open, not self._shut and open_door(self._host, keys)
        if was_open and not self._open:
            _log.info("The first key was made: callers need one from now on")

    async def refresh(self) -> None:
        """
        Look at the file now.

        Raises:
            ConfigInvalid: If it cannot be used.
            KeysUnavailable: If it cannot be used now.
        """
        loop = asyncio.get_running_loop()
        keys = await loop.run_in_executor(self._pool, self._watch.look)
        if keys is not None:
            self.take(keys)

    async def watch(self) -> None:
        """Look again and again, until it is cancelled; trouble is told once, until it is over."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.refresh()
            except LoomError as error:
                if self.trouble is None:
                    _log.error("The keys of the last look hold: %s", error)
                self.trouble = error
            except Exception:  # noqa: BLE001 - who stops looking never hears of a revocation
                _log.exception("An unexpected error while looking at the keys")
                self.trouble = KeysUnavailable("the keys cannot be read", attempts=0)
            else:
                if self.trouble is not None:
                    _log.info("The file of keys can be read again")
                self.trouble = None

    async def __aenter__(self) -> Self:
        """Read the file, and go on looking; raises what `refresh` raises."""
        try:
            await self.refresh()
        except BaseException:
            self._pool.shutdown(wait=False)
            raise
        self._task = asyncio.create_task(self.watch(), name="loom-keys")
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Look no more; what is in memory is let go by who holds the ring."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._pool.submit(self._watch.close)
        self._pool.shutdown(wait=False)

    def _refusal(self, key: VirtualKey, state: str, address: str) -> LoomError:
        wait_s = self._failures.wait_s(address, self._clock.monotonic_s())
        if wait_s > 0:
            return LimitExceeded(
                "Too many requests with a wrong API key came from this address.",
                hint=_HINT,
                retry_after_s=wait_s,
                attempts=0,
            )
        whose = "unknown" if key is ANYONE else f"{key.name} ({key.id}, {state})"
        _log.warning("A key was refused", extra={"address": address, "whose": whose})
        return InvalidAPIKey(_SAID, hint=_HINT, attempts=0)


def _bearer(authorization: str | None) -> str:
    """Give what stands behind `Bearer`; a text that is no key if there is nothing like it."""
    scheme, _, rest = (authorization or "").partition(" ")
    text = rest.strip(" \t")
    return text if scheme.lower() == "bearer" and len(text) <= _MOST_CHARACTERS else ""
