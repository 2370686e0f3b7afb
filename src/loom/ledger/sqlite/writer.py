"""
The writer: one thread for a file, shared by all ledgers of the process that name it.

Group commit: what queued while the last commit ran is the next one. The thread takes orders from
any event loop or thread, and wakes each on its own loop. It ends with its last ledger; when the
interpreter ends first, what is queued is written before. A child after a fork has none of it.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable
from concurrent import futures
from contextlib import suppress
from pathlib import Path

from loom.core.errors import LedgerUnavailable, LoomError
from loom.ledger.sqlite.desk import Desk, Terms
from loom.ledger.sqlite.orders import Answer, Ask, Order
from loom.ledger.sqlite.trouble import trouble_of, unavailable

__all__ = ["Writer", "leave", "share"]

_LOG = logging.getLogger("loom.ledger")

# Longer than a commit that waits for another program's lock.
_FLUSH_S = 10.0


class Writer:
    """
    A queue and the thread that empties it.

    Args:
        terms: How the file is written.
        before: A writer of the same file that is ending; its lock must go first.
    """

    def __init__(self, terms: Terms, before: Writer | None = None) -> None:
        self.pid = os.getpid()
        self.users = 0
        self._terms = terms
        self._before = before
        self._queue: deque[Order] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._taken: list[Order] = []
        self._farewell: list[Order] = []
        self._waiting = 0
        self._desk: Desk | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait for their row."""
        return self._waiting

    @property
    def trouble(self) -> str | None:
        """Why nothing new is accepted now; None: all is well."""
        return None if self._desk is None else self._desk.trouble

    def send(self, order: Order) -> None:
        """
        Queue an order.

        Args:
            order: What to do; its `loop` and `future` get the answer.

        Raises:
            LedgerUnavailable: If nothing new is accepted now and it may be refused.
        """
        with self._ready:
            if order.before_sending:
                self._admit()
                self._waiting += 1
            self._queue.append(order)
            if self._thread is None:
                # A daemon: a program that forgets to close its client shall still end.
                self._thread = threading.Thread(target=self._main, name="loom-ledger", daemon=True)
                self._thread.start()
            self._ready.notify()

    async def answer(self, order: Order) -> Answer:
        """
        Queue an order and wait for its answer on the running loop.

        Args:
            order: What to do.

        Returns:
            Its answer.

        Raises:
            LoomError: What the order came to.
        """
        order.loop = asyncio.get_running_loop()
        order.future = future = order.loop.create_future()
        self.send(order)
        try:
            return await future
        except asyncio.CancelledError:
            # The answer came, and then the cancellation: nobody will use it.
            if not future.cancelled() and future.exception() is None:
                self._missed(order, future.result())
            raise

    def flush(self, timeout_s: float) -> None:
        """
        Wait until what is queued now is written, from any thread.

        Args:
            timeout_s: How long at most.
        """
        if self._thread is None or not self._thread.is_alive():
            return
        order = Ask(lambda _: None)
        order.future = future = futures.Future[Answer]()
        self.send(order)
        with suppress(futures.TimeoutError, LoomError):
            future.result(timeout_s)

    def end(self) -> None:
        """Write what is queued, close the file and end the thread; others may wait for it."""
        with self._ready:
            self._ending = True
            self._ready.notify()

    async def ended(self) -> None:
        """Wait until the thread is over and the file is closed."""
        loop = asyncio.get_running_loop()
        order = Ask(lambda _: None)
        order.loop, order.future = loop, loop.create_future()
        with self._ready:
            if self._thread is None:
                return
            self._farewell.append(order)
        await order.future

    def _admit(self) -> None:
        desk = self._desk
        if desk is not None and desk.trouble is not None:
            raise desk.unavailable()
        if self._waiting >= self._terms.most_queued:
            raise LedgerUnavailable(
                f"{self._waiting} calls wait to be written to the ledger {self._terms.path}",
                attempts=0,
            )

    def _main(self) -> None:
        if self._before is not None and (thread := self._before._thread) is not None:  # noqa: SLF001 - a writer too
            thread.join()
        self._before = None
        try:
            self._desk = Desk(self._terms)
        except LoomError as error:
            self._stop(error)
        except (sqlite3.Error, OSError) as error:
            self._stop(unavailable(self._terms.path, trouble_of(error), error))
        else:
            self._run(self._desk)

    def _run(self, desk: Desk) -> None:
        try:
            while not self._turn(desk):
                pass
        except Exception as error:  # noqa: BLE001 - the border of the thread: who waits gets an answer
            _LOG.exception("The writer of the ledger %s failed", self._terms.path)
            desk.abandon()
            self._deliver(desk)
            self._stop(unavailable(self._terms.path, "io", error))
        else:
            self._stop(RuntimeError("the ledger is closed"))

    def _turn(self, desk: Desk) -> bool:
        self._taken, ending = self._take(desk)
        desk.work(self._taken)
        # In trouble nothing new comes but what ends: when that is quiet, the file is tried again.
        if desk.trouble is not None and not self._taken and not ending:
            desk.commit()
        if ending:
            desk.close()
        self._deliver(desk)
        return ending

    def _take(self, desk: Desk) -> tuple[list[Order], bool]:
        with self._ready:
            if not self._queue and not self._ending and not desk.stalled:
                self._ready.wait(None if desk.trouble is None else self._terms.probe_s)
            orders = list(self._queue)
            self._queue.clear()
            return orders, self._ending

    def _stop(self, error: Exception) -> None:
        """Answer everybody that there is no thread any more; the next order starts another."""
        with self._ready:
            left = [order for order in (*self._taken, *self._queue) if not order.answered]
            answers: list[tuple[Order, Answer]] = [(order, error) for order in left]
            answers += [(order, None) for order in self._farewell]
            self._queue.clear()
            self._farewell.clear()
            self._taken = []
            self._thread = None
            self._desk = None
            self._waiting = 0
        _hand_over(answers, self)

    def _deliver(self, desk: Desk) -> None:
        if not desk.answers:
            return
        answers, desk.answers = desk.answers, []
        with self._ready:
            self._waiting -= sum(order.before_sending for order, _ in answers)
        _hand_over(answers, self)

    def _missed(self, order: Order, answer: Answer) -> None:
        more = order.missed(answer)
        if more is not None:
            self.send(more)


