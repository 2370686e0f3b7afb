"""A small shop in a SQLite file, and what a test of its backend needs."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
CREATE TABLE orders(
    id INTEGER PRIMARY KEY, customer_id INT REFERENCES customers(id), amount REAL, note TEXT
);
CREATE TABLE secrets(word TEXT);
CREATE VIEW large AS SELECT id, amount FROM orders WHERE amount > 10;
CREATE VIEW leak AS SELECT word FROM secrets;
INSERT INTO customers VALUES (1, 'Ann', 'Oslo'), (2, 'Bob', 'Rome');
INSERT INTO orders VALUES (1, 1, 20.5, 'gift, red'), (2, 2, 5.0, NULL), (3, 1, 12.0, '');
INSERT INTO secrets VALUES ('xyzzy');
"""

ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"


def make_shop(folder: Path, more: str = "", *, name: str = "shop.db") -> Path:
    """Give the path of a new shop, with more statements run on it."""
    path = folder / name
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA + more)
    return path


def digest(path: Path) -> str:
    """Give what the file's bytes are known by."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
