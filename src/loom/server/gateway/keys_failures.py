"""
How often an address may give a wrong key: a bucket for each, without a clock.

A right key always passes: whoever shares an address with a broken program is not locked out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["Failures"]

# Some clients begin with their old key, on every connection: a person never sees the limit.
_BURST = 20.0
_A_SECOND = 1.0
# About 2 MB; who comes from more addresses at once is not held by any limit of addresses.
_MOST_ADDRESSES = 10_000
_HOME_BITS = 64  # a household, or a rented machine, has all addresses of its /64


class Failures:
    """
    Counts wrong keys by address.

    Args:
        burst: How many may come at once.
        a_second: How many more may come in a second.
        most: How many addresses are remembered; the one that was quiet for longest goes first.
    """

    def __init__(
        self, burst: float = _BURST, a_second: float = _A_SECOND, most: int = _MOST_ADDRESSES
    ) -> None:
        self._burst = burst
        self._a_second = a_second
        self._most = most
        # What is left, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> float:
        """
        Take note of a wrong key.

        Args:
            address: Who gave it; empty when unknown.
            now_s: Seconds of a monotonic clock.

        Returns:
            0 while there is room; else the seconds until there is.
        """
        home = _home(address)
        left, then_s = self._left.pop(home, (self._burst, now_s))
        left = min(self._burst, left + (now_s - then_s) * self._a_second)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._a_second
        self._left[home] = (left - 1 if left >= 1 else left, now_s)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return wait_s


def _home(address: str) -> str:
    """Give what counts as one: an IPv4 address, or the network of an IPv6 one."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(int(found) >> (128 - _HOME_BITS))
