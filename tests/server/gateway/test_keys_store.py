"""The file of keys: what it keeps, what it never holds, and what may not be done to it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom.core.errors import ConfigInvalid, InvalidRequest, KeysUnavailable
from loom.ledger.budgets import Budget
from loom.ledger.sqlite.store import SqliteLedger
from loom.server.gateway.keys import KeyTerms
from loom.server.gateway.keys_rows import changes
from loom.server.gateway.keys_store import KeyStore
from loom.server.gateway.keys_text import digest_of, is_well_formed
from loom.testing.clock import FakeClock

EVERYTHING = KeyTerms(
    models=("mistral-*", "codestral-latest"),
    rpm=60,
    tpm=100_000,
    budget=Budget(limit_usd="20.50", period="month", warn_usd=15, on_unknown_price="allow"),
    max_tokens=4000,
    concurrency=8,
    expires_at=datetime(2027, 2, 24, 12, tzinfo=UTC),
    tags={"team": "a", "café": "naïve"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a file that is not there yet."""
    return tmp_path / "data" / "keys.db"


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands still."""
    return FakeClock()


@pytest.fixture
def store(path: Path, clock: FakeClock) -> KeyStore:
    """Give a store with nothing in it."""
    return KeyStore(path, clock=clock)


def raw(path: Path, statement: str, *values: object) -> list[Any]:
    """Do something to the file behind the store's back."""
    with closing(sqlite3.connect(path)) as file, file:
        return file.execute(statement, values).fetchall()


def test_a_key_comes_back_as_it_was_made(store: KeyStore, clock: FakeClock) -> None:
    """Every term, to the last digit, by id, by name, by hash and by the key itself."""
    made = store.create("team-a", EVERYTHING, actor="ann")
    key, secret = made.key, made.secret.reveal()
    assert is_well_formed(secret)
    assert digest_of(secret) == key.hash
    assert made.secret.fingerprint == key.fingerprint
    assert clock.now() == key.created_at
    assert Decimal("20.50") == (key.budget or Budget(limit_usd=0)).limit
    assert {} == changes(EVERYTHING, key)
    for which in (key.id, "team-a", secret):
        assert key == store.get(which)
    assert key == store.find_by_hash(digest_of(secret))
    assert (key,) == store.list()


def test_nothing_is_there_before_the_first_key(store: KeyStore, path: Path) -> None:
    """Reading makes no file, and neither does revoking what there is not."""
    assert ((), None, ()) == (store.list(), store.get("x"), store.audit())
    assert store.find_by_hash(bytes(32)) is None
    with pytest.raises(InvalidRequest, match="there is no key 'x'"):
        store.revoke("x", actor="ann")
    with pytest.raises(InvalidRequest, match="there is no key 'x'"):
        store.update("x", {}, actor="ann")
    assert not path.parent.exists()


def test_a_file_that_is_being_made_holds_nothing(store: KeyStore, path: Path) -> None:
    """Another process made the file and not yet its tables."""
    path.parent.mkdir()
    path.touch()
    assert ((), None) == (store.list(), store.get("x"))


def test_folder_and_file_are_their_owners(store: KeyStore, path: Path) -> None:
    """0700 and 0600; a file that others may write is closed to them."""
    store.create("a", actor="ann")
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    path.chmod(0o666)
    store.create("b", actor="ann")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_one_name_has_one_key(store: KeyStore) -> None:
    """Until it is revoked; then the name means the new one, and the id still the old one."""
    old = store.create("team-a", actor="ann").key
    with pytest.raises(ConfigInvalid, match="there is a key 'team-a' already"):
        store.create("team-a", actor="ann")
    store.revoke("team-a", actor="ann")
    new = store.create("team-a", actor="ann").key
    assert new == store.get("team-a")
    assert old.hash == (store.get(old.id) or new).hash
    store.revoke("team-a", actor="ann")
    assert new.id == store.revoke("team-a", actor="ann").id


def test_revoking_is_for_good(store: KeyStore, clock: FakeClock) -> None:
    """A second time changes nothing, and no update brings it back."""
    store.create("a", actor="ann")
    gone = store.revoke("a", actor="bob")
    assert clock.now() == gone.revoked_at
    clock.advance(60)
    assert gone == store.revoke("a", actor="eve")
    with pytest.raises(InvalidRequest, match="'a' is revoked"):
        store.update("a", {"rpm": 5}, actor="eve")
    assert ["revoke", "create"] == [row.action for row in store.audit()]


def test_an_update_changes_what_it_names(store: KeyStore) -> None:
    """The rest stays, the secret too; None takes a limit away."""
    made = store.create("a", EVERYTHING, actor="ann")
    new = store.update("a", {"rpm": 5, "budget": None}, actor="bob")
    assert (5, None, 100_000) == (new.rpm, new.budget, new.tpm)
    assert (made.key.hash, made.key.id) == (new.hash, new.id)
    assert new == store.get(made.secret.reveal())
    with pytest.raises(ConfigInvalid, match="no term 'hash'"):
        store.update("a", {"hash": bytes(32)}, actor="eve")
    with pytest.raises(ConfigInvalid, match="a key's rpm is"):
        store.update("a", {"rpm": 0}, actor="eve")
    assert new == store.get("a")


