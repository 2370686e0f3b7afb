"""Inflating a body piece by piece, so that a bomb is seen before it is in memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress

from loom.core.errors import MalformedReply, ReplyTooLarge, Unreachable

__all__ = ["Inflater"]

# One step inflates at most so much: what a bomb can take at once.
_PIECE_BYTES = 64 * 1024

# Below this the ratio is not looked at: a short and monotonous answer compresses well.
_RATIO_FROM_BYTES = 1024 * 1024

# zlib.decompressobj: 16 + 15 takes gzip, 15 zlib, -15 raw deflate (RFC 1950 to 1952).
_GZIP, _ZLIB, _RAW = 31, 15, -15
_ENCODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class Inflater:
    """
    Inflates one body.

    Args:
        encoding: The `content-encoding` header, lower case.
        ratio: Inflated bytes allowed for each byte on the wire, once 1 MiB was passed.
        where: Host and port, for errors.
        provider: Who was asked, for errors.

    Raises:
        MalformedReply: If the encoding is not one that was asked for.
    """

    def __init__(self, encoding: str, ratio: int, where: str, provider: str | None) -> None:
        self._ratio = ratio
        self._where = where
        self._provider = provider
        if encoding not in _ENCODINGS:
            raise self._malformed(
                f"{where} sent the content-encoding {encoding[:40]!r}, which was not asked for."
            )
        self._bits = _ENCODINGS[encoding]
        self._engine = zlib.decompressobj(self._bits)
        self._head = b""
        self._received = 0
        self._inflated = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Inflate the next bytes.

        Args:
            data: Any cut of the body.

        Yields:
            Pieces of at most 64 KiB.

        Raises:
            MalformedReply: If the compression is broken.
            ReplyTooLarge: If the ratio was passed.
        """
        if self._received < 2 and self._bits != _GZIP:
            data = self._open(data)
        self._received += len(data)
        piece = b""
        # A full piece means that the engine may hold more, even when all input is consumed.
        while data or len(piece) == _PIECE_BYTES:
            if self._engine.eof:
                # RFC 1952, section 2.2: a gzip body may have several members.
                self._engine = zlib.decompressobj(self._bits)
            piece = self._step(data)
            data = self._engine.unconsumed_tail or self._engine.unused_data
            if piece:
                yield piece

    def finish(self) -> None:
        """
        The body ended.

        Raises:
            Unreachable: If the compressed data did not: phase "reset".
        """
        if self._head or (self._received and not self._engine.eof):
            raise Unreachable(
                f"The connection to {self._where} ended in the middle of the compressed body.",
                phase="reset",
                provider=self._provider,
                uncertain=True,
            )

    def _open(self, data: bytes) -> bytes:
        # Some servers send raw deflate under the name "deflate" (RFC 9110, section 8.4.1.2, note):
        # RFC 1950's two first bytes tell which it is.
        data = self._head + data
        self._head = b"" if len(data) > 1 else data
        if self._head:
            return b""
        if len(data) > 1 and (data[0] & 15 != 8 or (data[0] * 256 + data[1]) % 31):
            self._bits = _RAW
            self._engine = zlib.decompressobj(_RAW)
        return data

    def _step(self, data: bytes) -> bytes:
        piece = None
        # Raised outside, so that the error does not carry the engine's own.
        with suppress(zlib.error):
            piece = self._engine.decompress(data, _PIECE_BYTES)
        if piece is None:
            raise self._malformed(f"The compressed body from {self._where} is broken.")
        self._inflated += len(piece)
        if self._inflated > max(_RATIO_FROM_BYTES, self._ratio * self._received):
            raise ReplyTooLarge(
                f"The body from {self._where} inflates to more than {self._ratio} times its size.",
                provider=self._provider,
                uncertain=True,
            )
        return piece

    def _malformed(self, message: str) -> MalformedReply:
        return MalformedReply(message, provider=self._provider, uncertain=True)
