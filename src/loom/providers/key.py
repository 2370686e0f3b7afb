"""A key that may be replaced while its client lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from loom.core.secret import Secret

__all__ = ["Key", "KeyLike"]

KeyLike: TypeAlias = str | Secret | Callable[[], str | Secret]
"""A key, or a function that gives it."""


class Key:
    """
    The key of an endpoint, and where a newer one may be found.

    Args:
        secret: The key.
        find: Looks the key up anew, in a thread of its own; None: there is no other.

    Attributes:
        secret: The key that holds now.
        bearer: As it is sent.
        fingerprint: Tells two keys apart and gives neither away.
    """

    def __init__(self, secret: Secret, find: Callable[[], Secret] | None = None) -> None:
        self._find = find
        self._hold(secret)

    async def renew(self, refused: Secret) -> bool:
        """
        Look for a newer key than one that was refused.

        Args:
            refused: The key that the vendor did not take.

        Returns:
            Whether another key holds now.

        Raises:
            LoomError: If there is no key any more.
        """
        if self.secret != refused:
            return True  # another call has found the new one
        if self._find is None:
            return False
        from asyncio import to_thread  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

        found = await to_thread(self._find)
        if found == refused:
            return False
        self._hold(found)
        return True

    def _hold(self, secret: Secret) -> None:
        # Every call asks for all three.
        self.secret = secret
        self.bearer = Secret(f"Bearer {secret.reveal()}")
        self.fingerprint = secret.fingerprint
