"""`looms keys`: a key is shown once, and everything else of it as often as somebody asks."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import stat
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loom.core.ambient import SystemClock
from loom.core.response import Usage
from loom.ledger.closing import closed
from loom.ledger.entry import Opening
from loom.ledger.sqlite.store import SqliteLedger
from loom.server.gateway.keys_store import KeyStore
from loom.server.gateway.keys_text import is_well_formed, new_key

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start

TERMS = (
    "--models", "mistral-*,codestral-latest", "--rpm", "60", "--tpm", "100000",
    "--budget", "20/month", "--expires", "90d", "--max-tokens", "4000", "--concurrency", "8",
    "--tag", "team=a",
)  # fmt: skip


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data folder of its own."""
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def listed(looms: Run, *words: str) -> list[dict[str, Any]]:
    """Give the keys as programs see them."""
    found: list[dict[str, Any]] = json.loads(looms("keys", "list", "--json", *words).out)["keys"]
    return found


def test_the_key_stands_alone_on_standard_output(data: Path, looms: Run) -> None:
    """Everything else goes to standard error, and `-q` hushes that."""
    code, out, err = looms("keys", "create", "--name", "team-a", *TERMS)
    assert 0 == code
    assert is_well_formed(out.removesuffix("\n"))
    assert "team-a (key_" in err
    assert "mistral-*, codestral-latest · 60 requests/min · 100,000 tokens/min" in err
    assert "20 USD/month · 4,000 tokens/answer · 8 at once · until 20" in err
    assert "not shown again" in err
    assert 0o600 == stat.S_IMODE((data / "keys.db").stat().st_mode)
    quiet = looms("keys", "create", "--name", "team-b", "-q")
    assert (True, "") == (is_well_formed(quiet.out.strip()), quiet.err)


def test_json_has_the_key_and_its_terms(looms: Run) -> None:
    """One object, and nothing on standard error but what people read."""
    made = json.loads(looms("keys", "create", "--name", "team-a", "--json", *TERMS).out)
    assert is_well_formed(made.pop("key"))
    expires_at = datetime.fromisoformat(made["expires_at"])
    assert timedelta(days=89, hours=23) < expires_at - SystemClock().now() <= timedelta(days=90)
    assert {
        "name": "team-a",
        "state": "active",
        "models": ["mistral-*", "codestral-latest"],
        "rpm": 60,
        "tpm": 100_000,
        "budget": {"limit_usd": "20", "period": "month"},
        "max_tokens": 4000,
        "concurrency": 8,
        "revoked_at": None,
        "tags": {"team": "a"},
    } == {name: made[name] for name in made if name not in _DRAWN}
    assert [made] == listed(looms)


_DRAWN = ("id", "fingerprint", "expires_at", "created_at")


def test_no_command_shows_a_key_again(looms: Run) -> None:
    """Not as a table, not as JSON, not to who gives it, not in an error."""
    secret = looms("keys", "create", "--name", "team-a", *TERMS).out.strip()
    told = []
    for words in (
        ("list",),
        ("list", "--json"),
        (),
        ("show", "team-a"),
        ("show", secret),
        ("show", secret, "--json"),
        ("audit",),
        ("audit", secret, "--json"),
        ("update", secret, "--rpm", "5"),
        ("create", "--name", secret),
        ("show", secret[:-1]),
        ("revoke", f"x{secret}"),
        ("revoke", secret),
        ("update", secret, "--rpm", "6"),
        ("list", "--all", "--debug"),
    ):
        done = looms("keys", *words)
        told.append(f"{done.out}{done.err}")
    assert all(secret[8:20] not in text and secret[-8:] not in text for text in told)
    assert "revoked team-a (key_" in told[12]
    assert "mind typos" in told[10]


