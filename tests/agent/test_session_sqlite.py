"""The file of sessions: who may read it, what is wrong with it, who else writes it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from tests.agent.stories import answer, user
from tests.ledger.ledgers import Disk, call, sqlite_ledger

from loom.agent.session import Entry
from loom.agent.session_sqlite import SQLiteSessions
from loom.core.errors import ConfigInvalid, Conflict, InvalidRequest, SessionUnavailable
from loom.testing import turn_until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def sessions(path: Path, **options: Any) -> AsyncGenerator[SQLiteSessions, None]:
    """Give a store, and close it."""
    store = SQLiteSessions(path, **options)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def made(path: Path) -> None:
    """Make a file with one session of two entries."""
    async with sessions(path) as store:
        await store.append("abc", [user("Hello"), answer()], expected=0)


async def read(path: Path, session: str) -> tuple[Entry, ...]:
    """Give what a file holds of a session."""
    async with sessions(path) as store:
        return await store.read(session)


def changed(path: Path, *statements: str, **values: str) -> None:
    """Change a file as no store does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement, values)


def contents(path: Path) -> bytes:
    """Give what lies in a file."""
    return path.read_bytes()


def spoilt(path: Path, first: int, last: int) -> bytes:
    """Overwrite pages of a file, and give what it holds now."""
    body = path.read_bytes()
    beyond = min(last * 4096, len(body))
    path.write_bytes(body[: first * 4096] + b"\xff" * (beyond - first * 4096) + body[beyond:])
    return path.read_bytes()


def bodies(folder: Path) -> bytes:
    """Give everything that lies in a folder."""
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


# --- the file ------------------------------------------------------------------------------


async def test_nothing_is_made_before_the_first_entry(path: Path) -> None:
    """Who only looks leaves no file behind."""
    async with sessions(path.parent / "below" / "sessions.db") as store:
        assert ((), None, (), False) == (
            await store.read("abc"),
            await store.info("abc"),
            await store.list(),
            await store.delete("abc"),
        )
        assert 0 == await store.append("abc", [], expected=0)
        with pytest.raises(Conflict):
            await store.append("abc", [], expected=1)
    assert [] == list(path.parent.iterdir())


async def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """A new folder has mode 0700; the file, and those beside it while it is open, 0600."""
    folder = tmp_path / "new"
    async with sessions(folder / "sessions.db") as store:
        await store.append("abc", [user()], expected=0)
        assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
        assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_sessions_outlive_their_store(path: Path) -> None:
    """Another store of the same file goes on where the first one ended."""
    await made(path)
    async with sessions(path) as store:
        assert (user("Hello"), answer()) == await store.read("abc")
        assert 3 == await store.append("abc", [user("And?")], expected=2)
        info = await store.info("abc")
    assert info is not None
    assert (3, 2, "0.001") == (info.entries, info.turns, str(info.cost_usd))


async def test_a_closed_store_leaves_one_file(path: Path) -> None:
    """Nothing lies beside it, so it can be copied."""
    await made(path)
    assert [path] == list(path.parent.iterdir())


async def test_a_program_may_change_its_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative path means the folder in which the store was made."""
    monkeypatch.chdir(tmp_path)
    async with sessions(Path("sessions.db")) as store:
        monkeypatch.chdir("/")
        await store.append("abc", [user()], expected=0)
    assert contents(path)


async def test_a_name_of_sqlites_own_is_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    """`:memory:` as a path is a file of that name, and nothing is forgotten."""
    monkeypatch.chdir(tmp_path)
    await made(Path(":memory:"))
    async with sessions(Path(":memory:")) as store:
        assert 2 == len(await store.read("abc"))


async def test_what_is_deleted_is_overwritten(path: Path) -> None:
    """No word of it is found in the file, nor in the log beside it, while the store is open."""
    async with sessions(path) as store:
        secret = [user("xyzzy-said " * 500), answer("xyzzy-answered")]
        await store.append("abc", [user("kept")], expected=0)
        await store.append("xyzzy-id", secret, expected=0)
        assert b"xyzzy" in bodies(path.parent)

        await store.delete("xyzzy-id")

        assert b"xyzzy" not in bodies(path.parent)
        assert (user("kept"),) == await store.read("abc")


async def test_a_reader_holds_up_no_deletion(path: Path) -> None:
    """What another program reads is gone from the log with the first write after it."""
    async with sessions(path, patience_s=0.0) as store:
        await store.append("abc", [user("xyzzy")], expected=0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM entries").fetchone()
            assert await store.delete("abc")
            await store.append("new", [user()], expected=0)
            assert b"xyzzy" in bodies(path.parent)
        await store.append("new", [user()], expected=1)
        assert b"xyzzy" not in bodies(path.parent)


async def test_an_entry_is_never_changed(path: Path) -> None:
    """The file itself refuses it."""
    await made(path)
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        changed(path, "UPDATE entries SET body = x'00'")


async def test_a_file_that_was_moved_away_is_begun_anew(path: Path) -> None:
    """What was in it went along, and what comes now goes into a new one."""
    moved = path.with_name("moved.db")
    async with sessions(path) as store:
        await store.append("abc", [user("old")], expected=0)
        shutil.move(path, moved)
        assert () == await store.read("abc")
        assert 1 == await store.append("abc", [user("new")], expected=0)
    async with sessions(moved) as store:
        assert (user("old"),) == await store.read("abc")
    async with sessions(path) as store:
        assert (user("new"),) == await store.read("abc")


# --- what is wrong -------------------------------------------------------------------------


async def test_a_lock_is_waited_for_and_named(path: Path) -> None:
    """Who holds it for longer than the store's patience is told of; then all is well again."""
    async with sessions(path, patience_s=0.0) as store:
        await store.append("abc", [user()], expected=0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SessionUnavailable, match="locked by another program") as caught:
                await store.append("abc", [user()], expected=1)
            assert "Try again" in caught.value.hint
            assert (user(),) == await store.read("abc")
        assert 2 == await store.append("abc", [user()], expected=1)


