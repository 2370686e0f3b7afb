"""Whom the ring lets in, how soon it hears of changes, and what a refusal does not say."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import ConfigInvalid, InvalidAPIKey, KeysUnavailable, LimitExceeded
from loom.ledger.sqlite.file import plain_connect
from loom.server.gateway.keys import ADMIN, ANYONE, KeyTerms, VirtualKey
from loom.server.gateway.keys_failures import Failures
from loom.server.gateway.keys_ring import LOOK_S, KeyRing
from loom.server.gateway.keys_store import KeyStore
from loom.server.gateway.keys_text import digest_of, new_key
from loom.server.gateway.keys_watch import KeyWatch
from loom.testing.clock import FakeClock
from loom.testing.turns import turn_until

pytestmark = pytest.mark.anyio

ADMIN_KEY = "an admin's own words"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a file that is not there yet."""
    return tmp_path / "keys.db"


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands still."""
    return FakeClock()


@pytest.fixture
def store(path: Path, clock: FakeClock) -> KeyStore:
    """Give a store with nothing in it."""
    return KeyStore(path, clock=clock)


@pytest.fixture
async def ring(path: Path, clock: FakeClock) -> AsyncIterator[KeyRing]:
    """Give a ring that began before the first key."""
    made = KeyRing(KeyWatch(path), host="127.0.0.1", admin_hash=digest_of(ADMIN_KEY), clock=clock)
    async with made:
        yield made


def ring_of(*keys: VirtualKey, host: str = "127.0.0.1", clock: FakeClock | None = None) -> KeyRing:
    """Give a ring with these keys that looks at no file."""
    ring = KeyRing(KeyWatch(Path("nowhere")), host=host, clock=clock or FakeClock())
    ring.take(keys)
    return ring


def bearer(made: object) -> str:
    """Give the header that carries a key."""
    return f"Bearer {made.secret.reveal()}"  # type: ignore[attr-defined] # a MadeKey


def lets_in(ring: KeyRing, authorization: str) -> bool:
    """Say whether a caller is let in."""
    try:
        ring.admit(authorization)
    except InvalidAPIKey:
        return False
    return True


async def test_a_key_is_let_in(store: KeyStore, ring: KeyRing) -> None:
    """With its terms; the scheme's case does not matter."""
    made = store.create("team-a", KeyTerms(rpm=5), actor="ann")
    await ring.refresh()
    assert made.key == ring.admit(bearer(made))
    assert made.key == ring.admit(f"bearer  {made.secret.reveal()} ")
    assert (made.key,) == ring.keys


async def test_new_keys_and_revoked_ones_are_seen_within_a_second(
    store: KeyStore, ring: KeyRing, clock: FakeClock
) -> None:
    """The clock is moved by less than one, and nobody asks for it."""
    kept = store.create("kept", actor="ann")
    for made in (store.create("a", actor="ann"), store.create("b", actor="ann")):
        await _one_look(clock, lambda made=made: lets_in(ring, bearer(made)))  # type: ignore[misc] # one of the loop
        store.revoke(made.key.id, actor="ann")
        assert lets_in(ring, bearer(made))
        await _one_look(clock, lambda made=made: not lets_in(ring, bearer(made)))  # type: ignore[misc] # one of the loop
    store.update("kept", {"rpm": 7}, actor="ann")
    await _one_look(clock, lambda: 7 == ring.admit(bearer(kept)).rpm)
    assert LOOK_S < 1


async def _one_look(clock: FakeClock, done: Callable[[], bool]) -> None:
    await _real(lambda: clock.sleepers == 1)
    clock.advance(LOOK_S)
    await _real(done)


async def _real(done: Callable[[], bool]) -> None:
    """Wait for what a real thread does."""
    for _ in range(2000):
        if await turn_until(done):
            return
    assert done()


