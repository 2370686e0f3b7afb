"""What `-a` adds to a prompt: a file, an address, or standard input, by its type."""

from __future__ import annotations

import base64
import mimetypes
import sys
from pathlib import Path
from urllib.parse import urlsplit

import rich_click as click

from loom.core.messages import AudioPart, DocumentPart, ImagePart, Part, TextPart

__all__ = ["read_attachment", "read_stdin", "utf8"]

# First bytes of what comes without a name. Source: the formats' own specifications.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
# What the vendor calls a format, where it is not the second half of the media type.
_SOUND = {"mpeg": "mp3", "x-wav": "wav", "x-flac": "flac", "mp4": "m4a"}


def read_stdin() -> bytes:
    """
    All of standard input; nothing when it is a terminal or closed.

    Returns:
        The bytes.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return b""
    return sys.stdin.buffer.read()


def utf8(data: bytes, name: str) -> str:
    """
    Bytes as text.

    Args:
        data: The bytes; a byte order mark at the beginning is taken off.
        name: What they are, for the error.

    Returns:
        The text.

    Raises:
        UsageError: If they are not UTF-8; it names the first byte that is wrong.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        # The mark at the beginning, when there is one, is not in what the codec counts.
        offset = error.start + len(data) - len(error.object)
        raise click.UsageError(
            f"{name} is not UTF-8: byte 0x{byte:02x} at offset {offset}."
            " Convert it first (iconv -t utf-8), or attach it with -a if it is no text."
        ) from None


def read_attachment(source: str) -> Part:
    """
    What is to go with a prompt.

    Args:
        source: A path, an `https://` address, or `-` for standard input.

    Returns:
        An image, a sound, a document or a text.

    Raises:
        UsageError: If it cannot be read, or its type is none of these.
    """
    if source.startswith(("https://", "http://")):
        return _by_address(source)
    name = "standard input" if source == "-" else source
    try:
        data = read_stdin() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise click.UsageError(f"cannot read {source!r}: {error.strerror}") from None
    if not data:
        raise click.UsageError(f"{name} is empty")
    kind = _sniffed(data) or mimetypes.guess_type(source)[0] or "text/plain"
    family, _, subtype = kind.partition("/")
    encoded = base64.b64encode(data).decode("ascii")
    if family == "image" and subtype != "svg+xml":
        return ImagePart(f"data:{kind};base64,{encoded}")
    if family == "audio":
        return AudioPart(encoded, _SOUND.get(subtype, subtype))
    if _is_document(kind):
        return DocumentPart(
            f"data:{kind};base64,{encoded}", None if source == "-" else Path(source).name
        )
    return TextPart(utf8(data, name))


def _by_address(url: str) -> Part:
    kind = mimetypes.guess_type(urlsplit(url).path)[0] or ""
    if kind.startswith("image/"):
        return ImagePart(url)
    return AudioPart(url) if kind.startswith("audio/") else DocumentPart(url)


def _sniffed(data: bytes) -> str | None:
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _is_document(kind: str) -> bool:
    return kind in {"application/pdf", "application/msword", "application/epub+zip"} or (
        kind.startswith(("application/vnd.openxmlformats", "application/vnd.oasis"))
    )
