"""Which store a setting means, and which ids a session may have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loom.agent.session import check_session_id, new_session_id
from loom.agent.session_memory import MemorySessions
from loom.agent.session_open import open_sessions
from loom.agent.session_sqlite import SQLiteSessions
from loom.core.ambient import SystemDice
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.testing import FakeDice


def test_memory_is_a_store_in_memory() -> None:
    """Each time a new one."""
    assert isinstance(open_sessions("memory:"), MemorySessions)


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("sqlite:///sessions.db", "sessions.db"),
        ("sqlite:////var/lib/sessions.db", "/var/lib/sessions.db"),
        ("sessions.db", "sessions.db"),
        (Path("some") / "sessions.db", "some/sessions.db"),
    ],
    ids=["url", "url-from-the-root", "text", "path"],
)
def test_a_file_is_named_in_three_ways(where: str | Path, path: str) -> None:
    """As an address, as text and as a path; nothing is opened yet."""
    store = open_sessions(where)
    assert isinstance(store, SQLiteSessions)
    assert Path(path).absolute() == store.path
    assert not store.path.exists()


def test_a_store_is_given_back() -> None:
    """Who has one already may pass it."""
    store = MemorySessions()
    assert store is open_sessions(store)


@pytest.mark.parametrize("where", ["", "sqlite:///", "redis://localhost", ":memory:"])
def test_what_is_no_store_is_refused(where: str) -> None:
    """The message says what there is."""
    with pytest.raises(ConfigInvalid, match="'sqlite:///FILE', a path or 'memory:'"):
        open_sessions(where)


def test_memory_needs_no_sqlite() -> None:
    """The module costs 5 ms, and who keeps no file does not pay them."""
    code = (
        "import sys, loom.agent.session_open as open, loom.agent.history\n"
        "open.open_sessions('memory:')\n"
        "assert 'loom.agent.session_sqlite' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_id_is_drawn() -> None:
    """It has 20 digits and small letters, which the dice choose."""
    assert "0" * 20 == new_session_id(FakeDice([0.0] * 20))
    assert "z" * 20 == new_session_id(FakeDice([0.999999] * 20))
    dice = SystemDice()
    assert 100 == len({new_session_id(dice) for _ in range(100)})
    check_session_id(new_session_id(dice))


def test_an_id_that_is_none_is_refused() -> None:
    """It says what an id is."""
    with pytest.raises(InvalidRequest, match="1 to 200 printable characters"):
        check_session_id("a\nb")
    with pytest.raises(InvalidRequest, match="a text, not int"):
        check_session_id(7)  # type: ignore[arg-type] # it is what is tested