def test_the_list_shows_who_may_what(looms: Run) -> None:
    """Name, state, models, limits; revoked keys only when asked for."""
    for name in ("team-a", "team-b"):
        looms("keys", "create", "--name", name, *TERMS)
    looms("keys", "revoke", "team-b")
    code, out, err = looms("keys")
    assert 0 == code
    assert out == looms("keys", "list").out
    for part in ("team-a", "active", "mistral-*, codestral-latest", "100,000", "20/month"):
        assert part in out
    assert "team-b" not in out
    assert "1 revoked key is not shown" in err
    assert ["team-a"] == [key["name"] for key in listed(looms)]
    every = {key["name"]: key["state"] for key in listed(looms, "--all")}
    assert {"team-a": "active", "team-b": "revoked"} == every


def test_without_a_key(data: Path, looms: Run) -> None:
    """It says how to make one, and makes no file."""
    code, out, err = looms("keys")
    assert (0, "") == (code, out)
    assert "looms keys create --name team-a" in err
    assert [] == listed(looms)
    assert "Nothing was done yet" in looms("keys", "audit").err
    assert not data.exists()


def test_the_ledger_says_what_was_spent(data: Path, looms: Run) -> None:
    """In the period of the budget, by the key's id; a month where there is none."""
    ids = {}
    for name, budget in (("daily", "20/day"), ("ever", "20"), ("free", "none")):
        made = looms("keys", "create", "--name", name, "--budget", budget, "--json")
        ids[name] = json.loads(made.out)["id"]
    assert all("spent" not in key for key in listed(looms))
    asyncio.run(_calls(data / "ledger.db", [ids["daily"], ids["ever"], ids["ever"]]))
    spent = {key["name"]: key["spent"] for key in listed(looms)}
    assert {"usd": "0.25", "calls": 1, "period": "day"} == spent["daily"]
    assert {"usd": "0.50", "calls": 2, "period": None} == spent["ever"]
    assert {"usd": "0", "calls": 0, "period": "month"} == spent["free"]
    out = looms("keys").out
    assert "$0.250000 this day" in out
    assert "$0.500000" in out
    assert "$0.000000 this month" in looms("keys", "show", "free").out


async def _calls(path: Path, tenants: list[str]) -> None:
    ledger = SqliteLedger(path)
    for tenant in tenants:
        opening = Opening(provider="mistral", asked_model="m", tenant=tenant, worst_usd=Decimal(1))
        ticket = await ledger.reserve(opening)
        usage = Usage(input_tokens=1, output_tokens=1, cost_usd=Decimal("0.25"))
        await ledger.settle(ticket, closed(ticket.entry, "settled", usage=usage))
    await ledger.aclose()


def test_an_update_changes_what_it_names(looms: Run) -> None:
    """`none` takes a limit away, the rest stays."""
    looms("keys", "create", "--name", "team-a", *TERMS)
    words = ("--rpm", "5", "--budget", "none", "--expires", "NONE", "--models", "*")
    assert "5 requests/min" in looms("keys", "update", "team-a", *words).err
    (key,) = listed(looms)
    assert (5, None, None, ["*"]) == (key["rpm"], key["budget"], key["expires_at"], key["models"])
    assert (100_000, {"team": "a"}) == (key["tpm"], key["tags"])
    done = looms("keys", "update", key["id"], "--tpm", "none", "--json")
    assert json.loads(done.out)["tpm"] is None


def test_the_audit_tells_who_did_it(looms: Run) -> None:
    """The account, the change, and the hash."""
    secret = looms("keys", "create", "--name", "team-a", "--rpm", "60").out.strip()
    looms("keys", "update", "team-a", "--rpm", "5")
    looms("keys", "revoke", "team-a")
    rows = json.loads(looms("keys", "audit", "--json").out)["audit"]
    assert ["revoke", "update", "create"] == [row["action"] for row in rows]
    assert {pwd.getpwuid(os.getuid()).pw_name} == {row["actor"] for row in rows}
    assert {"rpm": [60, 5]} == rows[1]["change"]
    assert rows == json.loads(looms("keys", "show", secret, "--json").out)["audit"]
    out = looms("keys", "audit", "team-a").out
    assert "rpm 60 -> 5" in out
    assert "rpm none -> 60" in out


