"""The SQLite backend: what it answers, what it cuts, what it says."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.agent.shop import ENDLESS, digest, make_shop

from loom.agent.backend_sqlite import SQLiteBackend
from loom.core.errors import ConfigInvalid, ToolFailed, ToolTimedOut
from loom.testing import turn

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a shop's file."""
    return make_shop(tmp_path)


async def test_rows_come_with_the_names_of_their_columns(path: Path) -> None:
    """A query gives names and rows in order, and says that nothing is left out."""
    result = await SQLiteBackend(path).execute_query(
        "SELECT id, amount AS sum, note FROM orders ORDER BY id; -- all of them"
    )

    assert ("id", "sum", "note") == result.columns
    assert ((1, 20.5, "gift, red"), (2, 5.0, None), (3, 12.0, "")) == result.rows
    assert not result.truncated


async def test_values_are_bound(path: Path) -> None:
    """A parameter is a value, whatever it looks like."""
    result = await SQLiteBackend(path).execute_query(
        "SELECT ?, ?, ?, ?, typeof(?)", ["' OR 1=1 --", 2**53 + 1, None, 1.5, True]
    )

    assert (("' OR 1=1 --", 2**53 + 1, None, 1.5, "integer"),) == result.rows


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ([1, 2], "binding"),
        ([[1]], "a parameter is a list"),
        ({"a": 1}, "must be a list"),
        ("ab", "must be a list"),
        ([2**70], "not one that SQLite takes"),
        (["\ud800"], "not one that SQLite takes"),
    ],
)
async def test_wrong_parameters_are_told(path: Path, parameters: Any, said: str) -> None:
    """What cannot be bound is an error in words."""
    with pytest.raises(ToolFailed, match=said):
        await SQLiteBackend(path).execute_query("SELECT ?", parameters)


async def test_odd_values_survive(tmp_path: Path) -> None:
    """Text that is not UTF-8, large numbers, infinities and bytes come as something to send."""
    path = make_shop(
        tmp_path,
        "CREATE TABLE odd(v); INSERT INTO odd VALUES (CAST(x'61ff' AS TEXT)), (9007199254740993),"
        " (9e999), (-9e999), (x'0001'), (''), (CAST(x'eda080' AS TEXT));",
    )

    rows = (await SQLiteBackend(path).execute_query("SELECT v FROM odd")).rows

    odd = ["a\\xff", 2**53 + 1, math.inf, -math.inf, "<blob: 2 bytes>", "", "\\xed\\xa0\\x80"]
    assert odd == [row[0] for row in rows]


async def test_rows_are_cut(path: Path) -> None:
    """Beyond the cap of rows the result says so and how to go on."""
    backend = SQLiteBackend(path, max_rows=2)

    result = await backend.execute_query("SELECT id FROM orders ORDER BY id")
    whole = await backend.execute_query("SELECT id FROM orders ORDER BY id LIMIT 2")

    assert ((1,), (2,)) == result.rows
    assert result.truncated
    assert "only the first 2 rows are shown; go on with LIMIT and OFFSET" in result.reason
    assert not whole.truncated


async def test_bytes_are_cut(path: Path) -> None:
    """Beyond the cap of bytes the rest of the rows is left out."""
    backend = SQLiteBackend(path, max_bytes=1024)

    result = await backend.execute_query("SELECT printf('%.400c', 'x') FROM orders")

    assert 2 == len(result.rows)
    assert "more is too long" in result.reason


async def test_a_long_cell_is_cut(path: Path) -> None:
    """A long text keeps its beginning, its length is told, and how to read on."""
    backend = SQLiteBackend(path, max_cell_bytes=16)

    result = await backend.execute_query("SELECT printf('%.5000c', 'x'), 'é' || ? ", ["é" * 16])

    assert (("x" * 16 + "… (5,000 bytes)", "é" * 8 + "… (34 bytes)"),) == result.rows
    assert "2 long values are cut; read on with substr(column, start, length)" == result.reason


async def test_a_value_too_long_to_touch_is_told(tmp_path: Path) -> None:
    """A value beyond its cap fails the query, and its length can still be asked."""
    path = make_shop(tmp_path, "CREATE TABLE big(b); INSERT INTO big VALUES (zeroblob(600000));")
    backend = SQLiteBackend(path)

    with pytest.raises(ToolFailed, match=r"leave that column out, or ask for length\(column\)"):
        await backend.execute_query("SELECT b FROM big")
    assert ((600_000,),) == (await backend.execute_query("SELECT length(b) FROM big")).rows


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "SELECT town FROM customers",
            "no such column: town; customers has: id, name, city",
        ),
        (
            "SELECT o.town FROM orders o JOIN customers c",
            "no such column: o.town; orders has: id, customer_id, amount, note; customers has: id,",
        ),
        (
            "SELECT * FROM costumers",
            "no such table: costumers; the tables are: customers, large, leak, orders, secrets",
        ),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT median_of(1)", "no such function: median_of"),
        ("SELECT 1; SELECT 2", "You can only execute one statement at a time."),
        ("DELETE FROM orders", "refused: DELETE is not allowed: the database is read-only; only"),
    ],
)
async def test_errors_teach(path: Path, query: str, said: str) -> None:
    """A message names what is wrong and what there is instead."""
    with pytest.raises(ToolFailed) as caught:
        await SQLiteBackend(path).execute_query(query)

    assert caught.value.message.startswith(said)