def _hand_over(answers: Iterable[tuple[Order, Answer]], writer: Writer) -> None:
    """Wake every loop once, with all of its answers."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Order, Answer]]] = {}
    for order, answer in answers:
        order.answered = True
        if order.loop is not None:
            by_loop.setdefault(order.loop, []).append((order, answer))
        else:
            _resolve([(order, answer)], writer)
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, some, writer)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            for order, answer in some:
                writer._missed(order, answer)  # noqa: SLF001 - of this module


def _resolve(answers: Iterable[tuple[Order, Answer]], writer: Writer) -> None:
    for order, answer in answers:
        future = order.future
        if future is None or future.done():
            writer._missed(order, answer)  # noqa: SLF001 - of this module
        elif isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


_LOCK = threading.Lock()
_WRITERS: dict[Path, Writer] = {}
# Of the parent: a connection of SQLite must not be closed in a child, so it is never let go.
_INHERITED: list[Writer] = []


def share(terms: Terms) -> Writer:
    """
    The writer of a file; all ledgers of the process that name it have one.

    Args:
        terms: How the file is written; those of the first ledger hold.

    Returns:
        The writer; `leave` gives it back.
    """
    path = terms.path.resolve()
    with _LOCK:
        writer = _WRITERS.get(path)
        if writer is None or writer._ending:  # noqa: SLF001 - of this module
            writer = _WRITERS[path] = Writer(terms, before=writer)
        writer.users += 1
        return writer


def leave(writer: Writer) -> bool:
    """
    Give a writer back; with its last ledger it ends.

    Args:
        writer: From `share`.

    Returns:
        Whether it ends now.
    """
    with _LOCK:
        writer.users -= 1
        if writer.users or writer.pid != os.getpid():
            return False
        writer.end()
        return True


def _flush_all() -> None:
    for writer in tuple(_WRITERS.values()):
        writer.flush(_FLUSH_S)


def _begin_anew() -> None:
    """In a child after a fork: the parent's threads, locks and files are not ours."""
    global _LOCK  # noqa: PLW0603 - it may have been held when the process was copied
    _LOCK = threading.Lock()
    _INHERITED.extend(_WRITERS.values())
    _WRITERS.clear()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
