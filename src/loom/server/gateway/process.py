"""What a server takes of its process: signals, files, a listening socket."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from loom.core.errors import ConfigInvalid

__all__ = ["Signals", "listen", "raise_file_limit", "rarely_collected"]

# uvicorn's own number.
_BACKLOG = 2048
# What the kernel keeps of an answer that its reader does not take, beside what we keep.
_UNSENT_BYTES = 128 * 1024
# Python's own 700, 10, 10 look for cycles several times a request, where hardly any are made: a
# tenth of the CPU of a plain request. Source: `benchmarks/gateway.py`, 0.49 ms and 0.42 ms.
_COLLECTIONS = (20_000, 20, 20)


class Signals:
    """
    Signals as calls in the event loop, as long as it is entered; in the main thread only.

    Args:
        stop: For SIGTERM and SIGINT.
        hangup: For SIGHUP, where there is one.
    """

    def __init__(self, stop: Callable[[], None], hangup: Callable[[], None]) -> None:
        self._handlers = {signal.SIGTERM: stop, signal.SIGINT: stop}
        if hasattr(signal, "SIGHUP"):
            self._handlers[signal.SIGHUP] = hangup
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        """Take them."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number, handler in self._handlers.items():
            self._before[number] = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, handler)
            except RuntimeError:  # pragma: no cover - Windows
                call = partial(loop.call_soon_threadsafe, handler)
                signal.signal(number, lambda *_, call=call: call())

    def __exit__(self, *_error: object) -> None:
        """Give them back."""
        loop = asyncio.get_running_loop()
        for number, before in self._before.items():
            with suppress(RuntimeError):  # Windows
                loop.remove_signal_handler(number)
            signal.signal(number, before)


def listen(host: str, port: int) -> socket.socket:
    """
    A listening socket.

    Args:
        host: An address or a name.
        port: 0 lets the kernel choose.

    Returns:
        The socket; whoever asked for it closes it.

    Raises:
        ConfigInvalid: If the port is in use or not allowed, or there is no such address here.
    """
    sock = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        # asyncio turns Nagle's algorithm off only where the protocol is named.
        sock = socket.socket(family, kind, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        if sock is not None:
            sock.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigInvalid(
            f"cannot listen on {host}:{port}: {reason}",
            hint="Choose another port, or port 0 for a free one.",
        ) from None
    return sock


@contextmanager
def rarely_collected() -> Iterator[None]:
    """
    Let the collector of cycles look seldom, and never at what is there now.

    Yields:
        Nothing; afterwards it does what it did before.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def raise_file_limit(wanted: int) -> int:
    """
    Let the process hold more sockets, as far as the machine allows it.

    Args:
        wanted: How many files and sockets.

    Returns:
        How many it may hold now.
    """
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:  # pragma: no cover - Windows
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return wanted if soft == resource.RLIM_INFINITY else soft
