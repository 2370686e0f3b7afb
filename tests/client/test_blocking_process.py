"""What only a whole process shows: Ctrl-C, fork, interpreter exit. Each script is run for real."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import ClassVar

import pytest
from tests.client.loopback import Vendor, vendor

# Python 3.12 and later warn of any fork in a process with threads.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")

# Says "ready" when the main thread has waited for a stream's next item for a while.
READY = """
import sys, threading

def ready_when_reading():
    main = threading.main_thread().ident

    def watch():
        while sys._current_frames()[main].f_code.co_name != "_wait":
            threading.Event().wait(0.01)
        threading.Event().wait(0.1)
        print("ready", flush=True)

    threading.Thread(target=watch, daemon=True).start()
"""

PREAMBLE = (
    READY
    + """
import asyncio, atexit, os, signal, sys, threading
from loom.client.lease import Lease
from loom.client.reader import Reader

async def closer():
    print("client closed", flush=True)

async def forever(ready=lambda: print("ready", flush=True)):
    ready()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print("request taken back", flush=True)

async def items():
    try:
        yield 0
        await forever(lambda: None)
    finally:
        print("stream closed", flush=True)

async def nothing():
    pass

lease = Lease(closer)
"""
)

REAL = (
    READY
    + """
import logging, os, sys, threading
from loom import Mistral

# The age of the prices is logged, and what is logged goes to stderr.
logging.getLogger("loom").setLevel(logging.ERROR)
mistral = Mistral("test-key-for-loopback", base_url="BASE_URL")
"""
)


class Script:
    """A Python process with warnings as errors, whose output is looked at."""

    running: ClassVar[list[Script]] = []

    def __init__(self, code: str, preamble: str = PREAMBLE) -> None:
        self.running.append(self)
        self.process = subprocess.Popen(
            [sys.executable, *WARNINGS, "-c", preamble + textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt_when_ready(self) -> None:
        assert self.process.stdout is not None
        assert "ready\n" == self.process.stdout.readline()
        self.process.send_signal(signal.SIGINT)

    def lines(self) -> list[str]:
        out, err = self.process.communicate(timeout=20)
        assert "" == err
        assert 0 == self.process.returncode
        return out.splitlines()


def run(code: str, preamble: str = PREAMBLE) -> list[str]:
    return Script(code, preamble).lines()


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    yield
    while Script.running:
        with Script.running.pop().process as process:
            process.kill()


@pytest.fixture
def server() -> Iterator[Vendor]:
    with vendor() as server:
        yield server


def test_ctrl_c_takes_a_call_back() -> None:
    """Ctrl-C cancels the request and raises; the client is usable afterwards."""
    script = Script("""
        try:
            lease.portal().call(forever)
        except KeyboardInterrupt:
            print("interrupted")
        lease.portal().call(nothing)
        lease.close()
    """)
    script.interrupt_when_ready()

    assert ["request taken back", "interrupted", "client closed"] == script.lines()


def test_ctrl_c_closes_a_stream() -> None:
    """Ctrl-C in `next` closes the stream and raises."""
    script = Script("""
        reader = Reader(lease.portal, items())
        next(reader)
        ready_when_reading()
        try:
            next(reader)
        except KeyboardInterrupt:
            print("interrupted", list(reader))
        lease.close()
    """)
    script.interrupt_when_ready()

    assert [
        "request taken back",
        "stream closed",
        "interrupted []",
        "client closed",
    ] == script.lines()


def test_ctrl_c_does_not_wait_for_a_stubborn_request() -> None:
    """A request that will not be cancelled holds Ctrl-C up for the limit and no longer."""
    script = Script("""
        from loom.client import portal
        portal.CANCEL_WAIT_S = 0.01
        freed = threading.Event()

        async def stubborn():
            print("ready", flush=True)
            future = asyncio.get_running_loop().create_future()
            freed.wake = lambda: future.cancel() or future
            while not freed.is_set():
                try:
                    await asyncio.shield(future)
                except asyncio.CancelledError:
                    pass

        try:
            lease.portal().call(stubborn)
        except KeyboardInterrupt:
            print("interrupted")
        freed.set()
        lease.close()
    """)
    script.interrupt_when_ready()

    assert ["interrupted", "client closed"] == script.lines()


def test_ctrl_c_in_one_thread_leaves_the_others_alone() -> None:
    """Only the main thread's request is taken back; a call in another thread goes on."""
    script = Script("""
        gate = []

        async def other():
            future = asyncio.get_running_loop().create_future()
            gate.append(future)
            return await future

        thread = threading.Thread(target=lambda: print("other got", lease.portal().call(other)))
        thread.start()
        while not gate:
            lease.portal().call(nothing)
        try:
            lease.portal().call(forever)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        lease.portal().post(lambda: gate[0].set_result(1))
        thread.join()
        lease.close()
    """)
    script.interrupt_when_ready()

    assert ["request taken back", "interrupted", "other got 1", "client closed"] == script.lines()