async def test_a_full_disk_takes_nothing_of_an_append(path: Path) -> None:
    """What does not fit is not there at all; when there is room it is."""
    disk = Disk()
    many = [user("x" * 1000)] * 100
    async with sessions(path, connect=disk.connect) as store:
        await store.append("abc", [user()], expected=0)
        disk.fill()
        with pytest.raises(SessionUnavailable, match="the disk is full") as caught:
            await store.append("abc", many, expected=1)
        assert "Make room" in caught.value.hint
        info = await store.info("abc")
        assert info is not None
        assert (1, 1) == (info.entries, len(await store.read("abc")))
        assert 101 == await store.append("abc", many, expected=1)


async def test_a_disk_that_is_write_protected_is_a_setting(path: Path) -> None:
    """The error names the file and says what to change; reading goes on."""
    disk = Disk()
    async with sessions(path, connect=disk.connect) as store:
        await store.append("abc", [user()], expected=0)
        disk.set("query_only = ON")
        with pytest.raises(ConfigInvalid, match=r"sessions\.db is read-only") as caught:
            await store.append("abc", [user()], expected=1)
        assert "write to the file and to its folder" in caught.value.hint
        assert 1 == len(await store.read("abc"))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.EACCES, "is read-only"),
        (errno.EROFS, "is read-only"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EIO, "cannot be read or written"),
        (errno.ENOTDIR, "cannot be a file"),
        (errno.ELOOP, "cannot be a file"),
    ],
)
async def test_what_the_machine_says_is_told(path: Path, code: int, says: str) -> None:
    """An error of the machine is told with the file, in words, and with advice."""

    def connect(path: Path, busy_s: float) -> sqlite3.Connection:
        raise OSError(code, os.strerror(code), str(path))

    async with sessions(path, connect=connect) as store:
        with pytest.raises((ConfigInvalid, SessionUnavailable), match=says) as caught:
            await store.append("abc", [user()], expected=0)
    assert str(path) in str(caught.value)
    assert caught.value.hint


async def test_a_log_that_cannot_be_made_is_a_folder_that_is_read_only(path: Path) -> None:
    """The file is there, and what SQLite needs beside it is not and cannot be."""
    await made(path)
    path.with_name("sessions.db-wal").mkdir()
    async with sessions(path) as store:
        with pytest.raises(ConfigInvalid, match="is read-only, or lies in a folder that is"):
            await store.read("abc")


