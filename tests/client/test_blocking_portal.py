"""The portal: hops, threads, refusals, closing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from loom.client.lease import Lease, _process


class Client:
    """Stands for an async client: counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def lease() -> Iterator[Lease]:
    lease = Lease(Client().aclose)
    yield lease
    lease.close()


def portal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loom-portal"]


async def thread_name() -> str:
    return threading.current_thread().name


def test_a_call_runs_on_the_portal_thread(lease: Lease) -> None:
    """The coroutine runs on the portal's thread and its value comes back."""
    assert "loom-portal" == lease.portal().call(thread_name)


def test_no_thread_before_the_first_call() -> None:
    """A client that was only made has no thread."""
    before = portal_threads()

    lease = Lease(Client().aclose)

    assert before == portal_threads()
    lease.close()


def test_an_error_comes_out_as_it_is(lease: Lease) -> None:
    """The caller gets the very exception that the coroutine raised."""
    error = LookupError("gone")

    async def fail() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        lease.portal().call(fail)

    assert error is caught.value


def test_system_exit_does_not_end_the_loop(lease: Lease) -> None:
    """`sys.exit` inside a coroutine reaches the caller, and the portal lives on."""

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        lease.portal().call(leave)

    assert "loom-portal" == lease.portal().call(thread_name)


def test_an_error_leaves_no_cycle(lease: Lease) -> None:
    """An exception that was caught is freed at once, without the collector."""

    class Marked(Exception):
        pass

    async def fail() -> None:
        raise Marked

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Marked):
            lease.portal().call(fail)
        lease.portal().call(thread_name)
        assert [] == [one for one in gc.get_objects() if isinstance(one, Marked)]
    finally:
        gc.enable()


def test_many_threads_call_at_once(lease: Lease) -> None:
    """Each of many threads gets its own answer."""

    async def double(number: int) -> int:
        for _ in range(number % 7):
            await asyncio.sleep(0)
        return 2 * number

    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda n: lease.portal().call(lambda: double(n)), range(400))

        assert [2 * number for number in range(400)] == list(answers)


def test_the_callers_context_goes_along(lease: Lease) -> None:
    """Context variables of the caller are seen by the coroutine, and its own do not come back."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("caller's")

    async def look() -> str:
        seen = variable.get()
        variable.set("coroutine's")
        return seen

    assert "caller's" == lease.portal().call(look)
    assert "caller's" == variable.get()


@pytest.mark.anyio
async def test_a_call_works_inside_a_running_loop(lease: Lease) -> None:
    """A notebook's cell runs inside a loop; a blocking call works there all the same."""
    assert "loom-portal" == lease.portal().call(thread_name)


def test_a_call_on_the_portal_thread_is_refused(lease: Lease) -> None:
    """A blocking call on the portal's own thread raises and says what to do, for it would hang."""

    async def call_again() -> str:
        return lease.portal().call(thread_name)

    with pytest.raises(RuntimeError, match=r"async client there.*asyncio\.to_thread"):
        lease.portal().call(call_again)


def test_closing_on_the_portal_thread_is_refused(lease: Lease) -> None:
    """Closing there would wait for itself; the client stays open."""

    async def close() -> None:
        lease.close()

    with pytest.raises(RuntimeError, match="worker thread"):
        lease.portal().call(close)

    assert not lease.closed


def test_clients_share_one_portal_until_the_last_is_closed() -> None:
    """One thread serves all clients; closing the last one ends it."""
    first, second = Lease(Client().aclose), Lease(Client().aclose)
    shared = first.portal()

    assert shared is second.portal()
    first.close()
    assert "loom-portal" == second.portal().call(thread_name)
    second.close()
    assert shared.loop.is_closed()


def test_closing_closes_the_client_once() -> None:
    """`close` runs the async client's own closing, and the second call does nothing."""
    client = Client()
    lease = Lease(client.aclose)
    lease.portal()

    lease.close()
    lease.close()

    assert 1 == client.closed


def test_a_closed_client_says_so() -> None:
    """A call after `close` is a RuntimeError."""
    lease = Lease(Client().aclose)
    lease.close()

    with pytest.raises(RuntimeError, match="the client is closed"):
        lease.portal()


def test_closing_ends_the_calls_of_other_threads() -> None:
    """A call that is under way when the last client is closed raises; it does not hang."""
    lease = Lease(Client().aclose)
    started = threading.Event()
    errors: list[BaseException] = []

    async def forever() -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            lease.portal().call(forever)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    started.wait()
    lease.close()
    thread.join()

    assert ["the client is closed"] == [str(error).partition(":")[0] for error in errors]


def test_a_call_that_was_never_started_is_answered() -> None:
    """A call that reaches the loop after its last turn is told so, and does not wait for ever."""
    lease = Lease(Client().aclose)
    portal = lease.portal()
    told: list[RuntimeError] = []

    class Late:
        def lost(self, error: RuntimeError) -> None:
            told.append(error)

    portal.waiters.add(Late())
    lease.close()

    assert ["the client is closed"] == [str(error).partition(":")[0] for error in told]
    with pytest.raises(RuntimeError, match="the client is closed"):
        portal.call(thread_name)


def test_a_call_that_was_cancelled_from_within_says_so(lease: Lease) -> None:
    """A task that somebody else cancels is an error for the caller, not a silent None."""

    async def cancel_oneself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled on the event loop"):
        lease.portal().call(cancel_oneself)


def test_an_interrupt_before_the_call_was_handed_over(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C so early that the loop knows nothing yet raises at once."""
    portal = lease.portal()
    posted: list[Callable[[], object]] = []
    real = portal.post

    def post(callback: Callable[[], object]) -> None:
        posted.append(callback)
        if len(posted) == 1:
            raise KeyboardInterrupt
        real(callback)

    monkeypatch.setattr(portal, "post", post)

    with pytest.raises(KeyboardInterrupt):
        portal.call(thread_name)
    assert set() == portal.waiters


def test_no_portal_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the interpreter exits, some versions start no thread: the first call is refused."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)

    with pytest.raises(RuntimeError, match="the interpreter is exiting"):
        Lease(Client().aclose).portal()


def test_leaving_twice_stops_nothing(lease: Lease) -> None:
    """A client that two threads close at once is counted once."""
    other = Lease(Client().aclose)
    lease.portal()
    other.portal()

    assert _process.leave(other, stop=True) is None
    assert _process.leave(other, stop=True) is None
    assert "loom-portal" == lease.portal().call(thread_name)


def test_a_forgotten_client_is_closed_behind_its_back() -> None:
    """`abandon` only posts: the client is closed on the loop, and the portal stays usable."""
    other = Lease(Client().aclose)
    client = Client()
    lease = Lease(client.aclose)
    lease.portal()

    lease.abandon()
    other.portal().call(thread_name)

    assert 1 == client.closed
    assert lease not in other.portal().closers
    other.close()


def test_abandoning_on_the_portal_thread_does_not_wait(lease: Lease) -> None:
    """A finalizer may run on the portal's own thread, in the middle of a task."""
    client = Client()
    forgotten = Lease(client.aclose)
    forgotten.portal()

    async def collect() -> None:
        forgotten.abandon()

    lease.portal().call(collect)
    lease.portal().call(thread_name)

    assert 1 == client.closed
