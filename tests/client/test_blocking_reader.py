"""The blocking iterator: batches, back-pressure, closing, forgetting."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress

import pytest

from loom.client.lease import Lease
from loom.client.portal import Portal
from loom.client.pump import AHEAD_LOW, AHEAD_MAX
from loom.client.reader import Reader


async def nothing() -> None:
    """Stands for the closing of a client, and for a turn of the loop."""


@pytest.fixture
def lease() -> Iterator[Lease]:
    lease = Lease(nothing)
    yield lease
    lease.close()


def waits_in_next(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "_wait"


class Source:
    """An async iterator that says how far it was read and whether it was closed."""

    def __init__(self, count: int, *, pause_at: int = -1, fail_at: int = -1) -> None:
        self.count = count
        self.pause_at = pause_at
        self.fail_at = fail_at
        self.given = 0
        self.closed = threading.Event()
        self.paused = threading.Event()
        self.items = self._items()

    async def _items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.count):
                if number == self.fail_at:
                    raise LookupError(f"no {number}")
                if number == self.pause_at:
                    self.paused.set()
                    await asyncio.get_running_loop().create_future()
                self.given += 1
                yield number
        finally:
            self.closed.set()


@pytest.mark.parametrize("count", [0, 1, 7, AHEAD_MAX - 1, AHEAD_MAX, AHEAD_MAX + 1, 5000])
def test_every_item_comes_in_order(lease: Lease, count: int) -> None:
    """Whatever the length, all items come, once, in order, and the source is closed."""
    source = Source(count)

    assert list(range(count)) == list(Reader(lease.portal, source.items))
    assert source.closed.is_set()


def test_nothing_runs_before_the_first_item_is_asked_for(lease: Lease) -> None:
    """Making a reader, entering it and leaving it sends nothing."""
    source = Source(3)

    with Reader(lease.portal, source.items):
        lease.portal().call(nothing)

    assert 0 == source.given


def test_a_slow_reader_makes_the_source_wait(lease: Lease) -> None:
    """No more than the bound is read ahead; reading on lets the source go on."""
    source = Source(10 * AHEAD_MAX)
    reader = Reader(lease.portal, source.items)

    assert 0 == next(reader)
    for _ in range(50):
        lease.portal().call(nothing)
    # The one that was taken may have left a place before the pump looked.
    assert AHEAD_MAX <= source.given <= AHEAD_MAX + 1
    for _ in range(AHEAD_MAX - AHEAD_LOW):
        next(reader)
    for _ in range(50):
        lease.portal().call(nothing)
    assert source.given > AHEAD_MAX + 1
    assert list(range(AHEAD_MAX - AHEAD_LOW + 1, 10 * AHEAD_MAX)) == list(reader)


def test_a_reader_that_was_faster_is_not_waited_for(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pump that stops for room looks once more: its reader may have emptied the queue."""
    monkeypatch.setattr("loom.client.pump.AHEAD_MAX", 1)

    assert list(range(100)) == list(Reader(lease.portal, Source(100).items))


def test_making_room_where_nobody_waits_does_no_harm(lease: Lease) -> None:
    """Several takes may each ask for room before the loop turns."""
    reader = Reader(lease.portal, Source(3).items)
    assert 0 == next(reader)
    assert reader._pump is not None
    reader._pump.make_room()

    assert [1, 2] == list(reader)


def test_an_error_comes_after_the_items_before_it(lease: Lease) -> None:
    """What was read before the error is given first; after the error the reader is at its end."""
    source = Source(9, fail_at=3)
    reader = Reader(lease.portal, source.items)

    assert [0, 1, 2] == [next(reader) for _ in range(3)]
    with pytest.raises(LookupError, match="no 3"):
        next(reader)
    assert [] == list(reader)
    assert source.closed.is_set()


def test_leaving_early_closes_the_source(lease: Lease) -> None:
    """After `with` the source is closed, and nothing more comes."""
    source = Source(100, pause_at=5)

    with Reader(lease.portal, source.items) as reader:
        for number in reader:
            if number == 2:
                break

    assert source.closed.is_set()
    assert [] == list(reader)


def test_closing_drops_what_was_read_ahead(lease: Lease) -> None:
    """After `close` the reader is at its end, even if the source had ended long before."""
    source = Source(20)
    reader = Reader(lease.portal, source.items)
    next(reader)
    source.closed.wait()
    reader.close()
    reader.close()

    assert [] == list(reader)