@pytest.mark.parametrize("where", ["folder", "file/sessions.db", "n" * 300])
async def test_a_path_that_cannot_be_is_a_setting(tmp_path: Path, where: str) -> None:
    """A folder, a path below a file and a name that is too long are said to be none."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    async with sessions(tmp_path / where) as store:
        with pytest.raises(ConfigInvalid, match="cannot be a file"):
            await store.append("abc", [user()], expected=0)
    assert "a file" == (tmp_path / "file").read_text()


@pytest.mark.parametrize("where", ["", "a\0b"])
def test_a_path_that_is_none_is_refused_at_once(where: str) -> None:
    """No file can have it."""
    with pytest.raises(ConfigInvalid, match="cannot be the file"):
        SQLiteSessions(where)


async def test_a_damaged_file_is_left_as_it_is(path: Path) -> None:
    """It is said to be damaged, and nobody writes to it."""
    await made(path)
    before = spoilt(path, 0, 1)
    async with sessions(path) as store:
        for attempt in (store.read("abc"), store.append("abc", [user()], expected=2)):
            with pytest.raises(ConfigInvalid, match="is damaged"):
                await attempt
    assert before == contents(path)


async def test_damage_within_is_found_when_it_is_read(path: Path) -> None:
    """A page that is no page any more is an error, and no empty session."""
    async with sessions(path) as store:
        await store.append("abc", [user("x" * 500)] * 200, expected=0)
    spoilt(path, 3, 1000)
    async with sessions(path) as store:
        with pytest.raises(ConfigInvalid, match="is damaged"):
            await store.read("abc")


async def test_a_missing_entry_is_damage(path: Path) -> None:
    """A session with a hole is not read as if it were whole."""
    await made(path)
    changed(path, "DELETE FROM entries WHERE position = 0")
    async with sessions(path) as store:
        with pytest.raises(ConfigInvalid, match="entries of the session 'abc' are missing"):
            await store.read("abc")


async def test_a_sum_that_is_none_is_damage(path: Path) -> None:
    """An amount that cannot be read is not taken for nothing."""
    await made(path)
    changed(path, "UPDATE sessions SET cost_usd = 'much'")
    async with sessions(path) as store:
        with pytest.raises(ConfigInvalid, match="is damaged"):
            await store.info("abc")


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    """A database with tables of its own, a ledger too, is not written to."""
    changed(path, "CREATE TABLE notes (body)")
    before = contents(path)
    ledger = sqlite_ledger(path.with_name("calls.db"))
    await ledger.reserve(call())
    await ledger.aclose()
    for file in (path, ledger.path):
        async with sessions(file) as store:
            with pytest.raises(ConfigInvalid, match="database of another program"):
                await store.append("abc", [user()], expected=0)
    assert before == contents(path)


async def test_a_newer_versions_file_is_left_alone(path: Path) -> None:
    """It is said to be newer, with what to do."""
    await made(path)
    changed(path, "PRAGMA user_version = 99")
    async with sessions(path) as store:
        with pytest.raises(ConfigInvalid, match="newer version") as caught:
            await store.read("abc")
    assert "Update" in caught.value.hint


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"kind":"sung","song":"la"}', "kind 'sung', which this version of looms does not know"),
        ('{"kind":"said"}', "is not as it was written"),
        ("no JSON", "is not as it was written"),
    ],
)
async def test_what_cannot_be_read_is_said_and_kept(path: Path, body: str, says: str) -> None:
    """An entry of a newer version, or a damaged one, is an error that names its place."""
    await made(path)
    changed(
        path,
        "INSERT INTO entries SELECT session, 2, 'sung', :body, '' FROM entries LIMIT 1",
        "UPDATE sessions SET entries = 3",
        body=body,
    )
    async with sessions(path) as store:
        with pytest.raises(ConfigInvalid, match=says) as caught:
            await store.read("abc")
        assert "entry 2 of the session 'abc'" in str(caught.value)
        # Others may go on with it: nothing is lost.
        assert 4 == await store.append("abc", [user()], expected=3)
        assert 1 == len(await store.list())
    with closing(sqlite3.connect(path)) as connection:
        assert (body,) == connection.execute(
            "SELECT CAST(body AS TEXT) FROM entries WHERE position = 2"
        ).fetchone()


async def test_a_cost_that_is_none_is_refused(path: Path) -> None:
    """Neither below zero nor endless: the sums stay exact."""
    async with sessions(path) as store:
        for cost in ("-1", "NaN", "Infinity", "1E+99"):
            with pytest.raises(InvalidRequest, match="the cost of a call"):
                await store.append("abc", [answer(cost=cost)], expected=0)
        assert () == await store.list()


# --- threads, processes, cancellations -----------------------------------------------------


async def test_the_loops_thread_touches_no_disk(path: Path) -> None:
    """Every file is opened, and every statement done, in the store's own thread."""
    here = threading.get_ident()
    seen: set[str] = set()
    watching = True

    def watch(event: str, _: object) -> None:
        if (
            watching
            and here == threading.get_ident()
            and event.startswith(("open", "sqlite3", "os."))
        ):
            seen.add(event)

    sys.addaudithook(watch)
    async with sessions(path) as store:
        await store.append("abc", [user()], expected=0)
        await store.read("abc")
        await store.list(search="hello")
        await store.delete("abc")
    watching = False
    assert set() == seen


async def test_what_waits_is_taken_out_when_it_is_cancelled(path: Path) -> None:
    """An append that has not begun never happens; one that has is done whole."""
    gate = threading.Event()
    begun = threading.Event()

    def connect(path: Path, busy_s: float) -> sqlite3.Connection:
        begun.set()
        gate.wait(30)
        return sqlite3.connect(path, timeout=busy_s, isolation_level=None)

    async with sessions(path, connect=connect) as store:
        first = asyncio.ensure_future(store.append("abc", [user("1")], expected=0))
        second = asyncio.ensure_future(store.append("abc", [user("2")], expected=1))
        assert await turn_until(begun.is_set, at_most=10**7)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        assert (True, True) == (first.cancelled(), second.cancelled())
        gate.set()
        assert (user("1"),) == await store.read("abc")


