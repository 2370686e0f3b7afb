"""
Ask a database in plain words; SQLite itself sees to it that nothing is changed.

    MISTRAL_API_KEY=... python examples/sql_analyst.py
    python examples/sql_analyst.py --sim
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

from loom import AgentBuilder, Mistral, SQLiteBackend

ORDERS = [("Lyon", 20), ("Nice", 35), ("Lyon", 50), ("Paris", 15), ("Lyon", 5)]


def make_shop(folder: str) -> Path:
    """Make a small database, so that the example stands alone."""
    path = Path(folder) / "shop.db"
    shop = sqlite3.connect(path)
    shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, city TEXT, amount INTEGER)")
    shop.executemany("INSERT INTO orders (city, amount) VALUES (?, ?)", ORDERS)
    shop.commit()
    shop.close()
    return path


def main() -> None:
    """Ask two questions of one conversation; show the queries, and what they gave."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Mistral(sim="--sim" in sys.argv) as client,
        AgentBuilder()
        .with_llm(client)
        .with_backend(SQLiteBackend(make_shop(folder)))
        .with_system_prompt("You analyse the orders of a shop. Answer with figures.")
        .with_session_store("memory:")
        .build() as agent,
    ):
        for question in (
            "Which city had the most orders?",
            "What is the total amount of all orders?",
        ):
            response = agent.chat(question, session="analysis")
            print(f"> {question}")
            for result in response.tool_executions:
                print(f"  {result.call.input.get('query', result.call.name)}")
            print(f"{response.content}\n")
        print(f"${response.session_cost_usd:.6f} for the whole conversation")


if __name__ == "__main__":
    main()
