"""The file: who may see, write and read it, its versions, and what lies in it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.ledger.ledgers import call, pay, sqlite_ledger

from loom.core.errors import LedgerUnavailable
from loom.ledger import book as book_module
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Query
from loom.ledger.entry import Sent
from loom.ledger.sqlite.store import SqliteLedger
from loom.testing import FakeClock, turn

pytestmark = pytest.mark.anyio

BUDGET = Budget(limit_usd=1)

HEAD = """
import asyncio, os, sys
from decimal import Decimal
from loom.core.errors import LedgerUnavailable
from loom.ledger.closing import closed
from loom.ledger.entry import Opening
from loom.ledger.sqlite.store import SqliteLedger

call = Opening(provider="mistral", asked_model="model-1", worst_usd=Decimal("0.10"))
ledger = SqliteLedger(sys.argv[1])
"""

VERSION_1 = """
CREATE TABLE calls (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, state TEXT NOT NULL, provider TEXT NOT NULL,
    model TEXT NOT NULL, asked_model TEXT NOT NULL, kind TEXT NOT NULL, stream INTEGER NOT NULL,
    key TEXT NOT NULL, client TEXT NOT NULL, session TEXT, tenant TEXT NOT NULL,
    tags TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, audio_tokens INTEGER NOT NULL, price_id TEXT NOT NULL,
    cost_usd TEXT, reserved_usd TEXT, attempts TEXT NOT NULL, latency_s REAL, first_byte_s REAL,
    code TEXT NOT NULL, request_id TEXT
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO calls VALUES (
    '0626f24e6d700000000001000001', 1731672000000000, 'settled', 'mistral', 'model-1', 'model-1',
    'chat', 0, '12345678', '', 'abc', '', '{"project":"weaving"}', 1250, 3420, 0, 0,
    'model-1@2024-11-01', '0.046040', '0.05', '', 1.5, NULL, '', 'r1'
);
INSERT INTO calls VALUES (
    '0626f24e6d700000000001000002', 1731672000000000, 'open', 'mistral', '', 'model-1', 'chat', 0,
    '', '', NULL, '', '', 0, 0, 0, 0, '', NULL, '0.05', '', NULL, NULL, '', NULL
);
PRAGMA application_id = 0x4C4F4F4D;
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


def started(code: str, path: Path) -> subprocess.Popen[str]:
    """Start another process on a ledger."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def contents(path: Path) -> bytes:
    """Give what lies in a file."""
    return path.read_bytes()


def version_1(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)


async def test_everything_is_for_its_owner_alone(tmp_path: Path) -> None:
    """A new folder has mode 0700, every file in it 0600."""
    old = os.umask(0)
    try:
        ledger = SqliteLedger(tmp_path / "data" / "calls.db")
        await ledger.reserve(call())
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "data").iterdir()}
        await ledger.aclose()
    finally:
        os.umask(old)

    assert 0o700 == (tmp_path / "data").stat().st_mode & 0o777
    assert {0o600} == set(modes.values()), modes
    assert {"calls.db", "calls.db-wal"} <= set(modes)


async def test_nothing_is_made_before_the_first_call(path: Path) -> None:
    """A ledger that was never used, or only read, leaves no file and no thread."""
    ledger = SqliteLedger(path)

    assert () == await ledger.entries()
    assert () == await ledger.totals()
    assert () == await ledger.check()
    await ledger.aclose()
    assert [] == list(path.parent.iterdir())


async def test_a_file_of_version_1_is_brought_up(path: Path) -> None:
    """Its rows, tags and sums are there, and what was open is uncertain."""
    version_1(path)
    ledger = sqlite_ledger(path)

    done, lost = await ledger.entries()

    assert ("settled", "uncertain") == (done.state, lost.state)
    assert ({"project": "weaving"}, 0, None) == (done.tags, done.audio_seconds, done.service_tier)
    assert (done,) == await ledger.entries(Query(tag=("project", "weaving")))
    (standing,) = await ledger.standings(call(), [BUDGET])
    assert "0.096040" == str(standing.spent_usd)
    assert () == await ledger.check()
    await ledger.aclose()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("CREATE TABLE users (name TEXT)", "the database of another program"),
        (VERSION_1 + "PRAGMA user_version = 99", "a newer version of looms"),
    ],
)
async def test_a_file_that_is_not_ours_is_left_alone(path: Path, script: str, why: str) -> None:
    """It is refused with the reason, to readers too."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    before = contents(path)
    ledger = sqlite_ledger(path)

    with pytest.raises(LedgerUnavailable, match=why):
        await ledger.reserve(call())
    with pytest.raises(LedgerUnavailable, match=why):
        await ledger.entries()
    await ledger.aclose()

    assert before == contents(path)


async def test_a_second_process_is_refused_and_may_read(path: Path) -> None:
    """One process writes a file (G23); its open calls are its own until it is gone."""
    code = HEAD + "asyncio.run(ledger.reserve(call)); print(os.getpid(), flush=True); input()"
    with started(code, path) as other:
        assert other.stdout is not None
        pid = other.stdout.readline().strip()
        ledger = sqlite_ledger(path)

        with pytest.raises(LedgerUnavailable, match=f"is written by process {pid} since"):
            await ledger.reserve(call())
        assert ["open"] == [row.state for row in await ledger.entries()]
        other.communicate("\n")

    await ledger.reserve(call())
    assert {"uncertain", "open"} == {row.state for row in await ledger.entries()}
    await ledger.aclose()


async def test_ledgers_of_one_process_share_a_file(path: Path) -> None:
    """They share sums and rows; one that is closed does not disturb the other."""
    one, two = sqlite_ledger(path), sqlite_ledger(path)
    held = await one.reserve(call("0.60"), [BUDGET])
    (standing,) = await two.standings(call(), [BUDGET])
    await two.aclose()
    await pay(one, held)
    await one.aclose()

    assert "0.60" == str(standing.reserved_usd)
    assert "settled" == (await one.entries())[0].state

    again = sqlite_ledger(path)
    ending = asyncio.ensure_future(again.aclose())
    await again.aclose()
    await ending


async def test_a_file_is_opened_anew_while_it_is_being_closed(path: Path) -> None:
    """A new ledger waits for the old one's thread."""
    for _ in range(10):
        old, new = sqlite_ledger(path), sqlite_ledger(path)
        await old.reserve(call())
        closing_it = asyncio.ensure_future(old.aclose())
        await turn()
        await new.reserve(call())
        await closing_it
        await new.aclose()

    assert 20 == len(await new.entries())


def test_what_is_queued_is_written_at_exit(path: Path) -> None:
    """A program that ends without closing loses nothing that it booked."""
    code = HEAD + (
        "ticket = asyncio.run(ledger.reserve(call))\n"
        "ledger.book(ticket, closed(ticket.entry, 'released'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)

    rows = asyncio.run(SqliteLedger(path).entries())
    assert ["released"] == [row.state for row in rows]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_after_a_fork_begins_anew(path: Path) -> None:
    """It is refused while its parent writes the file, and the parent's thread goes on."""
    code = HEAD + (
        "asyncio.run(ledger.reserve(call))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n"
        "        asyncio.run(ledger.reserve(call))\n"
        "    except LedgerUnavailable as error:\n"
        "        os._exit(7 if str(os.getppid()) in str(error) else 8)\n"
        "    os._exit(9)\n"
        "assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "asyncio.run(ledger.reserve(call))\n"
        "asyncio.run(ledger.aclose())\n"
        "if not os.fork():\n"
        "    asyncio.run(SqliteLedger(sys.argv[1]).reserve(call))\n"
        "    sys.exit(0)\n"
        "assert 0 == os.waitstatus_to_exitcode(os.wait()[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert 3 == len(asyncio.run(SqliteLedger(path).entries()))


def test_a_loop_that_ended_keeps_nothing_reserved(path: Path) -> None:
    """A reservation whose loop is closed when its row is written is released."""
    ledger = sqlite_ledger(path, busy_s=0.0, patience_s=1e9)

    async def leave() -> None:
        await ledger.standings(call(), [BUDGET])
        other.execute("BEGIN IMMEDIATE")
        asyncio.ensure_future(ledger.reserve(call("0.60"), [BUDGET]))  # noqa: RUF006 - it is left
        await turn()

    async def look() -> str:
        # The release is queued after the row.
        await ledger.reserve(call("0.01"))
        (standing,) = await ledger.standings(call(), [BUDGET])
        await ledger.aclose()
        return str(standing.reserved_usd)

    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        asyncio.run(leave())
    assert "0.01" == asyncio.run(look())


async def test_texts_that_no_file_can_hold_are_cleaned(path: Path) -> None:
    """Halves of characters and NULs, as a header may bring them, lose no row."""
    ledger = sqlite_ledger(path)
    ticket = await ledger.reserve(call(session="a\0b", tags={"p": "\ud800"}), [BUDGET])
    sent = Sent(provider="mistral", model="model-1", request_id="\udcff", code="a\0")

    receipt = await pay(ledger, ticket, request_id="r\udcff", attempts=(sent,), model="m\0")

    (row,) = await ledger.entries(Query(session="a\ufffdb", tag=("p", "?")))
    assert ("r?", "m\ufffd", "?") == (row.request_id, row.model, row.attempts[0].request_id)
    assert "committed" == receipt.kept
    await ledger.aclose()


async def test_old_rows_go_by_themselves(path: Path) -> None:
    """With `keep_days`, once a day; the budget remembers."""
    clock = FakeClock()
    ledger = SqliteLedger(path, clock=clock, keep_days=30)
    await pay(ledger, await ledger.reserve(call(), [BUDGET]))
    clock.advance(timedelta(days=60).total_seconds())
    await ledger.reserve(call(), [BUDGET])

    assert ["open"] == [row.state for row in await ledger.entries()]
    (standing,) = await ledger.standings(call(), [BUDGET])
    assert "0.05" == str(standing.spent_usd)
    await ledger.aclose()


async def test_accounts_that_were_put_away_come_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sessions there are, memory holds few sums and each is right."""
    monkeypatch.setattr(book_module, "_KEPT", 5)
    ledger = sqlite_ledger(path)
    budget = Budget(limit_usd="0.15", per="session")
    for session in "abcdefghij" * 2:
        await ledger.reserve(call("0.05", session=session), [budget])

    for session in "abcdefghij":
        (standing,) = await ledger.standings(call(session=session), [budget])
        assert "0.10" == str(standing.reserved_usd)
    await ledger.aclose()


async def test_a_damaged_row_is_found_by_the_check(path: Path) -> None:
    """The check names the row; a question that meets it says what is wrong."""
    ledger = sqlite_ledger(path)
    await pay(ledger, await ledger.reserve(call()))
    await ledger.aclose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE calls SET cost_usd = 'much'")
        connection.commit()

    (found,) = await sqlite_ledger(path).check()
    assert "cannot be read" in found
    with pytest.raises(LedgerUnavailable, match="is damaged"):
        await sqlite_ledger(path).entries()


async def test_a_row_holds_neither_key_nor_prompt(path: Path) -> None:
    """The columns are these and no others."""
    ledger = sqlite_ledger(path)
    ticket = await ledger.reserve(call())
    await ledger.settle(ticket, closed(ticket.entry, "released"))
    await ledger.aclose()
    with closing(sqlite3.connect(path)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}

    assert {"messages", "prompt", "content", "api_key"}.isdisjoint(columns)
    assert columns == set(ticket.entry.__struct_fields__)