def test_all_that_are_to_be_revoked_are_known_first(looms: Run) -> None:
    """A typo in the second one ends nothing."""
    looms("keys", "create", "--name", "team-a")
    code, out, err = looms("keys", "revoke", "team-a", "team-x")
    assert (2, "") == (code, out)
    assert "there is no key 'team-x': did you mean 'team-a'?" in err
    assert ["active"] == [key["state"] for key in listed(looms)]
    done = looms("keys", "revoke", "team-a", "team-a", "--json")
    assert ["revoked", "revoked"] == [key["state"] for key in json.loads(done.out)["revoked"]]


def test_a_day_ends_a_key_at_its_end(looms: Run) -> None:
    """UTC, as days are everywhere here; a time is that time."""
    for name, given, end in (
        ("a", "2999-01-31", datetime(2999, 2, 1, tzinfo=UTC)),
        ("b", "2999-01-31T12:00", datetime(2999, 1, 31, 12, tzinfo=UTC)),
        ("c", "2999-01-31T12:00+02:00", datetime(2999, 1, 31, 10, tzinfo=UTC)),
    ):
        made = looms("keys", "create", "--name", name, "--expires", given, "--json")
        assert end == datetime.fromisoformat(json.loads(made.out)["expires_at"])


def test_another_file(data: Path, looms: Run, tmp_path: Path) -> None:
    """`--keys` names it."""
    looms("keys", "create", "--name", "a", "--keys", "mine.db")
    assert ["a"] == [key.name for key in KeyStore(tmp_path / "mine.db").list()]
    assert ["a"] == [key["name"] for key in listed(looms, "--keys", "mine.db")]
    assert not data.exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("create",), "--name"),
        (("create", "--name", "two words"), "no name for a key"),
        (("create", "--name", "admin"), "the gateway's own"),
        (("create", "--name", "a", "--rpm", "0"), "--rpm"),
        (("create", "--name", "a", "--budget", "5/year"), "USD/month"),
        (("create", "--name", "a", "--expires", "soon"), "90d, 12h"),
        (("create", "--name", "a", "--expires", "2020-01-01"), "is over"),
        (("create", "--name", "a", "--expires", "0d"), "is over"),
        (("create", "--name", "a", "--models", "[ab]*"), "no pattern of models"),
        (("create", "--name", "a", "--models", ""), "'*' is every model"),
        (("create", "--name", "a", "--models", "none"), "'*' is every model"),
        (("create", "--name", "a", "--tag", "x"), "NAME=VALUE"),
        (("update", "a"), "nothing to change"),
        (("update", "a", "--rpm", "5"), "there is no key 'a'"),
        (("revoke",), "KEY"),
        (("show", "a"), "there is no key 'a'"),
        (("audit", "a"), "there is no key 'a'"),
        (("list", "--ledger", "none.db"), "there is no ledger"),
    ],
)
def test_wrong_words(words: tuple[str, ...], part: str, looms: Run) -> None:
    """What was meant is named, nothing is made."""
    code, out, err = looms("keys", *words)
    assert (2, "") == (code, out)
    assert part in " ".join(err.split())
    assert [] == listed(looms)


def test_a_name_that_is_taken(looms: Run) -> None:
    """It is wrong usage, and the first key stays."""
    looms("keys", "create", "--name", "a")
    code, out, err = looms("keys", "create", "--name", "a")
    assert (2, "") == (code, out)
    assert "there is a key 'a' already" in err


def test_a_file_that_is_none(data: Path, looms: Run) -> None:
    """The error names it and what to do."""
    data.mkdir()
    (data / "keys.db").write_text("no database at all\n" * 100)
    code, out, err = looms("keys", "list")
    assert (2, "") == (code, out)
    assert "is damaged and is left as it is" in err


def test_as_a_program(looms: Run, start: Start) -> None:
    """The key can be read by a shell: `KEY=$(looms keys create --name a)`."""
    del looms
    out, err = start("keys", "create", "--name", "a").communicate()
    assert is_well_formed(out.decode().strip())
    assert b"not shown again" in err
    assert not is_well_formed(new_key().reveal()[:-1])
