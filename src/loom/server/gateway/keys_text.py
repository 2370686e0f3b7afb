"""
The form of a virtual key: `loom_sk_`, 30 random characters, 6 of a checksum.

Whoever finds such a text in a repository or a log can tell without asking anybody that it is a
key and not a slip of the keyboard. What is stored is its SHA-256: 178 random bits cannot be
searched for, so a slow hash would protect nothing and cost every request.

Source: GitHub, "Behind GitHub's new authentication token formats", 2021-04-05 (prefix, base62,
CRC-32 in the last six characters).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable

from loom.core.ambient import secret_bytes
from loom.core.secret import Secret

__all__ = ["KEY_CHARACTERS", "KEY_PREFIX", "digest_of", "is_well_formed", "new_key"]

KEY_PREFIX = "loom_sk_"
"""What every virtual key begins with."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 30
_CHECK = 6  # 62 ** 6 is more than 2 ** 32: each checksum has a text of its own
# 77 bits more than 62 ** 30 needs: no character is likelier than another by more than 2 ** -77.
_DRAWN_BYTES = 32

KEY_CHARACTERS = len(KEY_PREFIX) + _RANDOM + _CHECK
"""How long a virtual key is, in characters."""


def new_key(draw: Callable[[int], bytes] = secret_bytes) -> Secret:
    """
    A key that nobody has.

    Args:
        draw: Gives so many bytes that nobody can guess.

    Returns:
        `loom_sk_` and 36 characters that are letters and digits.
    """
    number = int.from_bytes(draw(_DRAWN_BYTES), "big") % len(_DIGITS) ** _RANDOM
    random = _base62(number, _RANDOM)
    return Secret(f"{KEY_PREFIX}{random}{_checksum(random)}")


def is_well_formed(text: str) -> bool:
    """
    Whether a text has the form of a virtual key, by its checksum; nobody is asked.

    Any single wrong character is found, and any two that changed places.

    Args:
        text: Any text.

    Returns:
        True for each key that `new_key` gives; False for a typo of it.
    """
    if len(text) != KEY_CHARACTERS or not text.startswith(KEY_PREFIX):
        return False
    random, check = text[len(KEY_PREFIX) : -_CHECK], text[-_CHECK:]
    return set(random) <= set(_DIGITS) and check == _checksum(random)


def digest_of(text: str) -> bytes:
    """
    What of a key is stored.

    Args:
        text: The key; any text, as callers send what they like.

    Returns:
        Its SHA-256, 32 bytes.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _checksum(random: str) -> str:
    return _base62(zlib.crc32(f"{KEY_PREFIX}{random}".encode()), _CHECK)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
