"""A string that is not shown by accident."""

from __future__ import annotations

import hashlib
from typing import NoReturn

__all__ = ["Secret"]


class Secret:
    """
    A key or a password. `reveal()` gives it; nothing else does.

    `repr`, `str`, f-strings, `vars` and `pickle` show or carry nothing of it.

    Args:
        value: The secret itself.
    """

    __slots__ = ("_reveal",)

    def __init__(self, value: str) -> None:
        # A closure, not an attribute: tools that walk attributes (rich tracebacks, debuggers'
        # dumps, `inspect.getmembers`) print a function, not the value.
        def reveal() -> str:
            return value

        self._reveal = reveal

    def reveal(self) -> str:
        """The secret itself."""
        return self._reveal()

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of its SHA-256: tells two keys apart and gives neither away."""
        return hashlib.sha256(self.reveal().encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        """Three stars."""
        return "Secret(***)"

    def __str__(self) -> str:
        """Three stars."""
        return "***"

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same."""
        return isinstance(other, Secret) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        """Of the fingerprint."""
        return hash(self.fingerprint)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("a Secret cannot be pickled: it would be written in clear")