def test_closing_does_not_wait_for_a_stubborn_source(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that will not end holds `close` up for the limit and no longer."""
    monkeypatch.setattr("loom.client.pump.CANCEL_WAIT_S", 0.01)
    free: list[asyncio.Future[None]] = []

    async def stubborn() -> AsyncGenerator[int, None]:
        free.append(asyncio.get_running_loop().create_future())
        yield 1
        with suppress(asyncio.CancelledError):
            await asyncio.shield(free[0])
        await asyncio.shield(free[0])

    reader = Reader(lease.portal, stubborn())
    next(reader)
    reader.close()

    assert [] == list(reader)
    lease.portal().post(lambda: free[0].set_result(None))


def test_closing_before_the_start_ends_it(lease: Lease) -> None:
    """A reader that is closed before its first item never starts."""
    source = Source(3)
    reader = Reader(lease.portal, source.items)
    reader.close()

    assert [] == list(reader)
    assert 0 == source.given


def test_the_source_is_closed_before_the_last_item_is_handed_on(lease: Lease) -> None:
    """Whoever stops reading at the last item has nothing to close any more."""
    closed: list[bool] = []

    async def items() -> AsyncGenerator[int | str, None]:
        try:
            yield 1
            yield "last"
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append(True)

    reader: Reader[int | str] = Reader(lease.portal, items(), last=str)

    assert [1, "last"] == [next(reader), next(reader)]
    assert [True] == closed
    assert [] == list(reader)


def test_a_forgotten_reader_closes_its_source_and_warns(lease: Lease) -> None:
    """Garbage collection closes the source and says `use with`."""
    source = Source(100, pause_at=5)
    box = [Reader(lease.portal, source.items)]
    next(box[0])

    with pytest.warns(ResourceWarning, match="Reader was neither read to its end nor closed"):
        box.clear()

    assert source.closed.wait(5)


def test_a_reader_forgotten_on_the_portal_thread_does_not_hang(lease: Lease) -> None:
    """The finalizer may run on the portal's own thread: it posts and does not wait."""
    source = Source(100, pause_at=5)
    box = [Reader(lease.portal, source.items)]
    next(box[0])

    async def forget() -> None:
        with pytest.warns(ResourceWarning):
            box.clear()

    lease.portal().call(forget)

    assert source.closed.wait(5)


def test_a_reader_that_was_read_to_its_end_does_not_warn(lease: Lease) -> None:
    """No warning where nothing is held; warnings are errors here."""
    reader = Reader(lease.portal, Source(3).items)
    list(reader)
    gone = weakref.ref(reader)

    del reader

    assert gone() is None


def test_the_owner_lives_as_long_as_the_reader(lease: Lease) -> None:
    """`for e in Mistral().stream(...)`: the client is not collected under its own stream."""

    class Owner:
        pass

    owner = Owner()
    alive = weakref.ref(owner)
    reader = Reader(lease.portal, Source(3).items, owner=owner)
    del owner

    assert alive() is not None
    list(reader)
    del reader
    assert alive() is None


def test_closing_from_another_thread_wakes_the_reader(lease: Lease) -> None:
    """A thread that waits in `next` gets an error: a silent end would look like the whole."""
    source = Source(100, pause_at=1)
    reader = Reader(lease.portal, source.items)
    next(reader)
    errors: list[str] = []

    def read() -> None:
        try:
            next(reader)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=read)
    source.paused.wait()
    thread.start()
    while not waits_in_next(thread):
        lease.portal().call(nothing)
    reader.close()
    thread.join()

    assert ["the stream was closed by another thread while this one was reading it"] == errors


def test_closing_the_client_wakes_the_reader() -> None:
    """A reader of a client that was closed under it raises; it does not hang."""
    lease = Lease(nothing)
    source = Source(100, pause_at=1)
    reader = Reader(lease.portal, source.items)
    next(reader)
    source.paused.wait()

    lease.close()

    with pytest.raises(RuntimeError, match="the client is closed"):
        next(reader)
    assert source.closed.is_set()


def test_a_reader_of_a_closed_client_says_so() -> None:
    """A stream that is begun after `close` is a RuntimeError."""
    lease = Lease(nothing)
    reader = Reader(lease.portal, Source(3).items)
    lease.close()

    with pytest.raises(RuntimeError, match="the client is closed"):
        next(reader)


def test_a_portal_that_was_closed_in_between_says_so(lease: Lease) -> None:
    """Between getting the portal and using it, another thread may close it."""
    portal = Portal()
    portal.close()

    with pytest.raises(RuntimeError, match="the client is closed"):
        next(Reader(lambda: portal, Source(3).items))
    assert set() == portal.waiters


def test_two_threads_share_one_reader(lease: Lease) -> None:
    """Each item goes to one of them, none is lost, and both see the end."""
    reader = Reader(lease.portal, Source(4000).items)
    taken: list[list[int]] = [[], []]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(reader)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(range(4000)) == sorted(taken[0] + taken[1])


def test_reading_on_the_portal_thread_is_refused(lease: Lease) -> None:
    """It would wait for itself."""

    async def read() -> int:
        return next(Reader(lease.portal, Source(3).items))

    with pytest.raises(RuntimeError, match="worker thread"):
        lease.portal().call(read)