async def test_replaced_functions_are_those_of_sqlite(path: Path) -> None:
    """`trim`, `printf` and `format` give what SQLite's own give."""
    calls = [
        "trim('xxaxbxx', 'x')", "ltrim('xya', 'yx')", "rtrim('axy', 'yx')", "trim('a', '')",
        "trim(NULL, 'a')", "trim('a', NULL)", "trim(100, 0)", "trim(2.50, '0')", "trim(1e20, '0')",
        "trim(x'616261', 'a')", "trim('  a ')", "printf('%05d|%.2f|%s', 42, 1.005, 'é')",
        "printf('%,d %%', 1234567)", "printf(NULL)", "printf()", "format('%-6s|', 'ab')",
        "printf('%s', x'6162')", "printf('%d')", "typeof(printf('%d', 1))",
    ]  # fmt: skip
    query = f"SELECT {', '.join(calls)}"
    with closing(sqlite3.connect(path)) as connection:
        expected = connection.execute(query).fetchall()

    assert expected == list((await SQLiteBackend(path).execute_query(query)).rows)


async def test_full_text_and_boxes_are_read(tmp_path: Path) -> None:
    """Virtual tables of SQLite's own kinds answer, with a list of tables too."""
    path = make_shop(
        tmp_path,
        "CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES ('red gift');"
        "CREATE VIRTUAL TABLE old USING fts4(body); INSERT INTO old VALUES ('red gift');"
        "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1); INSERT INTO box VALUES (1, 2, 3);",
    )
    for backend in (SQLiteBackend(path), SQLiteBackend(path, tables=("docs", "old", "box"))):
        for query, row in (
            ("SELECT highlight(docs, 0, '<', '>') FROM docs WHERE docs MATCH 'gift'", "red <gift>"),
            ("SELECT snippet(old) FROM old WHERE body MATCH 'gift'", "red <b>gift</b>"),
            ("SELECT id FROM box WHERE x0 > 1", 1),
            ("SELECT count(*) FROM docs", 1),
        ):
            assert ((row,),) == (await backend.execute_query(query)).rows
        names = [one.name for one in await backend.list_resources()]
        assert [] == [name for name in names if "_" in name]


async def test_the_schema_is_a_line_a_table(path: Path) -> None:
    """Columns, types, keys, where they point, and the number of rows."""
    backend = SQLiteBackend(path, tables=("orders", "customers", "large"))

    assert (
        "customers (2 rows): id INTEGER key, name TEXT, city TEXT\n"
        "view large: id INTEGER, amount REAL\n"
        "orders (3 rows): id INTEGER key, customer_id INT -> customers.id, amount REAL, note TEXT"
    ) == await backend.get_schema()
    assert (await backend.get_schema("ORDERS")).startswith("orders (3 rows): id INTEGER key")


async def test_samples_are_told_if_wished(path: Path) -> None:
    """A few values of a column with few of them, and none without being asked."""
    told = await SQLiteBackend(path, samples=True).get_schema("customers")

    assert "city TEXT ('Oslo' | 'Rome')" in told
    assert "Oslo" not in await SQLiteBackend(path).get_schema()


async def test_metadata_tell_all(tmp_path: Path) -> None:
    """Columns with what binds them, foreign keys, indexes."""
    path = make_shop(tmp_path, "CREATE UNIQUE INDEX by_city ON customers(city, name);")

    facts = await SQLiteBackend(path).get_metadata("Customers")

    assert "customers" == facts["name"]
    assert "2 rows" == facts["rows"]
    assert {
        "name": "name",
        "type": "TEXT",
        "not_null": True,
        "primary_key": 0,
        "generated": False,
    } == facts["columns"][1]
    assert [{"name": "by_city", "unique": True, "columns": ["city", "name"]}] == facts["indexes"]


async def test_many_rows_are_not_counted_to_the_end(tmp_path: Path) -> None:
    """A count ends at a hundred thousand."""
    path = make_shop(
        tmp_path,
        "CREATE TABLE many(n); WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t"
        " LIMIT 100005) INSERT INTO many SELECT n FROM t;",
    )

    assert "100,000+ rows" == (await SQLiteBackend(path).get_metadata("many"))["rows"]


