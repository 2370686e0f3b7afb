"""Queries that the offline model writes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from loom import Agent, Mistral, SQLiteBackend
from loom.core.request import ToolSpec
from loom.providers.improvise_sql import improvised_query, sql_field

TOLD = "You can query.\norders (3 rows): id INTEGER key, city TEXT, price REAL\nlogs: at TEXT"
MADE = "CREATE TABLE orders (id INTEGER, city TEXT, price REAL);"


@pytest.mark.parametrize("told", [TOLD, MADE])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            "Which city had the most orders?",
            "SELECT city, count(*) AS n FROM orders GROUP BY city ORDER BY n DESC LIMIT 5",
        ),
        ("How many orders are there?", "SELECT count(*) AS n FROM orders"),
        ("What is the total price of all orders?", "SELECT sum(price) AS n FROM orders"),
        ("Show me an order.", "SELECT * FROM orders LIMIT 5"),
        ("What is love?", None),
    ],
)
def test_a_question_becomes_a_query(told: str, asked: str, expected: str | None) -> None:
    """A table and a column that are named are asked for; without a table nothing is."""
    assert expected == improvised_query(told, asked)


def test_which_tools_take_sql() -> None:
    """A query of something else is no SQL."""
    query = {"type": "object", "properties": {"query": {"type": "string"}}}
    assert "query" == sql_field(ToolSpec(name="run", description="Run SQL.", parameters=query))
    assert sql_field(ToolSpec(name="search", description="Find pages.", parameters=query)) is None
    assert sql_field(ToolSpec(name="sql", description="No arguments.")) is None


def test_an_agent_queries_offline(tmp_path: Path) -> None:
    """Without a key, an agent with a database answers from its rows."""
    shop = sqlite3.connect(tmp_path / "shop.db")
    shop.execute("create table orders (id integer primary key, city text)")
    shop.execute("insert into orders (city) values ('Lyon'), ('Nice'), ('Lyon')")
    shop.commit()
    shop.close()
    backend = SQLiteBackend(tmp_path / "shop.db")
    with Mistral(sim=True) as client, Agent(llm=client, backend=backend) as agent:
        response = agent.chat("Which city had the most orders?")
        quiet = agent.chat("Which city had the most orders? Do not use any tools.")
    (result,) = response.tool_executions
    assert result.ok
    assert "city,n\nLyon,2\nNice,1" in str(result.content)
    assert "Lyon" in response.content
    assert () == quiet.tool_executions