def test_exit_with_an_open_stream_is_quiet() -> None:
    """Leaving with a stream open closes it and the client, in order, without a word."""
    lines = run("reader = Reader(lease.portal, items()); next(reader)")

    assert ["stream closed", "client closed"] == lines[-2:]


def test_exit_with_many_open_streams_is_quiet() -> None:
    """A hundred streams, half of them waiting for their reader, end without a word."""
    lines = run("""
        async def fast():
            for number in range(10_000):
                yield number

        readers = [Reader(lease.portal, fast() if n % 2 else items()) for n in range(100)]
        for reader in readers:
            next(reader)
    """)

    assert 50 == lines.count("stream closed")
    assert "client closed" == lines[-1]


def test_exit_with_a_daemon_thread_in_a_call_is_quiet() -> None:
    """A daemon thread that waits for an answer at exit prints no traceback."""
    assert ["request taken back", "client closed"] == run("""
        started = threading.Event()
        threading.Thread(
            target=lambda: lease.portal().call(lambda: forever(started.set)), daemon=True
        ).start()
        started.wait()
    """)


def test_exit_with_a_daemon_thread_in_a_stream_is_quiet() -> None:
    """A daemon thread that reads a stream at exit prints no traceback."""
    assert (
        "client closed"
        == run("""
        started = threading.Event()

        def read():
            for item in Reader(lease.portal, items()):
                started.set()

        threading.Thread(target=read, daemon=True).start()
        started.wait()
    """)[-1]
    )


def test_exit_does_not_wait_for_a_stubborn_task() -> None:
    """A task that swallows its cancellation does not keep the process alive."""
    assert ["exiting"] == run("""
        from loom.client import portal
        portal._WIND_UP_WAIT_S = 0.01
        import logging
        logging.disable()  # asyncio itself reports the task that was left; that is its right
        lease = Lease(nothing)

        async def stubborn():
            while True:
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    pass

        portal = lease.portal()
        portal.post(lambda: globals().update(task=portal.loop.create_task(stubborn())))
        portal.call(nothing)
        print("exiting")
    """)


def test_an_exit_handler_may_still_call() -> None:
    """What was registered after the import runs before the portal is closed."""
    assert ["called at exit", "client closed"] == run("""
        atexit.register(lambda: print(lease.portal().call(forty_two)))
        lease.portal()

        async def forty_two():
            return "called at exit"
    """)


def test_a_call_after_the_closer_is_refused() -> None:
    """What was registered before the import comes too late and is told so."""
    code = """
        import sys
        from loom.client import lease as module
        atexit.unregister(module._process.close_at_exit)

        def late():
            try:
                Lease(closer).portal()
            except RuntimeError as error:
                print(error)

        atexit.register(late)
        atexit.register(module._process.close_at_exit)
    """

    assert ["the interpreter is exiting: no call can be made any more"] == run(code)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system cannot fork")