async def test_a_writer_changes_one_statement_at_a_time(path: Path) -> None:
    """With `read_only=False` each statement is one transaction and tells what it changed."""
    backend = SQLiteBackend(path, read_only=False)

    changed = await backend.execute_query("UPDATE orders SET amount = ? WHERE id < 3", [1])
    returned = await backend.execute_query("DELETE FROM orders WHERE id = 3 RETURNING id")
    made = await backend.execute_query("CREATE TABLE more(id INTEGER PRIMARY KEY)")
    await backend.execute_query("ALTER TABLE more ADD COLUMN word TEXT")
    await backend.execute_query("CREATE INDEX by_word ON more(word)")
    await backend.execute_query("ALTER TABLE more RENAME COLUMN word TO term")
    await backend.execute_query("ALTER TABLE more RENAME TO less")
    await backend.execute_query("DROP INDEX by_word")
    await backend.execute_query("ALTER TABLE less DROP COLUMN term")
    await backend.execute_query("DROP TABLE less")

    assert (("rows_changed",), ((2,),)) == (changed.columns, changed.rows)
    assert ((3,),) == returned.rows
    assert ((0,),) == made.rows
    with closing(sqlite3.connect(path)) as connection:
        assert [(1.0,), (1.0,)] == connection.execute("SELECT amount FROM orders").fetchall()


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH ':memory:' AS o",
        "PRAGMA writable_schema = ON",
        "BEGIN",
        "COMMIT",
        "VACUUM",
        "CREATE TEMP TABLE t(a)",
        "CREATE TRIGGER g AFTER INSERT ON orders BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 1, 'x')",
        "INSERT INTO customers VALUES (5, NULL, 'x')",
        "INSERT INTO orders(id) VALUES (7); INSERT INTO orders(id) VALUES (8)",
        "INSERT INTO orders(id) SELECT load_extension('x')",
    ],
)
async def test_a_writer_may_not_do_everything(path: Path, query: str) -> None:
    """What opens a door is refused for a writer too, and nothing of it stays."""
    before = digest(path)

    with pytest.raises(ToolFailed):
        await SQLiteBackend(path, read_only=False).execute_query(query)

    assert before == digest(path)


async def test_a_writer_is_held_to_its_tables(path: Path) -> None:
    """With a list of tables nothing else is written, made or dropped."""
    backend = SQLiteBackend(path, read_only=False, tables=("orders",))
    before = digest(path)
    for query in (
        "UPDATE secrets SET word = 'x'",
        "DROP TABLE secrets",
        "CREATE TABLE more(id)",
        "CREATE INDEX i ON secrets(word)",
        "ALTER TABLE secrets ADD COLUMN x",
        "UPDATE orders SET note = (SELECT word FROM secrets)",
    ):
        with pytest.raises(ToolFailed):
            await backend.execute_query(query)

    assert before == digest(path)
    assert ((3,),) == (await backend.execute_query("UPDATE orders SET note = 'x'")).rows


async def test_a_change_that_takes_too_long_is_undone(path: Path) -> None:
    """The time cap ends a change, and the file is as it was."""
    before = digest(path)

    with pytest.raises(ToolTimedOut):
        await SQLiteBackend(path, read_only=False, timeout_s=0.2).execute_query(
            f"INSERT INTO secrets {ENDLESS}"
        )

    assert before == digest(path)


async def test_a_change_that_fills_the_disk_is_undone(path: Path) -> None:
    """One statement lets the file grow so much and no more."""
    before = digest(path)
    backend = SQLiteBackend(path, read_only=False, max_memory_bytes=40_000_000)

    with pytest.raises(ToolFailed, match=r"cannot grow so much|MiB of memory"):
        await backend.execute_query(
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t)"
            " INSERT INTO secrets SELECT zeroblob(100000) FROM t"
        )

    assert before == digest(path)


async def test_views_may_call_what_was_replaced(tmp_path: Path) -> None:
    """A view with `trim` and `printf` answers."""
    path = make_shop(
        tmp_path,
        "CREATE VIEW v AS SELECT trim(name, 'A') AS a, printf('%03d', id) AS b FROM customers;",
    )

    assert ("nn", "001") == (await SQLiteBackend(path).execute_query("SELECT * FROM v")).rows[0]


async def test_a_list_of_tables_with_a_slip_is_told(path: Path) -> None:
    """`ping` names the tables that are not there."""
    with pytest.raises(ConfigInvalid, match="shop has no table 'ordres'"):
        await SQLiteBackend(path, tables=("ordres", "Orders")).ping()


