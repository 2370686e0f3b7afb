"""A row from an answer or an error, written out, and priced again."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from tests.ledger.ledgers import call, pay

from loom.catalog.cost import price_usage
from loom.catalog.lookup import Catalog
from loom.core.errors import ConfigInvalid, InvalidRequest, StreamTruncated, TimedOut
from loom.core.messages import Message
from loom.core.model import Price
from loom.core.response import Choice, LLMResponse, Partial, Usage
from loom.core.timeline import Attempt, Timeline
from loom.ledger.closing import closed
from loom.ledger.contract import Query
from loom.ledger.entry import Entry, Sent
from loom.ledger.export import CSV_FIELDS, csv_lines, guarded, json_lines
from loom.ledger.memory import MemoryLedger
from loom.ledger.open import open_ledger
from loom.ledger.reprice import reprice, repriced
from loom.ledger.sqlite.store import SqliteLedger

pytestmark = pytest.mark.anyio

AT = datetime(2026, 11, 15, 12, tzinfo=UTC)
OPENED = Entry(
    id="0", at=AT, provider="mistral", asked_model="model-1", reserved_usd=Decimal("0.10")
)
TIMELINE = Timeline(
    began_s=1000.0,
    attempts=(
        Attempt(
            provider="mistral",
            model="model-1",
            origin="https://api.mistral.ai",
            sent_s=1000.5,
            ended_s=1001.0,
            status=503,
            code="service_unavailable",
            request_id="r0",
        ),
        Attempt(
            provider="other",
            model="model-2",
            sent_s=1002.0,
            first_byte_s=1002.25,
            ended_s=1003.0,
            status=200,
            charge="settled",
        ),
    ),
)
PRICE = Price(id="model-2@2026-01-01", input_usd_per_mtok=Decimal(2))
USAGE = Usage(input_tokens=9, output_tokens=4, cost_usd=Decimal("0.02"), price=PRICE)


def price_of(usage: Usage, provider: str, model: str, on: date) -> Usage:
    return price_usage(usage, Catalog.builtin().find(model, on, provider=provider))


def test_an_answer_closes_its_row() -> None:
    """The row names who answered and its price; failed attempts are fields of it."""
    answer = LLMResponse(
        choices=(Choice(message=Message.assistant("secret answer")),),
        usage=USAGE,
        model="model-2",
        request_id="r1",
        latency_s=3.0,
        timeline=TIMELINE,
        metadata={"provider": "other"},
    )

    row = closed(OPENED, "settled", response=answer)

    assert ("settled", "other", "model-2", "model-1") == (
        row.state,
        row.provider,
        row.model,
        row.asked_model,
    )
    assert (9, 4, Decimal("0.02"), "model-2@2026-01-01") == (
        row.input_tokens,
        row.output_tokens,
        row.cost_usd,
        row.price_id,
    )
    assert (3.0, 2.25, "", "r1") == (row.latency_s, row.first_byte_s, row.code, row.request_id)
    failed, answered = row.attempts
    assert ("service_unavailable", 0.5, 1.0, "released") == (
        failed.code,
        failed.sent_s,
        failed.ended_s,
        failed.charge,
    )
    assert ("other", 2.25, "settled") == (answered.provider, answered.first_byte_s, answered.charge)
    assert b"secret" not in msgspec.json.encode(row)


def test_an_error_closes_its_row() -> None:
    """What had arrived is in it; what was not is not."""
    error = StreamTruncated(
        "cut", partial=Partial(text="secret", usage=USAGE), timeline=TIMELINE, request_id="r2"
    )

    row = closed(OPENED, "estimated", error=error)

    assert ("stream_truncated", "r2", 9, Decimal("0.02"), 3.0) == (
        row.code,
        row.request_id,
        row.input_tokens,
        row.cost_usd,
        row.latency_s,
    )
    assert b"secret" not in msgspec.json.encode(row)
    bare = closed(OPENED, "uncertain", error=TimedOut("late"))
    assert ("timeout", 0, None, Decimal("0.10")) == (
        bare.code,
        bare.input_tokens,
        bare.cost_usd,
        bare.counted_usd,
    )


def test_a_released_call_costs_nothing() -> None:
    """Whatever it used."""
    row = closed(OPENED, "released", usage=USAGE)

    assert (Decimal(0), "", Decimal(0)) == (row.cost_usd, row.price_id, row.counted_usd)


def test_csv_runs_no_formula() -> None:
    """A cell that a spreadsheet would run has an apostrophe before it; the rest reads back."""
    row = msgspec.structs.replace(
        OPENED,
        session='=HYPERLINK("http://example.org")',
        tenant="@SUM(A1)",
        code='a,"b"\nc',
        tags={"=1": "x"},
        cost_usd=Decimal("1E-9"),
        attempts=(Sent(provider="mistral", model="model-1"),),
    )

    names, cells = csv.reader(io.StringIO("".join(csv_lines([row]))))

    read = dict(zip(names, cells, strict=True))
    assert list(CSV_FIELDS) == names
    assert '\'=HYPERLINK("http://example.org")' == read["session"]
    assert "'@SUM(A1)" == read["tenant"]
    assert 'a,"b"\nc' == read["code"]
    assert ("0.000000001", "1", "false", "") == (
        read["cost_usd"],
        read["attempts"],
        read["stream"],
        read["request_id"],
    )
    assert {"=1": "x"} == json.loads(read["tags"])
    assert ["'-1", "'\tx", "'\uff1dx", "x=1"] == [
        guarded(c) for c in ("-1", "\tx", "\uff1dx", "x=1")
    ]


def test_every_field_is_exported() -> None:
    """A field that is added to a row is added to the table."""
    assert set(Entry.__struct_fields__) == set(CSV_FIELDS)


def test_json_lines_read_back() -> None:
    """Each line is a row, its amounts to the last digit."""
    rows = [OPENED, closed(OPENED, "settled", usage=USAGE)]

    lines = list(json_lines(rows))

    assert rows == [msgspec.json.decode(line, type=Entry) for line in lines]
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)


async def test_rows_are_priced_by_any_day() -> None:
    """By their own day as they were, by another as that had it; unknown stays unknown."""
    model = Catalog.builtin().cards(AT.date(), "mistral")[0].id
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    priced = price_of(usage, "mistral", model, AT.date())
    row = msgspec.structs.replace(closed(OPENED, "settled", usage=priced), model=model)

    same = repriced(row, price_of)
    before = repriced(row, price_of, date(1999, 1, 1))

    assert priced.cost_usd is not None
    assert (priced.cost_usd, row.price_id, False) == (same.cost_usd, same.price_id, same.changed)
    assert (None, "", True) == (before.cost_usd, before.price_id, before.changed)

    ledger = MemoryLedger()
    await pay(ledger, await ledger.reserve(call()), None, model=model)
    await pay(ledger, await ledger.reserve(call()), None, model="nobody-knows-1")
    await pay(ledger, await ledger.reserve(call()), None, state="released")
    found = [each async for each in reprice(ledger, price_of, on=AT.date())]
    assert [True, False, False] == [each.changed for each in found]
    assert [False, True, False] == [each.cost_usd is None for each in found]


def test_a_setting_names_its_ledger(tmp_path: Path) -> None:
    """A path, an address, memory, or a ledger itself."""
    mine = MemoryLedger()
    for where, path in (
        ("calls.db", Path("calls.db")),
        ("sqlite:///calls.db", Path("calls.db")),
        (f"sqlite:///{tmp_path}/calls.db", tmp_path / "calls.db"),
        (tmp_path / "x.db", tmp_path / "x.db"),
    ):
        ledger = open_ledger(where, keep_days=30)
        assert isinstance(ledger, SqliteLedger)
        assert path == ledger.path
    assert isinstance(open_ledger("memory:"), MemoryLedger)
    assert mine is open_ledger(mine)


@pytest.mark.parametrize("where", ["postgresql://host/db", "sqlite://calls.db", "", "sqlite:///"])
def test_another_kind_of_ledger_is_refused(where: str) -> None:
    """The message says what there is."""
    with pytest.raises(ConfigInvalid, match="'sqlite:///FILE', a path or 'memory:'"):
        open_ledger(where)


def test_rows_are_kept_for_a_day_at_least() -> None:
    """Less would be none."""
    with pytest.raises(ConfigInvalid, match="at least 1 day"):
        open_ledger("calls.db", keep_days=0)


async def test_questions_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """A grouping that does not exist, a time without a zone."""
    naive = datetime(2024, 11, 15)  # noqa: DTZ001 - this is what is refused
    for ledger in (MemoryLedger(), SqliteLedger(tmp_path / "calls.db")):
        with pytest.raises(InvalidRequest, match="not grouped by 'colour': use one of all, day"):
            await ledger.totals(by="colour")
        with pytest.raises(InvalidRequest, match="has no time zone"):
            await ledger.entries(Query(since=naive))
        with pytest.raises(InvalidRequest, match="has no time zone"):
            await ledger.prune(naive)


async def test_memory_keeps_its_last_rows(tmp_path: Path) -> None:
    """Older ones go, what they cost does not."""
    ledger = MemoryLedger(keep=3)
    for number in range(5):
        await pay(ledger, await ledger.reserve(call(session=str(number))))

    assert ["2", "3", "4"] == [row.session for row in await ledger.entries()]


async def test_an_amount_that_makes_no_sense_settles_nothing(tmp_path: Path) -> None:
    """It is the caller's bug, told to the caller; the worst case stays reserved."""
    for ledger in (MemoryLedger(), SqliteLedger(tmp_path / "calls.db")):
        ticket = await ledger.reserve(call())
        with pytest.raises(ValueError, match="at least 0"):
            await pay(ledger, ticket, "-1")
        with pytest.raises(ValueError, match="worst_usd"):
            await ledger.reserve(call("-1"))
        assert ["open"] == [row.state for row in await ledger.entries()]
        await ledger.aclose()
