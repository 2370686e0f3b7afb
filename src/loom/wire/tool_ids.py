"""
Tool call ids that every vendor takes, as Mistral wants them: nine of `A-Z a-z 0-9`.

Any other id (OpenAI's `call_...`, Anthropic's `toolu_...`, a UUID, an empty one) is mapped for
Mistral (contract: section 3): the same id always to the same nine, two ids of one conversation
never to the same, and back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

__all__ = ["ToolIds", "hashed_id", "is_legal_id", "legal_name"]

_LEGAL = re.compile(r"[A-Za-z0-9]{9}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def is_legal_id(text: str) -> bool:
    """
    Whether Mistral takes this id as it is.

    Args:
        text: A tool call's id.

    Returns:
        True for exactly nine letters or digits of ASCII.
    """
    return _LEGAL.fullmatch(text) is not None


def hashed_id(text: str, salt: int = 0) -> str:
    """
    A legal id for any text: base 62 of its SHA-256.

    Args:
        text: Any id.
        salt: Another salt gives another id; 0 first.

    Returns:
        Nine letters or digits; 62**9 (1.4e16) of them, so two of a conversation's ids fall
        together by chance once in 1e10 conversations of a thousand calls.
    """
    number = int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode("utf-8", "replace")).digest())
    letters: list[str] = []
    for _ in range(9):
        number, rest = divmod(number, 62)
        letters.append(_ALPHABET[rest])
    return "".join(letters)


_LEGAL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_NAME = 64
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def legal_name(name: str) -> str:
    """
    A tool's name as vendors take it: 1 to 64 of `A-Z a-z 0-9 _ -`.

    A model may ask for a tool that was never offered, by a name that is none; the call stays in
    the history, and must not have the whole conversation refused.

    Args:
        name: Any.

    Returns:
        The same if it is legal; else what is legal of it, with a part that tells it from others.
    """
    if _LEGAL_NAME.fullmatch(name) is not None:
        return name
    told = hashed_id(name)
    kept = _NOT_IN_A_NAME.sub("_", name)[: _LONGEST_NAME - len(told) - 1]
    return f"{kept or 'tool'}_{told}"


class ToolIds:
    """
    The ids of one conversation, both ways.

    Args:
        legal: Ids of the conversation that are legal already; they are never given to another.
        keeps: Whether the vendor takes an id as it is; None: as Mistral does.
    """

    def __init__(
        self, legal: frozenset[str] = frozenset(), keeps: Callable[[str], bool] | None = None
    ) -> None:
        self._keeps = keeps or is_legal_id
        self._taken = dict.fromkeys(legal, "")
        self._wire: dict[tuple[str, int], str] = {}
        self.originals: dict[str, str] = {}

    def wire_id(self, original: str, occurrence: int = 0) -> str:
        """
        The id that goes out for this one.

        Args:
            original: The caller's id; may be empty.
            occurrence: Which of several calls of one turn that share this id, from 0.

        Returns:
            The id itself if it is legal and the first of its turn, else a hashed one.
        """
        if occurrence == 0 and self._keeps(original):
            self.originals[original] = original
            return original
        key = (original, occurrence)
        if key in self._wire:
            return self._wire[key]
        salt = occurrence << 16
        while (candidate := hashed_id(original, salt)) in self._taken:
            salt += 1
        self._taken[candidate] = original
        self._wire[key] = candidate
        self.originals[candidate] = original
        return candidate