async def test_a_store_that_is_closed_twice_at_once_is_closed(path: Path) -> None:
    """And what was asked before is done."""
    store = SQLiteSessions(path)
    append = asyncio.ensure_future(store.append("abc", [user()], expected=0))
    await turn_until(lambda: bool(store._workers))
    await asyncio.gather(store.aclose(), store.aclose())
    assert 1 == await append


HEAD = (
    "import asyncio, os, sys\n"
    "from loom.agent.session import Said\n"
    "from loom.agent.session_sqlite import SQLiteSessions\n"
    "from loom.core.errors import Conflict\n"
    "from loom.core.messages import Message\n"
    "store = SQLiteSessions(sys.argv[1])\n"
    "def user(text): return Said(message=Message.user(text))\n"
)


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEAD + code, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_program_need_not_close_its_store(path: Path) -> None:
    """It ends by itself, and what was acknowledged is there."""
    done = run("asyncio.run(store.append('abc', [user('1')], expected=0))\n", path)
    assert (0, "") == (done.returncode, done.stderr)
    assert (user("1"),) == asyncio.run(read(path, "abc"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_after_a_fork_opens_its_own(path: Path) -> None:
    """Parent and child go on with one store, each through its own thread and file."""
    done = run(
        "asyncio.run(store.append('abc', [user('parent')], expected=0))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    asyncio.run(store.append('abc', [user('child')], expected=1))\n"
        "    asyncio.run(store.aclose())\n"
        "    sys.exit(0)\n"
        "assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "asyncio.run(store.append('abc', [user('parent again')], expected=2))\n"
        "asyncio.run(store.aclose())\n",
        path,
    )
    assert 0 == done.returncode, done.stderr
    expected = (user("parent"), user("child"), user("parent again"))
    assert expected == asyncio.run(read(path, "abc"))


def test_several_processes_share_a_file(path: Path) -> None:
    """Each appends to one session, again after each conflict: nothing is lost or written twice."""
    code = HEAD + (
        "async def main():\n"
        "    for number in range(20):\n"
        "        while True:\n"
        "            known = len(await store.read('abc'))\n"
        "            try:\n"
        "                await store.append('abc', [user(f'{sys.argv[2]}-{number}')],\n"
        "                                   expected=known)\n"
        "            except Conflict:\n"
        "                continue\n"
        "            break\n"
        "    await store.aclose()\n"
        "asyncio.run(main())\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], stderr=subprocess.PIPE)
        for name in "abcd"
    ]
    for child in children:
        _, said = child.communicate()
        assert 0 == child.returncode, said.decode()

    async def look() -> tuple[list[str], int]:
        async with sessions(path) as store:
            info = await store.info("abc")
            entries = await store.read("abc")
            assert info is not None
            return [entry.message.text for entry in entries], info.turns  # type: ignore[union-attr] # all were said

    texts, turns = asyncio.run(look())
    assert sorted(f"{name}-{number}" for name in "abcd" for number in range(20)) == sorted(texts)
    assert 80 == turns
    for name in "abcd":
        mine = [text for text in texts if text.startswith(name)]
        assert [f"{name}-{number}" for number in range(20)] == mine


@pytest.mark.parametrize("moment", range(1, 9))
async def test_a_file_may_be_made_by_two_at_once(path: Path, moment: int) -> None:
    """Whatever a store has looked at when another process makes the file, it goes on with it."""
    statements = 0

    class Slow(sqlite3.Connection):
        def execute(self, *given: Any) -> sqlite3.Cursor:
            nonlocal statements
            statements += 1
            if statements == moment and not self.in_transaction:
                asyncio.run(made(path))
            return super().execute(*given)

    def connect(path: Path, busy_s: float) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=busy_s, isolation_level=None, factory=Slow)

    async with sessions(path, connect=connect) as store:
        await store.append("mine", [user()], expected=0)
        assert {"mine", "abc"} >= {info.id for info in await store.list()}
        assert 1 == len(await store.read("mine"))


async def test_a_copy_of_the_files_at_any_moment_is_whole(path: Path) -> None:
    """What lies on the disk after an acknowledgement holds all of it: a crash loses nothing."""
    async with sessions(path) as store:
        for number in range(5):
            await store.append("abc", [user(str(number)), answer()], expected=2 * number)
            folder = path.parent / f"crash-{number}"
            folder.mkdir()
            for file in path.parent.glob("sessions.db*"):
                if not file.name.endswith("-shm"):
                    shutil.copyfile(file, folder / file.name)
            async with sessions(folder / path.name) as copy:
                info = await copy.info("abc")
                assert info is not None
                assert 2 * number + 2 == len(await copy.read("abc")) == info.entries
