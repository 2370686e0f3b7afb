"""
The shapes of Toxiproxy that change how bytes travel: latency, bandwidth, slicer, limit_data.

Source: github.com/Shopify/toxiproxy, README, "Toxics".
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from loom.server.line import CallerGone
from loom.server.simulator.faults import Fault

__all__ = ["shaped"]

# A tenth of a second's bytes at a time: what the bandwidth is felt as.
_STEPS_PER_S = 10


def shaped(
    fault: Fault, wait: Callable[[float], Awaitable[None]], number: int
) -> Callable[[bytes], AsyncGenerator[bytes, None]] | None:
    """
    Make what every write goes through.

    Args:
        fault: One of Toxiproxy's kinds.
        wait: Waits so many seconds.
        number: The request's; seeds the jitter.

    Returns:
        A function from the bytes of a write to those of one or more; None for a kind that does
        not touch the bytes.
    """
    toxic = _Toxic(fault, wait, number)
    kinds = {
        "bandwidth": toxic.bandwidth,
        "latency": toxic.latency,
        "limit_data": toxic.limit_data,
        "slicer": toxic.slicer,
    }
    return kinds.get(fault.row.short)


class _Toxic:
    def __init__(self, fault: Fault, wait: Callable[[float], Awaitable[None]], number: int) -> None:
        self._get = fault.number
        self._wait = wait
        self._number = number
        self._left = int(fault.number("bytes"))
        self._writes = 0

    async def latency(self, data: bytes) -> AsyncGenerator[bytes, None]:
        await self._wait(self._get("seconds") + self._get("jitter") * self._draw())
        yield data

    async def bandwidth(self, data: bytes) -> AsyncGenerator[bytes, None]:
        rate = self._get("rate")
        step = max(1, int(rate / _STEPS_PER_S))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            await self._wait(len(piece) / rate)
            yield piece

    async def slicer(self, data: bytes) -> AsyncGenerator[bytes, None]:
        while data:
            size = max(1, round(self._get("size") + self._get("variation") * self._draw()))
            yield data[:size]
            data = data[size:]
            if data and self._get("seconds"):
                await self._wait(self._get("seconds"))

    async def limit_data(self, data: bytes) -> AsyncGenerator[bytes, None]:
        piece = data[: max(0, self._left)]
        self._left -= len(data)
        if piece:
            yield piece
        if self._left <= 0:
            raise CallerGone

    def _draw(self) -> float:
        """Uniform in [-1, 1), the same for each request and write."""
        self._writes += 1
        digest = hashlib.sha256(f"{self._number}/{self._writes}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**47 - 1