def test_the_audit_tells_who_did_what(store: KeyStore, clock: FakeClock) -> None:
    """Each change with both values, the newest first; what changes nothing is not told."""
    key = store.create("a", KeyTerms(rpm=60), actor="ann").key
    clock.advance(60)
    store.update("a", {"rpm": 5, "budget": Budget(limit_usd="0.10", period="day")}, actor="bob")
    store.update("a", {"rpm": 5}, actor="bob")
    store.revoke(key.id, actor="eve\x00\ud800")
    store.create("b", actor="ann")
    told = store.audit("a")
    assert [("revoke", 3), ("update", 2), ("create", 1)] == [(t.action, t.number) for t in told]
    assert ["eve\ufffd?", "bob", "ann"] == [row.actor for row in told]
    assert {"rpm": (60, 5), "budget": (None, {"limit_usd": "0.10", "period": "day"})} == dict(
        told[1].change
    )
    assert {"rpm": (None, 60)} == dict(told[2].change)
    assert {(key.id, "a", key.hash.hex())} == {(row.id, row.name, row.hash) for row in told}
    assert 60 == (told[1].at - told[2].at).total_seconds()
    assert told == store.audit(key.id)
    assert 1 == len(store.audit(limit=1))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM keys", "a key is never deleted"),
        ("UPDATE keys SET revoked = NULL", "a revoked key is never changed"),
        ("UPDATE keys SET terms = '{}'", "a revoked key is never changed"),
        ("UPDATE keys SET hash = zeroblob(32) WHERE name = 'b'", "a key stays the same"),
        ("UPDATE audit SET actor = 'nobody'", "the audit is never changed"),
        ("DELETE FROM audit", "the audit is never shortened"),
        ("INSERT INTO keys VALUES (9, 'i', 'n', x'00', '{}', 0, NULL)", "CHECK constraint"),
    ],
)
def test_the_file_itself_forbids(store: KeyStore, path: Path, statement: str, said: str) -> None:
    """What may not happen cannot be done by a slip of another program either."""
    store.create("a", actor="ann")
    store.revoke("a", actor="ann")
    store.create("b", actor="ann")
    before = store.list(), store.audit()
    with pytest.raises(sqlite3.IntegrityError, match=said):
        raw(path, statement)
    assert before == (store.list(), store.audit())


