"""Which ledger a setting means."""

from __future__ import annotations

from pathlib import Path

from loom.core.ambient import Clock
from loom.core.errors import ConfigInvalid
from loom.ledger.contract import Ledger
from loom.ledger.memory import MemoryLedger

__all__ = ["open_ledger"]

_SQLITE = "sqlite:///"


def open_ledger(
    where: str | Path | Ledger, *, clock: Clock | None = None, keep_days: int | None = None
) -> Ledger:
    """
    Make the ledger that a setting names; nothing is opened yet.

    Args:
        where: "sqlite:///calls.db" (with four slashes for a path from the root), a path,
            "memory:", or a ledger, which is given back.
        clock: Dates the rows.
        keep_days: Rows older than this go by themselves; None: none do.

    Returns:
        The ledger.

    Raises:
        ConfigInvalid: If there is no such kind of ledger.
    """
    if not isinstance(where, str | Path):
        return where
    if where == "memory:":
        return MemoryLedger(clock=clock)
    text = str(where)
    path = text.removeprefix(_SQLITE)
    scheme = text.partition("://")[0] if "://" in path else ""
    if scheme or not path:
        raise ConfigInvalid(
            f"a ledger is 'sqlite:///FILE', a path or 'memory:', not {scheme or text!r}://:"
            " other databases come with the gateway"
        )
    if keep_days is not None and keep_days < 1:
        raise ConfigInvalid(f"a ledger keeps rows for at least 1 day, not {keep_days}")
    from loom.ledger.sqlite.store import SqliteLedger  # noqa: PLC0415 - sqlite3 costs 5 ms

    return SqliteLedger(path, clock=clock, keep_days=keep_days)
