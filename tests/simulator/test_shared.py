"""One simulator for all clients of a process."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from datetime import date

import pytest

from loom.server.simulator import shared_simulator


def healthy(base_url: str) -> bool:
    connection = http.client.HTTPConnection(base_url.split("/")[2], timeout=20)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except ConnectionError:
        return False
    finally:
        connection.close()


def test_leases_share_one_simulator_and_the_last_stops_it() -> None:
    """Two leases name one address; it answers until both are released."""
    # A day that no client of another test has: one that is still open would keep it up.
    day = date(2025, 2, 3)
    first, second = shared_simulator(day), shared_simulator(day)
    assert (first.base_url, first.api_key) == (second.base_url, "loom-sim-key")
    assert first.openai_base_url == first.base_url.replace("/v1", "/openai/v1")

    first.release()
    first.release()
    assert healthy(second.base_url)

    second.release()
    assert not healthy(second.base_url)


def test_a_new_lease_starts_a_new_one() -> None:
    """After the last release the next lease works again."""
    for _ in range(2):
        with shared_simulator() as lease:
            assert healthy(lease.base_url)


def test_each_day_has_its_own() -> None:
    """Clients of different days do not see each other's models."""
    with shared_simulator() as today, shared_simulator(date(2024, 11, 30)) as then:
        assert today.base_url != then.base_url


def test_many_threads_share_it() -> None:
    """Leases taken and released at once by many threads leave nothing running."""
    before = set(threading.enumerate())
    gate = threading.Barrier(8)
    seen: list[bool] = []

    def use() -> None:
        gate.wait()
        with shared_simulator() as lease:
            seen.append(healthy(lease.base_url))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [True] * 8 == seen
    assert before == set(threading.enumerate())


FORKED = """
import http.client, os, sys
from loom.server.simulator import shared_simulator

def healthy(lease):
    connection = http.client.HTTPConnection(lease.base_url.split("/")[2], timeout=20)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status == 200

parents = shared_simulator()
child = os.fork()
if child == 0:
    own = shared_simulator()
    parents.release()
    fine = own.base_url != parents.base_url and healthy(own) and healthy(parents)
    own.release()
    sys.exit(0 if fine else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert healthy(parents)
parents.release()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_gets_its_own() -> None:
    """The child starts a new one, and its release does not touch the parent's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_a_lease_that_is_never_released_ends_with_the_process() -> None:
    """The interpreter ends at once and says nothing."""
    code = "from loom.server.simulator import shared_simulator; lease = shared_simulator()"

    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
