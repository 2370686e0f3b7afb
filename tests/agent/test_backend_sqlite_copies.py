"""A query that multiplies its parts is refused before SQLite copies them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.shop import make_shop

from loom.agent.backend_sqlite import SQLiteBackend
from loom.agent.sqlite.copies import MOST_COPIES, copies
from loom.core.errors import ToolFailed

pytestmark = pytest.mark.anyio

# Each refers to the part before, so that some twenty of them are a million copies.
FORMS = {
    "joined": "c{n} AS (SELECT a.x FROM c{m} a, c{m} b)",
    "joined by word": "c{n} AS (SELECT a.x FROM c{m} a LEFT JOIN c{m} b ON 1)",
    "twice in a union": "c{n} AS (SELECT x FROM c{m} UNION ALL SELECT x FROM c{m})",
    "as values": "c{n}(x) AS (SELECT (SELECT max(x) FROM c{m}) + (SELECT min(x) FROM c{m}))",
    "after IN": "c{n} AS (SELECT x FROM c{m} WHERE x IN c{m})",
    "in marks": "[c{n}] AS (SELECT a.x FROM \"C{m}\" a, `c{m}` b, 'c{m}')",
    "in parentheses": "c{n} AS (SELECT a.x FROM (c{m}) a, ((c{m})) b)",
    "in comments": "c{n}/* ' */AS--(\n(SELECT a.x FROM/**/c{m} a,/*x*/c{m} b)",
    "not materialized": "c{n} AS NOT MATERIALIZED (SELECT a.x FROM c{m} a, c{m} b)",
    "materialized": "c{n} AS MATERIALIZED (SELECT a.x FROM c{m} a, c{m} b)",
    "a long sum": "c{n}(x) AS (SELECT x + x FROM c{m})",
    "a long text": "c{n}(x) AS (SELECT x || x || x || x FROM c{m})",
    "a quoted column": 'c{n}("end") AS (SELECT "end" || [end] || `end` FROM c{m})',
    "within": "c{n} AS (SELECT a.x FROM (SELECT * FROM c{m}) a, (SELECT * FROM c{m}) b)",
    "a part within": "c{n} AS (WITH d AS (SELECT x FROM c{m}) SELECT d.x FROM d, d AS e)",
}


def chain(form: str, count: int) -> str:
    parts = ", ".join(form.format(n=n, m=n - 1) for n in range(1, count))
    return f"WITH c0(x) AS (SELECT 1), {parts} SELECT * FROM c{count - 1}"  # noqa: S608 - ours


@pytest.mark.parametrize("form", FORMS)
async def test_what_multiplies_is_refused(form: str, tmp_path: Path) -> None:
    """However its parts are written, a long chain of doublings is refused at once."""
    backend = SQLiteBackend(make_shop(tmp_path))

    with pytest.raises(ToolFailed, match="multiplies its parts"):
        await backend.execute_query(chain(FORMS[form], 40))


async def test_views_that_multiply_are_refused(tmp_path: Path) -> None:
    """A hostile schema does no more than a hostile query."""
    form = "CREATE VIEW V{n} AS SELECT a.x FROM v{m} a, main.[v{m}] b;"
    views = "".join(form.format(n=n, m=n - 1) for n in range(1, 40))
    views = f"CREATE VIEW v0 AS SELECT 1 AS x;{views}"
    backend = SQLiteBackend(make_shop(tmp_path, views))

    assert ((1,),) == (await backend.execute_query("SELECT * FROM v3")).rows
    for query in ("SELECT * FROM v39", "SELECT 1 FROM main.V39", "SELECT 1 WHERE 1 IN 'v39'"):
        with pytest.raises(ToolFailed, match="multiplies its parts"):
            await backend.execute_query(query)


async def test_subqueries_that_multiply_are_refused(tmp_path: Path) -> None:
    """Sums of sums within one another are refused, whoever is asked first."""
    query = "SELECT id AS x FROM orders"
    for _ in range(40):
        query = f"SELECT x || x AS x FROM ({query})"  # noqa: S608 - ours

    with pytest.raises(ToolFailed):
        await SQLiteBackend(make_shop(tmp_path)).execute_query(query)
    assert copies(query, lambda _: None) > MOST_COPIES


REPORT = """
WITH spent AS (
    SELECT c.id, c.name, c.city, sum(o.amount) AS total, count(o.id) AS orders
    FROM customers c LEFT JOIN orders o ON o.customer_id = c.id GROUP BY c.id, c.name, c.city
), ranked AS (
    SELECT id, name, city, total, orders, rank() OVER (PARTITION BY city ORDER BY total DESC) AS r,
        CASE WHEN total > 100 THEN 'gold' WHEN total > 20 THEN 'silver' ELSE 'none' END AS class
    FROM spent WHERE total IS NOT NULL
), cities AS (
    SELECT city, sum(total) AS total, avg(total) AS mean, max(total) AS top, min(total) AS low
    FROM ranked GROUP BY city
), shares AS (
    SELECT r.name, r.city, r.class, r.total, round(100.0 * r.total / c.total, 1) AS share
    FROM ranked r JOIN cities c ON c.city = r.city WHERE r.r <= 3 AND c.total > 0
), totals AS (SELECT sum(total) AS total FROM cities)
SELECT s.name, s.city, s.class, s.total, s.share, round(100.0 * s.total / t.total, 1) AS of_all,
    (SELECT count(*) FROM shares x WHERE x.city = s.city) AS peers
FROM shares s, totals t ORDER BY s.total DESC, s.name
"""


async def test_a_long_report_passes(tmp_path: Path) -> None:
    """A report of five parts, a rank and shares is nowhere near the bound."""
    rows = (await SQLiteBackend(make_shop(tmp_path)).execute_query(REPORT)).rows

    assert ("Ann", "Oslo", "silver", 32.5, 100.0, 86.7, 1) == rows[0]
    assert copies(REPORT, lambda _: None) < MOST_COPIES / 4


def test_a_part_that_recurs_is_not_copied() -> None:
    """A recursive part, and one in a straight chain, count little."""
    recursive = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t"
    straight = chain("c{n} AS (SELECT x FROM c{m})", 100)

    assert copies(recursive, lambda _: None) < 20
    assert copies(straight, lambda _: None) < 1000


def test_a_circle_has_no_end() -> None:
    """Parts that use one another, and parts too deep, count as endless."""
    circle = "WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a"

    assert float("inf") == copies(circle, lambda _: None)
    assert float("inf") == copies("(SELECT " * 1200, lambda _: None)


PIECES = [*"'\"`[](),.-/* \n;", "SELECT ", "WITH ", "AS ", "a", "FROM ", "MATERIALIZED "]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_is_counted(query: str) -> None:
    """No text makes the count fail."""
    assert copies(query, lambda name: query if name == "a" else None) >= 1