class TestFork:
    """A forked child: its own portal, nothing of the parent's touched."""

    def test_the_child_gets_its_own_portal(self) -> None:
        """A client that was used before the fork works in both processes afterwards."""
        assert ["child True", "client closed", "parent True", "client closed"] == run("""
            before = lease.portal()
            sys.stdout.flush()
            child = os.fork()
            lease.portal().call(nothing)
            if not child:
                print("child", lease.portal() is not before, flush=True)
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
            print("parent", lease.portal() is before, flush=True)
        """)

    def test_a_child_that_calls_nothing_exits_quietly(self) -> None:
        """The parent's stream goes on, and the child's exit closes nothing of it."""
        lines = run("""
            reader = Reader(lease.portal, items())
            next(reader)
            child = os.fork()
            if not child:
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
            print("child gone", flush=True)
        """)

        assert "child gone" == lines[0]
        assert ["stream closed", "client closed"] == lines[-2:]

    def test_a_stream_of_the_parent_is_refused_in_the_child(self) -> None:
        """An inherited stream would wait for ever; it says what to do instead."""
        lines = run("""
            reader = Reader(lease.portal, items())
            next(reader)
            child = os.fork()
            if not child:
                try:
                    next(reader)
                except RuntimeError as error:
                    print(error, flush=True)
                reader.close()
                del reader
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
        """)

        assert "the stream was opened before this process was forked: open one of its own" in lines

    def test_a_fork_while_the_portal_is_being_made_does_not_hang(self) -> None:
        """The child's lock is new, whoever held the parent's."""
        assert ["child called", "client closed"] == run("""
            from loom.client.lease import _process
            with _process.lock:
                child = os.fork()
                if not child:
                    lease.portal().call(nothing)
                    print("child called", flush=True)
                    lease.close()
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """)


class TestMistral:
    """The whole client, over a real socket, in a process of its own."""

    def test_ctrl_c_in_a_call_hangs_up(self, server: Vendor) -> None:
        """The vendor sees the socket closed, and the client answers the next question."""
        script = Script(
            """
            try:
                mistral.chat("forever")
            except KeyboardInterrupt:
                print("interrupted", mistral.chat("Hi").content)
            """,
            REAL.replace("BASE_URL", server.base_url),
        )
        server.asked.get(timeout=20)
        script.process.send_signal(signal.SIGINT)

        assert server.hung_up.get(timeout=5)
        assert ["interrupted Hello there"] == script.lines()

    def test_ctrl_c_in_a_stream_hangs_up(self, server: Vendor) -> None:
        """What had come was given, the vendor sees the socket closed, the stream is at its end."""
        script = Script(
            """
            stream = mistral.stream("forever")
            try:
                for text in stream.text_stream:
                    print("got", text, flush=True)
                    ready_when_reading()
            except KeyboardInterrupt:
                print("interrupted", list(stream))
            """,
            REAL.replace("BASE_URL", server.base_url),
        )
        assert script.process.stdout is not None
        assert "got Hel\n" == script.process.stdout.readline()
        script.interrupt_when_ready()

        assert server.hung_up.get(timeout=5)
        assert ["interrupted []"] == script.lines()

    def test_exit_with_open_streams_is_quiet(self, server: Vendor) -> None:
        """Ten open streams and an unclosed client: the sockets are closed, nothing is printed."""
        lines = run(
            """
            streams = [mistral.stream("forever") for _ in range(10)]
            print(sorted({next(stream.text_stream) for stream in streams}))
            """,
            REAL.replace("BASE_URL", server.base_url),
        )

        assert ["['Hel']"] == lines
        assert [True] * 10 == [server.hung_up.get(timeout=5) for _ in range(10)]

    def test_exit_after_an_uncaught_error_prints_that_error_alone(self, server: Vendor) -> None:
        """A program that fails with a stream open shows its own traceback and nothing else."""
        script = Script(
            """
            stream = mistral.stream("forever")
            next(stream.text_stream)
            sys.exit("the program's own words")
            """,
            REAL.replace("BASE_URL", server.base_url),
        )
        out, err = script.process.communicate(timeout=20)

        assert ("", "the program's own words\n") == (out, err)

    def test_a_forked_child_asks_through_sockets_of_its_own(self, server: Vendor) -> None:
        """Parent and child go on with one client, and both exit without a word."""
        lines = run(
            """
            mistral.chat("Hi")
            child = os.fork()
            print("child" if not child else "parent", mistral.chat("Hi").content, flush=True)
            if not child:
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
            print(mistral.chat("Hi").content)
            """,
            REAL.replace("BASE_URL", server.base_url),
        )

        assert ["Hello there", "child Hello there", "parent Hello there"] == sorted(lines)
