"""Tokens of images, by the size that stands in their first bytes."""

from __future__ import annotations

import binascii
import re
from math import ceil

import msgspec

__all__ = ["ImageRule", "image_size", "image_tokens"]

# Enough for the size of a PNG, GIF or WebP, and for a JPEG whose size comes after its metadata.
_HEAD_BYTES = 256 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Of the markers FFC0 to FFCF three are no frame headers (ITU-T T.81, table B.1).
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/]")


class ImageRule(msgspec.Struct, frozen=True, kw_only=True):
    """
    How an image becomes tokens.

    Attributes:
        patch: Pixels that one token stands for, across and down.
        most: Pixels of the longer side; a larger image is made smaller first.
    """

    patch: int
    most: int


def image_tokens(size: tuple[int, int], rule: ImageRule) -> int:
    """
    Tokens of an image.

    rows * (columns + 1): one token a patch, and one that ends each row.

    Args:
        size: Width and height in pixels, above 0.
        rule: The model's rule.

    Returns:
        Tokens, at least 2.

    Source: mistral-common 1.13.1, `tokens/tokenizers/image.py`.
    """
    shrink = max(max(size) / rule.most, 1)
    width, height = (max(round(side / shrink), 1) if shrink > 1 else side for side in size)
    return ceil(height / rule.patch) * (ceil(width / rule.patch) + 1)


def image_size(url: str) -> tuple[int, int] | None:
    """
    Width and height of an image in a data URI, read from its header, not decoded.

    Args:
        url: The data URI of a PNG, JPEG, GIF or WebP.

    Returns:
        Pixels, or None when they cannot be read: an address, another format, a damaged file.
    """
    if url.startswith(("http:", "https:", "file:")):
        return None
    head = _head(url)
    size = None
    if head.startswith(_PNG):
        size = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    elif head.startswith((b"GIF87a", b"GIF89a")):
        size = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        size = _webp(head)
    elif head.startswith(_JPEG):
        size = _jpeg(head)
    return size if size is not None and min(size) > 0 else None


def _head(url: str) -> bytes:
    start = url.find(",") + 1 if url.startswith("data:") else 0
    # Line breaks are allowed in base64; what else does not belong there ends it.
    text = "".join(url[start : start + _HEAD_BYTES * 3 // 2].split())
    data = _NO_BASE64.split(text, maxsplit=1)[0]
    return binascii.a2b_base64(data[: len(data) // 4 * 4])


def _webp(head: bytes) -> tuple[int, int] | None:
    kind, data = head[12:16], head[20:]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(head):
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = head[place + 5 : place + 7], head[place + 7 : place + 9]
            return int.from_bytes(width), int.from_bytes(height)
        # A fill byte stands alone; everything else has a length.
        place += 1 if marker == 0xFF else 2 + max(length, 2)
    return None