def test_no_key_is_anywhere(store: KeyStore, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the file, nor beside it, in a log, a `repr`, an error or the audit."""
    caplog.set_level(logging.DEBUG)
    made = store.create("a", EVERYTHING, actor="ann")
    canary = made.secret.reveal()
    store.update(canary, {"rpm": 5}, actor="ann")
    store.revoke(canary, actor="ann")
    errors = []
    for act in (
        lambda: store.update(canary, {"rpm": 6}, actor="ann"),
        lambda: store.revoke(canary[:-1], actor="ann"),
        lambda: store.create(canary, actor="ann"),
    ):
        with pytest.raises((ConfigInvalid, InvalidRequest)) as caught:
            act()
        errors.append(f"{caught.value!r} {caught.value} {caught.value.hint}")
    shown = f"{made!r} {store.list()!r} {store.audit(canary)!r} {errors} {caplog.text}"
    assert 3 == len(store.audit(canary))
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for part in (canary, canary.removeprefix("loom_sk_"), canary[8:24]):
        assert part not in shown
        assert part.encode() not in written


def test_a_lock_of_another_program(path: Path) -> None:
    """Who cannot write in time hears of the lock; reading goes on meanwhile."""
    store = KeyStore(path, busy_s=0.05)
    key = store.create("a", actor="ann").key
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(KeysUnavailable, match=r"the file of keys .* is locked") as caught:
            store.create("b", actor="ann")
        assert (key,) == store.list()
    assert 75 == caught.value.exit_code
    assert "b" == store.create("b", actor="ann").key.name


def test_a_file_that_is_not_ours(tmp_path: Path) -> None:
    """A ledger, a newer version, no database, a damaged row: each is named, and left alone."""
    ledger = tmp_path / "ledger.db"
    raw(ledger, "CREATE TABLE calls (id)")
    newer, wrong, damaged = (tmp_path / name for name in ("newer.db", "wrong.db", "damaged.db"))
    for file in (newer, damaged):
        KeyStore(file).create("a", actor="ann")
    raw(newer, "PRAGMA user_version = 9")
    wrong.write_text("no database at all, and long enough to be looked at\n" * 50)
    raw(damaged, "UPDATE keys SET terms = ?", '{"rpm": "many"}')
    for file, said in [
        (ledger, "of another program"),
        (newer, "newer version"),
        (wrong, "is damaged"),
        (damaged, "is damaged"),
        (tmp_path, "cannot be"),
        (wrong / "keys.db", "cannot be"),
    ]:
        before = file.read_bytes() if file.is_file() else b""
        with pytest.raises((ConfigInvalid, KeysUnavailable), match=said) as caught:
            KeyStore(file).list() if file is damaged else KeyStore(file).create("b", actor="ann")
        assert caught.value.hint
        assert before == (file.read_bytes() if file.is_file() else b"")


@pytest.mark.parametrize(
    "terms",
    ["", "{", "[]", '{"rpm": 0}', '{"models": ["[a]"]}', '{"budget": {"limit_usd": "-1"}}',
     '{"budget": {"limit_usd": 1.5, "period": "year"}}', '{"expires_at": "soon"}', b"\xff"],
)  # fmt: skip
def test_a_damaged_row_lets_nobody_in(store: KeyStore, path: Path, terms: object) -> None:
    """It is not read as a key without limits: the file is damaged, and says so."""
    store.create("a", actor="ann")
    raw(path, "UPDATE keys SET terms = ?", terms)
    with pytest.raises(ConfigInvalid, match="is damaged"):
        store.list()


def test_other_damage_is_told_too(store: KeyStore, path: Path) -> None:
    """A hash that is a text, and a row of the audit that says nothing."""
    store.create("a", actor="ann")
    raw(path, "INSERT INTO audit SELECT 9, at, actor, action, id, name, hash, '{' FROM audit")
    with pytest.raises(ConfigInvalid, match="a row of the audit"):
        store.audit()
    assert ["a"] == [key.name for key in store.list()]
    raw(path, "INSERT INTO keys VALUES (9, 'i', 'n', ?, '{}', 0, NULL)", "h" * 32)
    with pytest.raises(ConfigInvalid, match="its hash is a text"):
        store.list()


def test_a_ledger_is_no_file_of_keys(store: KeyStore, path: Path) -> None:
    """The other way round, too: a ledger does not write into the keys."""
    store.create("a", actor="ann")

    async def check() -> None:
        ledger = SqliteLedger(path)
        try:
            with pytest.raises(Exception, match="another program"):
                await ledger.totals()
        finally:
            await ledger.aclose()

    asyncio.run(check())


def test_threads_make_keys_at_once(store: KeyStore) -> None:
    """Each has its own; of eight that want one name, one gets it."""
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda i: store.create(f"key-of-{i}", actor="ann"), range(40))]
        taken = [*pool.map(lambda _i: _attempt(store, "wanted"), range(8))]
    assert 40 == len({each.key.id for each in made})
    assert 1 == taken.count(True)
    assert 41 == len(store.list()) == len(store.audit())
    assert [*range(41, 0, -1)] == [row.number for row in store.audit()]


def _attempt(store: KeyStore, name: str) -> bool:
    try:
        store.create(name, actor="ann")
    except ConfigInvalid:
        return False
    return True


def test_processes_share_a_file(path: Path) -> None:
    """Two that begin at once make the file and their keys without losing one."""
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from loom.server.gateway.keys_store import KeyStore\n"
        "store = KeyStore(Path(sys.argv[1]))\n"
        "for i in range(20):\n"
        "    store.create(f'{sys.argv[2]}-{i}', actor=sys.argv[2])\n"
        "    store.revoke(f'{sys.argv[2]}-{i}', actor=sys.argv[2])\n"
    )
    words = [sys.executable, "-c", program, str(path)]
    both = [subprocess.Popen([*words, name]) for name in ("one", "two")]
    assert [0, 0] == [process.wait() for process in both]
    keys = KeyStore(path).list()
    assert {f"{who}-{i}" for who in ("one", "two") for i in range(20)} == {k.name for k in keys}
    assert all(key.revoked_at for key in keys)
    assert 80 == len(KeyStore(path).audit())


TERMS = st.builds(
    KeyTerms,
    models=st.lists(st.text("abc*?-:", min_size=1, max_size=9), max_size=4).map(tuple),
    rpm=st.none() | st.integers(1, 2**40),
    tpm=st.none() | st.integers(1, 2**40),
    budget=st.none()
    | st.builds(
        Budget,
        limit_usd=st.decimals(0, 10**9, allow_nan=False, allow_infinity=False, places=9),
        period=st.sampled_from([None, "day", "week", "month"]),
    ),
    max_tokens=st.none() | st.integers(1, 2**40),
    concurrency=st.none() | st.integers(1, 10**6),
    expires_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    tags=st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))
    ),
)


@settings(max_examples=25)  # each syncs a file several times
@given(st.lists(TERMS, min_size=1, max_size=4))
def test_any_terms_come_back(tmp_path_factory: pytest.TempPathFactory, terms: list[Any]) -> None:
    """As they were made, and as they were changed."""
    store = KeyStore(tmp_path_factory.mktemp("keys") / "keys.db")
    key = store.create("a", terms[0], actor="ann").key
    for new in terms[1:]:
        fields = {name: getattr(new, name) for name in KeyTerms.__struct_fields__}
        key = store.update("a", fields, actor="ann")
    assert key == store.get("a")
    assert {} == changes(terms[-1], key)