async def test_reading_apart_writes_nothing(path: Path) -> None:
    """`read_query` of a writer refuses a change."""
    backend = SQLiteBackend(path, read_only=False)

    assert ((3,),) == (await backend.read_query("SELECT count(*) FROM orders")).rows
    with pytest.raises(ToolFailed, match="read-only"):
        await backend.read_query("DELETE FROM orders")


async def test_a_lock_is_waited_for(path: Path) -> None:
    """A query waits for another program's lock, and goes on when it is gone."""
    backend = SQLiteBackend(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        task = asyncio.ensure_future(backend.execute_query("SELECT count(*) FROM orders"))
        await turn(50)
        assert not task.done()
        other.execute("COMMIT")

        assert ((3,),) == (await task).rows


async def test_a_lock_that_stays_is_told(path: Path) -> None:
    """A lock that outlasts the time cap is an error in words; a cancellation ends the wait."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(ToolTimedOut, match=r"^shop is locked by another program: waited 0.1 s"):
            await SQLiteBackend(path, timeout_s=0.1).execute_query("SELECT 1 FROM orders")

        task = asyncio.ensure_future(SQLiteBackend(path).execute_query("SELECT 1 FROM orders"))
        await turn(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    """A reader needs a file; a writer may make one."""
    path = tmp_path / "new.db"

    with pytest.raises(ConfigInvalid, match="there is no file"):
        SQLiteBackend(path)
    assert not list_of(tmp_path)
    backend = SQLiteBackend(path, read_only=False)
    await backend.execute_query("CREATE TABLE t(a)")

    assert ["new.db"] == list_of(tmp_path)


def list_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def text_file(folder: Path) -> Path:
    path = folder / "a.txt"
    path.write_text("Dear database, this is a letter.", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: "", "'' is no file"),
        (lambda folder: ":memory:", "':memory:' is no file"),
        (lambda folder: "a\x00b", "null character"),
        (lambda folder: folder, "is not a file"),
        (lambda folder: folder / "no" / "x.db", "there is no file"),
        (text_file, "is not a SQLite database"),
    ],
)
def test_what_is_no_database_is_told_at_once(make: Any, said: str, tmp_path: Path) -> None:
    """The constructor looks at the file, and names what is wrong with it."""
    with pytest.raises(ConfigInvalid, match=said):
        SQLiteBackend(make(tmp_path))


@pytest.mark.parametrize(
    ("cap", "value"),
    [
        ("max_rows", 0),
        ("max_rows", True),
        ("max_bytes", 10),
        ("max_cell_bytes", 1),
        ("max_value_bytes", 1.5),
        ("max_steps", 0),
        ("timeout_s", 0),
        ("timeout_s", math.inf),
        ("tables", "orders"),
    ],
)
def test_a_cap_that_cannot_be_kept_is_told(path: Path, cap: str, value: Any) -> None:
    """Each cap has a least value; the message names the cap."""
    with pytest.raises(ConfigInvalid, match=cap):
        SQLiteBackend(path, **{cap: value})


async def test_a_file_that_went_away_is_told_without_its_path(path: Path) -> None:
    """The model reads the backend's name, not where the file lay."""
    backend = SQLiteBackend(path, name="Our shop")
    unlink(path)

    with pytest.raises(ToolFailed, match=r"^Our shop cannot be opened or read$"):
        await backend.ping()
    assert not path.exists()  # noqa: ASYNC240 - one look


def unlink(path: Path) -> None:
    path.unlink()


async def test_a_name_with_odd_letters_is_a_file(tmp_path: Path) -> None:
    """A path is a path, not an address with parameters."""
    for name in ("a?mode=rwc.db", "b#c.db", "d%20e.db", "f g.db", "file:h.db"):
        backend = SQLiteBackend(make_shop(tmp_path, name=name))

        assert ((3,),) == (await backend.execute_query("SELECT count(*) FROM orders")).rows


async def test_closing_ends_what_runs(path: Path) -> None:
    """A query that runs at the end is stopped, and its thread is gone."""
    backend = SQLiteBackend(path)
    threads = threading.active_count()
    task = asyncio.ensure_future(backend.execute_query(ENDLESS))
    await turn(3)

    await backend.close()

    with pytest.raises(ToolFailed, match="stopped"):
        await task
    assert threads == threading.active_count()
    with pytest.raises(RuntimeError, match="closed"):
        await backend.ping()


async def test_cancelled_twice_it_still_ends(path: Path) -> None:
    """A second cancellation while the first one ends the query changes nothing."""
    threads = threading.active_count()
    task = asyncio.ensure_future(SQLiteBackend(path).execute_query(ENDLESS))
    await turn(3)
    task.cancel()
    await turn()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads == threading.active_count()


def test_a_repr_keeps_the_path(path: Path) -> None:
    """The repr tells the name and the rights, not the path."""
    assert "SQLiteBackend(name='shop', read_only=True)" == repr(SQLiteBackend(path))
