"""What only a whole process shows: Ctrl-C, fork, interpreter exit. Each script is run for real."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

# Python 3.12 and later warn of any fork in a process with threads.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")

PREAMBLE = """
import asyncio, atexit, os, signal, sys, threading
from loom.client.portal import Lease
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


class Script:
    """A Python process with warnings as errors, whose output is looked at."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", *WARNINGS, "-c", PREAMBLE + textwrap.dedent(code)],
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


def run(code: str) -> list[str]:
    return Script(code).lines()


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
        try:
            print("ready", flush=True)
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

        async def forty_two():
            return "called at exit"
    """)


def test_a_call_after_the_closer_is_refused() -> None:
    """What was registered before the import comes too late and is told so."""
    code = """
        import sys
        from loom.client import portal
        atexit.unregister(portal._process.close_at_exit)

        def late():
            try:
                Lease(closer).portal()
            except RuntimeError as error:
                print(error)

        atexit.register(late)
        atexit.register(portal._process.close_at_exit)
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
            from loom.client.portal import _process
            with _process.lock:
                child = os.fork()
                if not child:
                    lease.portal().call(nothing)
                    print("child called", flush=True)
                    lease.close()
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """)