def test_a_key_expires_at_its_moment(clock: FakeClock) -> None:
    """No look is needed: the clock is asked for every request."""
    secret = new_key().reveal()
    key = VirtualKey(
        id="key_1",
        name="a",
        hash=digest_of(secret),
        created_at=clock.now(),
        expires_at=clock.now() + timedelta(seconds=90),
    )
    ring = ring_of(key, clock=clock)
    clock.advance(89.9)
    assert lets_in(ring, f"Bearer {secret}")
    clock.advance(0.1)
    assert not lets_in(ring, f"Bearer {secret}")


async def test_every_refusal_is_the_same(
    store: KeyStore, ring: KeyRing, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """No key, a malformed, unknown, expired or revoked one: one error, and no key in it."""
    gone, old = store.create("gone", actor="ann"), store.create("old", actor="ann")
    store.revoke("gone", actor="ann")
    store.update("old", {"expires_at": clock.now()}, actor="ann")
    await ring.refresh()
    unknown = new_key().reveal()
    headers = [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        unknown,
        f"Bearer {unknown}",
        f"Bearer {unknown[:-1]}",
        f"Bearer {unknown}x",
        bearer(gone),
        bearer(old),
        f"Bearer {'x' * 100_000}",
        "Bearer \ud800\x00",
    ]
    told = set()
    for header in headers:
        with pytest.raises(InvalidAPIKey) as caught:
            ring.admit(header, "10.0.0.1")
        error = caught.value
        told.add((error.message, error.hint, error.http_status, str(error.__dict__)))
    assert 1 == len(told)
    assert 401 == caught.value.http_status
    said = f"{told} {caplog.text} {[vars(record) for record in caplog.records]}"
    for secret in (unknown, bearer(gone)[7:], bearer(old)[7:]):
        assert secret[8:] not in said
    whose = [vars(record)["whose"] for record in caplog.records]
    assert len(headers) == len(whose)
    assert {"unknown", f"gone ({gone.key.id}, revoked)", f"old ({old.key.id}, expired)"} == set(
        whose
    )


def test_the_admins_key(caplog: pytest.LogCaptureFixture) -> None:
    """It may everything; for what makes keys nobody else is let in, not even at an open door."""
    secret = new_key()
    key = VirtualKey(
        id="key_1", name="a", hash=digest_of(secret.reveal()), created_at=FakeClock().now()
    )
    admin = f"Bearer {ADMIN_KEY}"
    ring = KeyRing(KeyWatch(Path("nowhere")), host="::1", admin_hash=digest_of(ADMIN_KEY))
    ring.take(())
    assert (ADMIN, ADMIN) == (ring.admit(admin), ring.admit_admin(admin))
    assert ANYONE == ring.admit(None)
    ring.take((key,))
    assert key == ring.admit(f"Bearer {secret.reveal()}")
    for header in (None, f"Bearer {secret.reveal()}", "Bearer admin"):
        with pytest.raises(InvalidAPIKey):
            ring.admit_admin(header)
    assert ADMIN_KEY not in f"{caplog.text} {vars(ring)}"


def test_without_an_admins_key_there_is_no_admin() -> None:
    """No text is taken for it."""
    ring = ring_of()
    for header in (None, "Bearer ", "Bearer admin"):
        with pytest.raises(InvalidAPIKey):
            ring.admit_admin(header)


async def test_the_door_is_shut_by_the_first_key(
    store: KeyStore, ring: KeyRing, path: Path
) -> None:
    """And stays so, though the key is revoked, and though the file vanishes."""
    assert ring.is_open
    assert ANYONE == ring.admit("Bearer whatever a program needs to have")
    made = store.create("a", actor="ann")
    await ring.refresh()
    assert not ring.is_open
    store.revoke("a", actor="ann")
    await ring.refresh()
    assert not lets_in(ring, "Bearer x")
    path.unlink()  # noqa: ASYNC240 - a small file
    await ring.refresh()
    assert (False, ()) == (ring.is_open, ring.keys)
    assert not lets_in(ring, bearer(made))


def test_elsewhere_the_door_is_never_open() -> None:
    """An address that others reach asks for a key from the beginning."""
    assert not lets_in(ring_of(host="0.0.0.0"), "Bearer x")  # noqa: S104 - what must not be open


def test_wrong_keys_are_limited_by_address(clock: FakeClock, caplog: object) -> None:
    """After 20 at once, one a second; a right key passes, and other addresses are their own."""
    del caplog
    secret = new_key().reveal()
    key = VirtualKey(id="key_1", name="a", hash=digest_of(secret), created_at=clock.now())
    ring = ring_of(key, clock=clock)
    for _ in range(20):
        with pytest.raises(InvalidAPIKey):
            ring.admit("Bearer x", "10.0.0.1")
    with pytest.raises(LimitExceeded) as caught:
        ring.admit("Bearer x", "10.0.0.1")
    assert (429, 1.0) == (caught.value.http_status, caught.value.retry_after_s)
    with pytest.raises(LimitExceeded):
        ring.admit_admin("Bearer x", "10.0.0.1")
    assert key == ring.admit(f"Bearer {secret}", "10.0.0.1")
    with pytest.raises(InvalidAPIKey):
        ring.admit("Bearer x", "10.0.0.2")
    clock.advance(1)
    with pytest.raises(InvalidAPIKey):
        ring.admit("Bearer x", "10.0.0.1")
    with pytest.raises(LimitExceeded):
        ring.admit("Bearer x", "10.0.0.1")


def test_who_has_a_network_has_one_limit() -> None:
    """An IPv6 /64 is one address, and an IPv4 address in IPv6's clothes is itself."""
    failures = Failures(burst=1)
    assert 0 == failures.wait_s("2001:db8::1", 0)
    assert failures.wait_s("2001:db8::ffff", 0) > 0
    assert 0 == failures.wait_s("2001:db8:0:1::1", 0)
    assert 0 == failures.wait_s("::ffff:10.0.0.1", 0)
    assert failures.wait_s("10.0.0.1", 0) > 0
    assert 0 == failures.wait_s("fe80::1%eth0", 0)
    assert 0 == failures.wait_s("not:an:address", 0)
    assert 0 == failures.wait_s("", 0)


def test_addresses_are_forgotten() -> None:
    """A flood of them takes no memory: who was quiet for longest goes."""
    failures = Failures(burst=1, most=2)
    for address in ("1", "2", "3"):
        assert 0 == failures.wait_s(address, 0)
    assert failures.wait_s("3", 0) > 0
    assert failures.wait_s("2", 0) > 0
    assert 0 == failures.wait_s("1", 0)


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_address_has_more_wrong_keys_than_its_bucket_holds(waits: list[float]) -> None:
    """In any span: the burst, and one for each second of it."""
    failures, now_s, passed = Failures(burst=3, a_second=1), 0.0, []
    for wait_s in waits:
        now_s += wait_s
        if failures.wait_s("a", now_s) == 0:
            passed.append(now_s)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= 3 + passed[last] - passed[first] + 1e-6


def test_both_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request makes the same two comparisons, whatever it brings, and no other."""
    from loom.server.gateway import keys_ring

    compared: list[tuple[int, int]] = []

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(keys_ring, "compare_digest", spy)
    secret = new_key().reveal()
    key = VirtualKey(id="key_1", name="a", hash=digest_of(secret), created_at=FakeClock().now())
    gone = msgspec.structs.replace(key, revoked_at=FakeClock().now())
    for held in (key, gone):
        for header in (f"Bearer {secret}", "Bearer x", "Bearer", None, "x" * 5000):
            compared.clear()
            lets_in(ring_of(held), header or "")
            assert [(32, 32), (32, 32)] == compared


async def test_trouble_keeps_the_keys_of_the_last_look(
    path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, stands in `trouble`, and is over by itself."""
    caplog.set_level(logging.INFO)
    failing: list[Exception] = []

    def connect(where: Path, busy_s: float) -> sqlite3.Connection:
        if failing:
            raise failing[0]
        return plain_connect(where, busy_s)

    store = KeyStore(path, clock=clock)
    made = store.create("a", actor="ann")
    async with KeyRing(KeyWatch(path, connect=connect), host="127.0.0.1", clock=clock) as ring:
        failing.append(sqlite3.OperationalError("disk I/O error"))
        other = path.with_name("other.db")
        KeyStore(other, clock=clock).create("b", actor="ann")
        # Another file in its place: the ring must open it, and cannot.
        other.replace(path)
        for _ in range(3):
            await _one_look(clock, lambda: ring.trouble is not None)
        assert isinstance(ring.trouble, KeysUnavailable)
        assert made.key == ring.admit(bearer(made))
        failing.clear()
        await _one_look(clock, lambda: ring.trouble is None)
        assert ["b"] == [key.name for key in ring.keys]
        assert not lets_in(ring, bearer(made))
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert 1 == told.count("The keys of the last look hold")
    assert 1 == told.count("The file of keys can be read again")


async def test_nothing_stops_the_looking(path: Path, clock: FakeClock) -> None:
    """An error that nobody foresaw is logged, and the next look is made."""

    class Faulty(KeyWatch):
        faults = 1

        def look(self) -> tuple[VirtualKey, ...] | None:
            if self.faults < 1:
                self.faults += 1
                raise ZeroDivisionError
            return super().look()

    watch = Faulty(path)
    async with KeyRing(watch, host="127.0.0.1", clock=clock) as ring:
        watch.faults = 0
        await _one_look(clock, lambda: ring.trouble is not None)
        await _one_look(clock, lambda: ring.trouble is None)


async def test_a_gateway_does_not_begin_with_a_file_that_it_cannot_read(path: Path) -> None:
    """It would let everybody in on this machine, or nobody."""
    path.write_text("no database\n" * 200)  # noqa: ASYNC240 - a small file
    with pytest.raises(ConfigInvalid, match="is damaged"):
        async with KeyRing(KeyWatch(path), host="127.0.0.1"):
            pass  # pragma: no cover - never reached


def test_a_file_that_cannot_be_read_is_told_at_every_look(store: KeyStore, path: Path) -> None:
    """Until it can: then it is read anew."""
    watch = KeyWatch(path)
    other = path.with_name("other.db")
    try:
        with closing(sqlite3.connect(other)) as file, file:
            file.execute("CREATE TABLE calls (id)")
        other.replace(path)
        for _ in range(2):
            with pytest.raises(ConfigInvalid, match="of another program"):
                watch.look()
        path.unlink()
        store.create("a", actor="ann")
        assert ["a"] == [key.name for key in watch.look() or ()]
    finally:
        watch.close()


def test_a_look_does_not_wait_long_for_a_lock(store: KeyStore, path: Path) -> None:
    """Another program holds the file: that is told, and the next look reads it."""
    store.create("a", actor="ann")
    watch = KeyWatch(path, busy_s=0.05)
    try:
        assert ["a"] == [key.name for key in watch.look() or ()]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(KeysUnavailable, match="is locked"):
                watch.look()
        assert ["a"] == [key.name for key in watch.look() or ()]
    finally:
        watch.close()


def test_a_look_that_finds_nothing_new_reads_no_keys(store: KeyStore, path: Path) -> None:
    """None; what somebody else commits is seen, whether or not the file grows."""
    watch = KeyWatch(path)
    try:
        assert [(), None, None] == [watch.look(), watch.look(), watch.look()]
        path.touch()
        assert watch.look() is None
        for name in ("a", "b"):
            store.create(name, actor="ann")
            assert name == (watch.look() or ())[-1].name
            assert watch.look() is None
        for rpm in (1, 2, 3):
            with closing(sqlite3.connect(path)) as file, file:
                file.execute("UPDATE keys SET terms = ?", (f'{{"rpm":{rpm}}}',))
            assert {rpm} == {key.rpm for key in watch.look() or ()}
        assert watch.look() is None
    finally:
        watch.close()


async def test_a_key_that_did_not_change_stays_the_same_object(
    store: KeyStore, ring: KeyRing
) -> None:
    """Who counts by it goes on counting."""
    made = store.create("a", KeyTerms(rpm=5), actor="ann")
    await ring.refresh()
    before = ring.admit(bearer(made))
    store.create("b", actor="ann")
    await ring.refresh()
    assert before is ring.admit(bearer(made))
